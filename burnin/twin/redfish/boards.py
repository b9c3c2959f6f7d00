"""The chassis of a compute tray as its BMC shows them: sensors of boards, GPUs, CPUs and cards, fans, what is cooled how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from burnin.twin.identity import SLOT_OFFSET, TrayId
from burnin.twin.model import Model
from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish.tree import OK, ROOT, Body, Tree, empty_bay, ref, refs, sensor
from burnin.twin.state import Row

CHASSIS = f"{ROOT}/Chassis"
SYSTEM, BASEBOARD = f"{ROOT}/Systems/System_0", f"{ROOT}/Systems/HGX_Baseboard_0"
DETECTORS = [f"Chassis_0_LeakDetector_{i}_{where}" for i in (0, 1) for where in ("ColdPlate", "Manifold")]
_FANS, _FAN_RPM = 8, 11700.0
_GPU_C = {"UpperCaution": 87.0}
_MARGIN_C = {"LowerCaution": -0.05, "LowerCritical": -4.0, "LowerFatal": -5.0}
_HBM_C = {"UpperCaution": 105.0}
_CPU_MARGIN_C = {"LowerCaution": 0.0, "LowerCritical": -4.0, "LowerFatal": -5.0}
_NIC_C = {"UpperCaution": 97.0, "UpperCritical": 102.0, "UpperFatal": 110.0}
_DPU_C = {"UpperCaution": 91.0, "UpperCritical": 96.0, "UpperFatal": 100.0}
_SSD_C = {"LowerCaution": 5.0, "UpperCaution": 80.0, "UpperCritical": 83.0, "UpperFatal": 85.0}
_HSC_C = {"UpperCaution": 105.0, "UpperCritical": 107.0, "UpperFatal": 110.0}
_IO_C = {"UpperCaution": 40.0, "UpperCritical": 43.0, "UpperFatal": 45.0}
_CPU_TOP_C = 88.6
"""Captured: average temperature and distance to the limit of one CPU."""


class Host(Protocol):
    """What a BMC sees of its tray."""

    row: FloatRow

    def gpu(self, position: int) -> Row | None:
        """The GPU's words; None while the tray is dark or the GPU is not there."""

    def xids(self) -> list[tuple[int, int]]:
        """XIDs that the driver told since the last look: position of the GPU, number."""

    def on(self) -> bool:
        """True while the tray has power."""

    def boots(self) -> bool:
        """True while it has power and does not run yet."""

    def memory_errors(self) -> int:
        """Uncorrectable errors of the CPUs' memory that the host counted since it started."""

    def keep(self, created_s: float, severity: str, text: str) -> None:
        """A line of the event log, for who reads it on the tray."""

    def order(self, what: str) -> None:
        """A reset type: On, ForceOff, PowerCycle ..."""


