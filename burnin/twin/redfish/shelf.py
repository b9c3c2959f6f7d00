"""The management controller of a power shelf, in the shape of a captured one: no $expand, collections come expanded."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.twin.model import Housing
from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish.logs import Log
from burnin.twin.redfish.root import Account, Made, collect_all, firmware, make_service, manager, root
from burnin.twin.redfish.tree import ROOT, Body, Tree, ref, refs, sensor

SHELF = f"{ROOT}/Chassis/PowerShelf_0"
SUPPLIES = f"{SHELF}/PowerSubsystem/PowerSupplies"
_VERSION = "1.14.3"
_LINE_V = 241.5
"""Captured."""


class _Shelf:
    def __init__(self, serials: Sequence[str], rows: Sequence[FloatRow], facts: Housing, account: Account) -> None:
        self.serials, self.rows, self.facts, self.account = serials, rows, facts, account
        self.tree, self.service = make_service(account, expands=False)
        self.log = Log(self.tree, f"{ROOT}/Managers/PMC_0", "EventLog", account.now, self.service.tell)
        self._was_lost = [False] * len(rows)

    def build(self) -> Made:
        tree, facts = self.tree, self.facts
        sensors, supplies = [], []
        for i, row in enumerate(self.rows):
            sensors += self._sensors(i + 1, row)
            supplies.append(self._supply(i + 1, row, self.serials[i + 1]))
        rows = self.rows
        for name, kind, read in (
            ("total_power_out", "Power", lambda: sum(row["out_w"] for row in rows)),
            ("total_power_in", "Power", lambda: sum(row["in_w"] for row in rows)),
            ("total_current_out", "Current", lambda: sum(row["out_w"] for row in rows) / facts.busbar_v),
        ):
            sensors.append(sensor(tree, SHELF, name, kind, read, context="Chassis", digits=2))
        _expanded(tree, f"{SHELF}/Sensors", "Sensor", sensors, "Sensors")
        _expanded(tree, SUPPLIES, "PowerSupply", supplies, "PowerSupply Collection")
        tree.live(f"{SHELF}/PowerSubsystem", "PowerSubsystem.v1_1_0.PowerSubsystem", self._subsystem, "Power Subsystem")
        chassis = tree.live(SHELF, "Chassis.v1_26_0.Chassis", self._chassis, "PowerShelf_0")
        links = collect_all(
            tree,
            {
                "Chassis": ("Chassis", [chassis]),
                "Managers": ("Manager", [manager(tree, "PMC_0", _VERSION, [self.log], self.account.now, "PMC")]),
            },
        )
        links["UpdateService"] = firmware(tree, {"PMC_0": (_VERSION, f"{ROOT}/Managers/PMC_0")})
        digits = "".join(c for c in self.serials[0] if c.isdigit())
        root(tree, "DELTA", "Power Shelf", f"00000000-0000-0000-0000-{digits[-12:].rjust(12, '0')}", links, expands=False)
        return Made(self.service, self.beat)

    def beat(self, now_s: float) -> None:
        """Log what was lost and what came back."""
        for i, row in enumerate(self.rows):
            lost = bool(row["lost"])
            if lost != self._was_lost[i]:
                self._was_lost[i] = lost
                args, path = [f"PSU {i + 1}"], f"{SUPPLIES}/{i + 1}"
                if lost:
                    self.log.add(
                        "Critical", "ResourceEvent.1.0.ResourceErrorsDetected", args, f"PSU {i + 1}: input power lost", path
                    )
                else:
                    self.log.add(
                        "OK", "ResourceEvent.1.0.ResourceErrorsCorrected", args, f"PSU {i + 1}: input power is back", path
                    )

    def _health(self) -> str:
        return "Critical" if all(row["lost"] for row in self.rows) else "Warning" if any(r["lost"] for r in self.rows) else "OK"

    def _chassis(self) -> Body:
        worst = self._health()
        return {
            "ChassisType": "RackMount",
            "Manufacturer": "DELTA",
            "Model": "AHE50V660A33KWR",
            "MaxPowerWatts": self.facts.psu_w * self.facts.psus,
            "SerialNumber": self.serials[0],
            "PowerState": "On",
            "PowerSubsystem": ref(f"{SHELF}/PowerSubsystem"),
            "Sensors": ref(f"{SHELF}/Sensors"),
            "Links": {"ManagedBy": refs([f"{ROOT}/Managers/PMC_0"])},
            "Status": {"Health": worst, "HealthRollup": worst, "State": "Enabled"},
        }

    def _subsystem(self) -> Body:
        members = [f"{SUPPLIES}/{i + 1}" for i in range(len(self.rows))]
        worst = self._health()
        group = {
            "MaxSupportedInGroup": len(members),
            "MinNeededInGroup": 1,
            "RedundancyGroup": refs(members),
            "RedundancyType": "NPlusM",
            "Status": {"Health": worst, "State": "Enabled"},
        }
        return {
            "CapacityWatts": self.facts.psu_w * self.facts.psus,
            "PowerSupplies": ref(SUPPLIES),
            "PowerSupplyRedundancy": [group],
            "Status": {"Health": worst, "State": "Enabled"},
        }

    def _supply(self, number: int, row: FloatRow, serial: str) -> str:
        path = f"{SUPPLIES}/{number}"
        body: Body = {
            "FirmwareVersion": "01050105",
            "HotPluggable": True,
            "Location": {
                "PartLocation": {"LocationOrdinalValue": number, "LocationType": "Bay", "ServiceLabel": f"PSU Bay {number}"}
            },
            "Manufacturer": "Delta",
            "Metrics": ref(f"{path}/Metrics"),
            "Model": "ECD17020047",
            "PowerCapacityWatts": self.facts.psu_w,
            "PowerSupplyType": "DC",
            "SerialNumber": serial,
        }

        def status() -> Body:
            lost = bool(row["lost"])
            return {"Health": "Critical" if lost else "OK", "State": "UnavailableOffline" if lost else "Enabled"}

        def metrics() -> Body:
            volts = 0.0 if row["lost"] else _LINE_V
            return {
                "InputPowerWatts": {"Reading": round(row["in_w"], 1)},
                "InputVoltage": {"Reading": volts},
                "OutputPowerWatts": {"Reading": round(row["out_w"], 1)},
                "Status": status(),
            }

        reset = f"{path}/Actions/PowerSupply.Reset"
        kinds = ["On", "ForceOff"]
        body["Actions"] = {"#PowerSupply.Reset": {"target": reset, "ResetType@Redfish.AllowableValues": kinds}}

        def do(given: Body) -> None:
            if given.get("ResetType") not in kinds:
                raise ValueError(f"ResetType is one of {', '.join(kinds)}")
            row["off"] = float(given["ResetType"] == "ForceOff")

        self.tree.acts[reset] = do
        self.tree.live(f"{path}/Metrics", "PowerSupplyMetrics.v1_1_0.PowerSupplyMetrics", metrics, f"Metrics of PSU {number}")
        return self.tree.live(
            path, "PowerSupply.v1_6_0.PowerSupply", lambda: {**body, "Status": status()}, f"PowerSupplyUnit {number}"
        )

    def _sensors(self, number: int, row: FloatRow) -> list[str]:
        volts, tree = self.facts.busbar_v, self.tree
        kinds = (
            ("input_power", "Power", lambda: row["in_w"]),
            ("output_power", "Power", lambda: row["out_w"]),
            ("input_voltage", "Voltage", lambda: 0.0 if row["lost"] else _LINE_V),
            ("output_voltage", "Voltage", lambda: 0.0 if row["lost"] else volts),
            ("output_current", "Current", lambda: row["out_w"] / volts),
            ("temp_hotspot", "Temperature", lambda: 32 + row["out_w"] / 120),
        )
        return [
            sensor(tree, SHELF, f"ps{number}_{name}", kind, read, context="PowerSupply", digits=2) for name, kind, read in kinds
        ]


def _expanded(tree: Tree, path: str, kind: str, members: Sequence[str], name: str) -> None:
    """A collection whose members always stand in it whole."""

    def make() -> Body:
        return {"Members": [tree.get(member) for member in members], "Members@odata.count": len(members)}

    tree.live(path, f"{kind}Collection.{kind}Collection", make, name)


def make(serials: Sequence[str], rows: Sequence[FloatRow], facts: Housing, account: Account) -> Made:
    """The service of one shelf. `serials`: the shelf's own, then its power supplies'."""
    return _Shelf(serials, rows, facts, account).build()
