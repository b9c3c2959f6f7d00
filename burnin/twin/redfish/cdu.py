"""The CDU of the rack's loop, as DMTF's schemas describe one: connectors, pumps, filter, reservoir, leak detection."""

from __future__ import annotations

from collections.abc import Callable

from burnin.twin.model import Loop
from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish.logs import Log
from burnin.twin.redfish.root import Account, Made, collect_all, events, firmware, make_service, manager, root
from burnin.twin.redfish.tree import OK, ROOT, Body, Tree, health, ref, refs, sensor

EQUIPMENT = f"{ROOT}/ThermalEquipment"
UNIT = f"{EQUIPMENT}/CDUs/1"
LOOP = f"{EQUIPMENT}/CoolingLoops/Rack"
_ROOM = {"TemperatureCelsius": {"Reading": 24.0}, "HumidityPercent": {"Reading": 45.0}, "Status": OK}
"""Air of a machine room inside ASHRAE's recommended envelope; nobody waters it."""
CONNECTOR = f"{UNIT}/SecondaryCoolantConnectors/1"
_VERSION = "2.3.1"
_PARTS_HEALTHY = {"Health": "OK", "State": "Enabled"}
_FULL = {"Percent": {"LowerCaution": 60.0, "LowerCritical": 40.0}}
_CAPACITY_W = 250000.0
"""An in-rack unit (Supermicro)."""