class Boards:
    """Builds the chassis of one tray into its tree; `all` gives their paths."""

    def __init__(self, tree: Tree, model: Model, tray: TrayId, host: Host) -> None:
        self.tree, self.model, self.tray, self.host = tree, model, tray, host

    def all(self) -> list[str]:
        """Every chassis; leak detectors and their sensors must be put beside them."""
        self._thermal()
        return [*self._outside(), *self._gpus(), *self._cpus(), *self._cards()]

    def _chassis(self, name: str, serial: str, model: str, sensors: list[str], **more: object) -> str:
        path = f"{CHASSIS}/{name}"
        self.tree.collect(f"{path}/Sensors", "Sensor", sensors, "Sensors")
        body = {
            "ChassisType": "Component",
            "Manufacturer": "NVIDIA",
            "Model": model,
            "SerialNumber": serial,
            "Sensors": ref(f"{path}/Sensors"),
            "Links": {"ManagedBy": refs([f"{ROOT}/Managers/{'HGX_' if name.startswith('HGX') else ''}BMC_0"])},
            **more,
        }
        return self.tree.live(
            path,
            "Chassis.v1_22_0.Chassis",
            lambda: {**body, "PowerState": "On" if self.host.on() else "Off", "Status": OK},
            name,
        )

    def _lit(self, read: Callable[[], float]) -> Callable[[], float | None]:
        """A reading that there is only while the tray has power."""
        return lambda: read() if self.host.on() else None

    def _sensor(self, chassis: str, name: str, kind: str, read: Callable[[], float], **more: object) -> str:
        return sensor(self.tree, f"{CHASSIS}/{chassis}", name, kind, self._lit(read), **more)  # type: ignore[arg-type]

    def _outside(self) -> list[str]:
        """Chassis_0 (fans, total power, leak detectors), its power board, the cable cartridges' ends, the BMC."""
        row, tray = self.host.row, self.tray

        def total() -> float:
            return row["power_w"] + row["air_w"]

        here = [
            self._sensor(
                "Chassis_0", f"Chassis_0_FAN_{i}_FRONT", "Rotational", lambda: _FAN_RPM,
                span=(0.0, 37400.0), thresholds={"LowerCritical": 2204.0},
            )
            for i in range(1, _FANS + 1)
        ]  # fmt: skip
        here.append(self._sensor("Chassis_0", "Chassis_0_Front_IO_Temp_0", "Temperature", lambda: 24.4, thresholds=_IO_C))
        here.append(self._sensor("Chassis_0", "Chassis_0_TotalHSC_Power_0", "Power", total, span=(-10.0, 7000.0)))
        here += [f"{CHASSIS}/Chassis_0/Sensors/{name}" for name in DETECTORS]
        at = f"{CHASSIS}/Chassis_0"
        out = [
            self._chassis(
                "Chassis_0", tray.board_serial, self.model.machine.product, here, ChassisType="Shelf",
                Manufacturer=self.model.machine.vendor, ThermalSubsystem=ref(f"{at}/ThermalSubsystem"),
                PowerSubsystem=ref(f"{at}/PowerSubsystem"), EnvironmentMetrics=ref(f"{at}/EnvironmentMetrics"),
                Oem={"Nvidia": {"Policies": ref(f"{at}/Oem/Nvidia/Policies")}},
            ),
            self._chassis("BMC_0", tray.board_serial, "DC-SCM", [
                self._sensor("BMC_0", "BMC_0_DCSCM_Temp_0", "Temperature", lambda: 38.0,
                             thresholds={"UpperCaution": 90.0, "UpperCritical": 93.0, "UpperFatal": 95.0}),
            ]),
        ]  # fmt: skip
        board = []
        for i in (0, 1):
            board.append(self._sensor("PDB_0", f"PDB_0_HSC_{i}_Pwr_0", "Power", lambda: total() / 2, span=(0.0, 3500.0)))
            board.append(self._sensor("PDB_0", f"PDB_0_HSC_{i}_Volt_In_0", "Voltage", lambda: 50.0))
            board.append(
                self._sensor("PDB_0", f"PDB_0_HSC_{i}_Temp_0", "Temperature", lambda: 35 + total() / 250, thresholds=_HSC_C)
            )
        out.append(self._chassis("PDB_0", tray.board_serial, "PDB", board))
        for i in range(4):
            oem = {"ChassisPhysicalSlotNumber": tray.index + SLOT_OFFSET, "ComputeTrayIndex": tray.index, "RevisionId": 2,
                   "TopologyId": 128, "@odata.type": "#NvidiaChassis.v1_4_0.NvidiaCBCChassis"}  # fmt: skip
            out.append(self._chassis(f"CBC_{i}", tray.chassis, "18x1RU CBL Cartridge", [], PartNumber="750-0567-002",
                                     Oem={"Nvidia": oem}))  # fmt: skip
        return out

    def _gpus(self) -> list[str]:
        out = [self._total()]
        for i, gpu in enumerate(self.tray.gpus):
            name = f"HGX_GPU_{i}"

            def word(field: str, per: float, i: int = i) -> Callable[[], float | None]:
                def read() -> float | None:
                    row = self.host.gpu(i)
                    return None if row is None or row["lost"] else row[field] / per

                return read

            path, on = f"{CHASSIS}/{name}", f"{BASEBOARD}/Processors/GPU_{i}"
            sensors = [
                sensor(self.tree, path, f"{name}_{what}", kind, word(field, per), thresholds=limits, context="GPU", related=on)
                for what, kind, field, per, limits in (
                    ("TEMP_0", "Temperature", "temp_c", 1, _GPU_C),
                    ("TEMP_1", "Temperature", "margin_c", 1, _MARGIN_C),
                    ("DRAM_0_Temp_0", "Temperature", "hbm_c", 1, _HBM_C),
                    ("Power_0", "Power", "power_mw", 1000, None),
                    ("DRAM_0_Power_0", "Power", "hbm_power_mw", 1000, None),
                    ("Energy_0", "EnergyJoules", "energy_mj", 1000, None),
                )
            ]
            more = {"MaxPowerWatts": self.model.gpu.limit_w, "MinPowerWatts": self.model.gpu.limit_min_w}
            uuid = gpu.uuid.removeprefix("GPU-")
            out.append(
                self._chassis(name, gpu.serial, self.model.gpu.name, sensors, UUID=uuid, Links={"Processors": refs([on])}, **more)
            )
        return out

    def _total(self) -> str:
        def watts() -> float:
            rows = (self.host.gpu(i) for i in range(len(self.tray.gpus)))
            return sum(row["power_mw"] for row in rows if row is not None) / 1000

        one = self._sensor("HGX_Chassis_0", "HGX_Chassis_0_TotalGPU_Power_0", "Power", watts)
        return self._chassis("HGX_Chassis_0", self.tray.board_serial, "GB200 NVL", [one], ChassisType="Zone")

    def _cpus(self) -> list[str]:
        row, out = self.host.row, []
        for i in range(self.model.machine.sockets):
            name = f"ProcessorModule_{i}_CPU_0"
            sensors = [
                self._sensor(f"HGX_CPU_{i}", f"{name}_TempAvg_0", "Temperature", lambda i=i: row[f"cpu{i}_c"], context="CPU"),  # type: ignore[misc]
                self._sensor(
                    f"HGX_CPU_{i}", f"{name}_TempLimit_0", "Temperature", lambda i=i: _CPU_TOP_C - row[f"cpu{i}_c"],  # type: ignore[misc]
                    thresholds=_CPU_MARGIN_C, context="CPU",
                ),
            ]  # fmt: skip
            out.append(self._chassis(f"HGX_CPU_{i}", self.tray.gpus[2 * i].serial, "Grace", sensors))
        return out

    def _cards(self) -> list[str]:
        """Network cards, the DPU, the M.2, and storage bays with nothing in them."""
        out, serial, fabric = [], self.tray.board_serial, 0
        boards: dict[str, list[str]] = {}
        for card in self.model.machine.nics:
            if card.fabric == "infiniband":
                board, name, limits = f"IO_Board_{fabric // 2}", f"IO_Board_{fabric // 2}_CX8_{fabric % 2}_Temp", _NIC_C
                fabric += 1
            else:
                board, name, limits = "Riser_Slot2_BlueField_3_Card", "BF3_Slot_2_Temp", _DPU_C
            reading = 48.0 + len(boards)
            more = {"thresholds": limits, "context": "NetworkingDevice"}
            boards.setdefault(board, []).append(self._sensor(board, name, "Temperature", lambda c=reading: c, **more))  # type: ignore[misc]
        for board, sensors in boards.items():
            out.append(self._chassis(board, serial, board, sensors))
        out.append(self._chassis("NVME_M2_0", serial, "M.2", [
            self._sensor("NVME_M2_0", "NVME_M2_0_Temp_0", "Temperature", lambda: 40.0, thresholds=_SSD_C),
        ]))  # fmt: skip
        bays = []
        for i in range(4):
            name = f"StorageBackplane_0_SSD_{i}_Temp_0"
            if i < len(self.model.machine.nvmes) - 1:
                bays.append(
                    self._sensor("StorageBackplane_0", name, "Temperature", lambda i=i: 40.0 + i, thresholds=_SSD_C)  # type: ignore[misc]
                )
        bays += [
            empty_bay(self.tree, f"{CHASSIS}/StorageBackplane_1", f"StorageBackplane_1_SSD_{i}_Temp_0", "Temperature", SYSTEM)
            for i in range(4)
        ]
        out.append(self._chassis("StorageBackplane_0", serial, "StorageBackplane", bays[:-4]))
        out.append(self._chassis("StorageBackplane_1", serial, "StorageBackplane", bays[-4:]))
        return out

    def _thermal(self) -> None:
        """Subsystems of Chassis_0: liquid cooled, with fans for what is not; no power supplies of its own."""
        tree, at = self.tree, f"{CHASSIS}/Chassis_0"
        fans = [
            tree.put(f"{at}/ThermalSubsystem/Fans/Chassis_0_FAN_{i}", "Fan.v1_5_0.Fan", {"Status": OK})
            for i in range(1, _FANS + 1)
        ]
        tree.collect(f"{at}/ThermalSubsystem/Fans", "Fan", fans)
        io = f"{at}/Sensors/Chassis_0_Front_IO_Temp_0"

        def metrics() -> Body:
            found = tree.get(io)
            reading = None if found is None else found["Reading"]
            return {"TemperatureReadingsCelsius": [{"DataSourceUri": io, "DeviceName": "Front_IO_Temp_0", "Reading": reading}]}

        tree.live(f"{at}/ThermalSubsystem/ThermalMetrics", "ThermalMetrics.v1_3_0.ThermalMetrics", metrics, "Thermal Metrics")
        below = {name: ref(f"{at}/ThermalSubsystem/{name}") for name in ("Fans", "LeakDetection", "ThermalMetrics")}
        tree.put(
            f"{at}/ThermalSubsystem", "ThermalSubsystem.v1_3_0.ThermalSubsystem", {**below, "Status": OK}, "Thermal Subsystem"
        )
        supplies = tree.collect(f"{at}/PowerSubsystem/PowerSupplies", "PowerSupply", [], "Power Supply Collection")
        power = {"PowerSupplies": ref(supplies), "Status": {"Health": "OK", "State": "Enabled"}}
        tree.put(f"{at}/PowerSubsystem", "PowerSubsystem.v1_1_0.PowerSubsystem", power, "Power Subsystem")
        row, total = self.host.row, f"{at}/Sensors/Chassis_0_TotalHSC_Power_0"

        def environment() -> Body:
            watts = round(row["power_w"] + row["air_w"], 3) if self.host.on() else None
            return {"PowerWatts": {"DataSourceUri": total, "Reading": watts}, "Status": OK}

        tree.live(f"{at}/EnvironmentMetrics", "EnvironmentMetrics.v1_3_0.EnvironmentMetrics", environment, "Environment Metrics")