class _Cdu:
    def __init__(self, serial: str, row: FloatRow, facts: Loop, account: Account) -> None:
        self.serial, self.row, self.facts, self.account = serial, row, facts, account
        self.tree, self.service = make_service(account)
        self.log = Log(self.tree, UNIT, "EventLog", account.now, self.service.tell)
        self._was = "OK"

    def build(self) -> Made:
        tree = self.tree
        self._sensors()
        self._connector()
        self._pumps()
        self._rest()
        tree.collect(f"{UNIT}/LogServices", "LogService", [self.log.path])
        below = ("Pumps", "Filters", "Reservoirs", "SecondaryCoolantConnectors", "Sensors", "LeakDetection")
        body = {
            "EquipmentType": "CDU",
            "CoolingCapacityWatts": _CAPACITY_W,
            "Coolant": {"CoolantType": "Water", "AdditiveName": "Propylene glycol", "AdditivePercent": 25},
            "Manufacturer": "Twin",
            "Model": "In-rack 250 kW",
            "SerialNumber": self.serial,
            "FirmwareVersion": _VERSION,
            "LogServices": ref(f"{UNIT}/LogServices"),
            "Links": {"ManagedBy": refs([f"{ROOT}/Managers/CDU_0"])},
            "EnvironmentMetrics": ref(f"{UNIT}/EnvironmentMetrics"),
            **{name: ref(f"{UNIT}/{name}") for name in below},
        }
        tree.put(f"{UNIT}/EnvironmentMetrics", "EnvironmentMetrics.v1_3_0.EnvironmentMetrics", _ROOM, "Air of the room")
        tree.live(UNIT, "CoolingUnit.v1_1_0.CoolingUnit", lambda: {**body, "Status": self._status()}, "Rack CDU")
        tree.collect(f"{EQUIPMENT}/CDUs", "CoolingUnit", [UNIT])
        equipment = {"CDUs": ref(f"{EQUIPMENT}/CDUs"), "CoolingLoops": ref(f"{EQUIPMENT}/CoolingLoops"), "Status": OK}
        tree.put(EQUIPMENT, "ThermalEquipment.v1_1_1.ThermalEquipment", equipment, "Cooling Equipment")
        links = collect_all(
            tree, {"Managers": ("Manager", [manager(tree, "CDU_0", _VERSION, [], self.account.now, "CDU controller")])}
        )
        links |= {"ThermalEquipment": EQUIPMENT, "EventService": events(tree)}
        links["UpdateService"] = firmware(tree, {"CDU_0": (_VERSION, f"{ROOT}/Managers/CDU_0")})
        digits = "".join(c for c in self.serial if c.isdigit())
        root(tree, "Twin", "CDU", f"00000000-0000-0000-0000-{digits[-12:].rjust(12, '0')}", links)
        return Made(self.service, self.beat)

    def beat(self, now_s: float) -> None:
        """Log when the reservoir runs low or recovers."""
        level = self._level_health()
        if level != self._was:
            self._was = level
            text = f"Coolant level is {100 * self.row['level']:.0f} %"
            what = "Corrected" if level == "OK" else "Detected"
            self.log.add(level, f"ResourceEvent.1.0.ResourceErrors{what}", ["Reservoir"], text, f"{UNIT}/Reservoirs/1")

    def _level_health(self) -> str:
        return health(100 * self.row["level"], _FULL["Percent"])

    def _status(self) -> Body:
        level = self._level_health()
        return {"Health": level, "HealthRollup": level, "State": "Enabled"}

    def _word(self, name: str) -> Callable[[], float]:
        return lambda: self.row[name]

    def _sensors(self) -> None:
        tree, word, row = self.tree, self._word, self.row
        sensors = [
            sensor(tree, UNIT, name, kind, read, digits=digits)
            for name, kind, read, digits in (
                ("SupplyTemp", "Temperature", word("says_supply_c"), 2),
                ("ReturnTemp", "Temperature", word("says_return_c"), 2),
                ("Flow", "LiquidFlowLPM", word("says_flow_lpm"), 1),
                ("SupplyPressure", "PressurekPa", word("says_pressure_kpa"), 1),
                ("ReturnPressure", "PressurekPa", lambda: row["says_pressure_kpa"] - row["says_dp_kpa"], 1),
                ("DeltaPressure", "PressurekPa", word("says_dp_kpa"), 1),
                ("FilterDeltaPressure", "PressurekPa", word("says_filter_kpa"), 1),
                ("Pump_1_Speed", "Rotational", word("pump0_rpm"), 0),
                ("Pump_2_Speed", "Rotational", word("pump1_rpm"), 0),
            )
        ]
        sensors.append(
            sensor(tree, UNIT, "ReservoirLevel", "Percent", lambda: 100 * row["level"], thresholds=_FULL["Percent"], digits=1)
        )
        tree.collect(f"{UNIT}/Sensors", "Sensor", sensors, "Sensors")

    def _reading(self, name: str) -> Body:
        """A sensor's excerpt."""
        path = f"{UNIT}/Sensors/{name}"
        found = self.tree.get(path) or {}
        return {"DataSourceUri": path, "Reading": found.get("Reading")}

    def _connector(self) -> None:
        row, read = self.row, self._reading

        def make() -> Body:
            warmer = row["says_return_c"] - row["says_supply_c"]
            return {
                "CoolantConnectorType": "Pair",
                "FlowLitersPerMinute": read("Flow"),
                "SupplyTemperatureCelsius": read("SupplyTemp"),
                "ReturnTemperatureCelsius": read("ReturnTemp"),
                "DeltaTemperatureCelsius": {"Reading": round(warmer, 2)},
                "SupplyPressurekPa": read("SupplyPressure"),
                "ReturnPressurekPa": read("ReturnPressure"),
                "DeltaPressurekPa": read("DeltaPressure"),
                "RatedPressurekPa": 500.0,
                "Links": {"ConnectedCoolingLoop": ref(LOOP)},
                "Status": _PARTS_HEALTHY,
            }

        self.tree.live(CONNECTOR, "CoolantConnector.v1_1_0.CoolantConnector", make, "Rack loop")
        self.tree.collect(f"{UNIT}/SecondaryCoolantConnectors", "CoolantConnector", [CONNECTOR])
        loop = {
            "Coolant": {"CoolantType": "Water", "AdditiveName": "Propylene glycol", "AdditivePercent": 25},
            "ConsumingEquipmentNames": ["Rack"],
            "SupplyEquipmentNames": ["Rack CDU"],
        }
        self.tree.live(
            LOOP,
            "CoolingLoop.v1_0_2.CoolingLoop",
            lambda: {
                **loop,
                "CoolantLevelPercent": {"Reading": round(100 * row["level"], 1)},
                "CoolantLevelStatus": self._level_health(),
                "Status": self._status(),
            },
            "Rack loop",
        )
        self.tree.collect(f"{EQUIPMENT}/CoolingLoops", "CoolingLoop", [LOOP])

    def _pumps(self) -> None:
        paths = []
        for i in (1, 2):
            word = self._word(f"pump{i - 1}_rpm")

            def make(word: Callable[[], float] = word, i: int = i) -> Body:
                rpm = word()
                speed = {"Reading": round(100 * rpm / self.facts.pump_rpm, 1), "SpeedRPM": round(rpm)}
                source = f"{UNIT}/Sensors/Pump_{i}_Speed"
                return {"PumpType": "Liquid", "PumpSpeedPercent": {"DataSourceUri": source, **speed}, "Status": _PARTS_HEALTHY}

            paths.append(self.tree.live(f"{UNIT}/Pumps/{i}", "Pump.v1_1_0.Pump", make, f"Pump {i}"))
        self.tree.collect(f"{UNIT}/Pumps", "Pump", paths)

    def _rest(self) -> None:
        """Filter, reservoir, its own leak detection."""
        tree = self.tree
        one = tree.put(f"{UNIT}/Filters/1", "Filter.v1_0_1.Filter", {"Status": _PARTS_HEALTHY}, "Loop filter")
        tree.collect(f"{UNIT}/Filters", "Filter", [one])
        one = tree.live(
            f"{UNIT}/Reservoirs/1",
            "Reservoir.v1_0_1.Reservoir",
            lambda: {
                "ReservoirType": "Inline",
                "FluidLevelPercent": self._reading("ReservoirLevel"),
                "FluidLevelStatus": self._level_health(),
                "Status": self._status(),
            },
            "Reservoir",
        )
        tree.collect(f"{UNIT}/Reservoirs", "Reservoir", [one])
        self._leak_detection(tree)

    def _leak_detection(self, tree: Tree) -> None:
        at = f"{UNIT}/LeakDetection"
        body = {"DetectorState": "OK", "LeakDetectorType": "Moisture", "Status": _PARTS_HEALTHY}
        one = tree.put(f"{at}/LeakDetectors/Moisture", "LeakDetector.v1_1_0.LeakDetector", body, "Drip tray")
        tree.collect(f"{at}/LeakDetectors", "LeakDetector", [one])
        tree.put(at, "LeakDetection.v1_0_0.LeakDetection", {"LeakDetectors": ref(f"{at}/LeakDetectors"), "Status": OK})


def make(serial: str, row: FloatRow, facts: Loop, account: Account) -> Made:
    """The service of the rack's CDU."""
    return _Cdu(serial, row, facts, account).build()
