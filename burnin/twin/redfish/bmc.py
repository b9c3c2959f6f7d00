"""The BMC of a compute tray, in the shape of a real GB300 tray's tree: the host's half and the HGX half."""

from __future__ import annotations

from burnin.twin.identity import GpuId, TrayId, older
from burnin.twin.model import Model
from burnin.twin.redfish.boards import BASEBOARD, CHASSIS, DETECTORS, SYSTEM, Boards, Host
from burnin.twin.redfish.leaks import Leaks
from burnin.twin.redfish.logs import Log
from burnin.twin.redfish.root import Account, Made, collect_all, events, firmware, make_service, manager, root
from burnin.twin.redfish.tree import OK, ROOT, Body, ref, refs

_MOST_LINES = 8
_BMC_VERSION, _HMC_VERSION = "70.01.00.09", "GB200Nvl-25.07-7"


class _Bmc:
    """Builds one tray's tree."""

    def __init__(self, model: Model, tray: TrayId, host: Host, account: Account) -> None:
        self.model, self.tray, self.host, self.account = model, tray, host, account
        self.tree, self.service = make_service(account)
        tell = self.service.tell
        self.sel = Log(self.tree, SYSTEM, "SEL", account.now, tell, host.keep)
        self.log = Log(self.tree, SYSTEM, "EventLog", account.now, tell)
        self.hmc_log = Log(self.tree, BASEBOARD, "EventLog", account.now, tell)
        self._was_on: bool | None = None
        self._memory_errors, self._looked_s = 0, 0.0

    def build(self) -> Made:
        """The whole service."""
        chassis = Boards(self.tree, self.model, self.tray, self.host).all()
        self.leaks = Leaks(
            self.tree, f"{CHASSIS}/Chassis_0", DETECTORS, self.host.row, [self.sel, self.log],
            lambda: self.host.order("ForceOff"), self.service.manners,
        )  # fmt: skip
        collections = collect_all(
            self.tree,
            {
                "Chassis": ("Chassis", sorted(chassis)),
                "Systems": ("ComputerSystem", [self._system(), self._baseboard()]),
                "Managers": ("Manager", self._managers()),
            },
        )
        links = collections | {"UpdateService": self._firmware(), "EventService": events(self.tree)}
        root(self.tree, self.model.machine.vendor, "GB NVL", _uuid(self.tray), links)
        return Made(self.service, self.beat)

    def beat(self, now_s: float) -> None:
        """Notice what changed."""
        self.leaks.beat()
        for position, code in self.host.xids():
            args, at = [f"GPU_{position} Driver Event Message", f"XID {code}"], f"{BASEBOARD}/Processors/GPU_{position}"
            self.hmc_log.add("Critical", "ResourceEvent.1.0.ResourceErrorsDetected", args, f"GPU_{position}: XID {code}", at)
        if now_s - self._looked_s >= 1.0:
            self._looked_s = now_s
            self._notice_memory()
        on = self.host.on()
        if self._was_on is None:
            self._was_on = on or None  # until it is on for the first time there is nothing to notice
        elif on != self._was_on:
            self._was_on = on
            word = "on" if on else "off"
            self.sel.add("OK" if on else "Warning", "OpenBMC.0.1.PowerState", [word], f"Host system DC power is {word}", SYSTEM)

    def _notice_memory(self) -> None:
        """Uncorrectable errors of the CPUs' memory, one line each up to a few."""
        count = self.host.memory_errors()
        for _ in range(min(count - self._memory_errors, _MOST_LINES)):
            args, text = ["CPU0_LPDDR", "Uncorrectable ECC"], "CPU0_LPDDR: Uncorrectable ECC"
            self.sel.add("Critical", "ResourceEvent.1.0.ResourceErrorsDetected", args, text, SYSTEM)
        self._memory_errors = max(count, self._memory_errors)

    # ---- systems and managers

    def _system(self) -> str:
        machine, tray = self.model.machine, self.tray
        self._log_services(SYSTEM, [self.sel, self.log])
        reset = f"{SYSTEM}/Actions/ComputerSystem.Reset"
        kinds = ["On", "ForceOff", "ForceOn", "ForceRestart", "GracefulRestart", "GracefulShutdown", "PowerCycle"]
        body = {
            "Actions": {"#ComputerSystem.Reset": {"target": reset, "ResetType@Redfish.AllowableValues": kinds}},
            "BiosVersion": older(machine.bios, tray.behind),
            "Links": {"Chassis": refs([f"{CHASSIS}/Chassis_0"]), "ManagedBy": refs([f"{ROOT}/Managers/BMC_0"])},
            "LogServices": ref(f"{SYSTEM}/LogServices"),
            "Manufacturer": machine.vendor,
            "Model": machine.product,
            "SerialNumber": tray.serial,
            "SystemType": "Physical",
            "UUID": _uuid(tray),
        }

        def do(given: Body) -> None:
            kind = given.get("ResetType")
            if kind not in kinds:
                raise ValueError(f"ResetType is one of {', '.join(kinds)}")
            self.host.order(str(kind))

        self.tree.acts[reset] = do
        return self.tree.live(SYSTEM, "ComputerSystem.v1_22_0.ComputerSystem", lambda: {**body, **self._state()}, "System_0")

    def _state(self) -> Body:
        on, boots = self.host.on(), self.host.boots()
        status = {"Conditions": [], "Health": "OK", "State": "Enabled" if on else "Starting" if boots else "Disabled"}
        progress = "OSRunning" if on else "OSBootStarted" if boots else "None"
        return {"PowerState": "On" if on or boots else "Off", "Status": status, "BootProgress": {"LastState": progress}}

    def _baseboard(self) -> str:
        processors = [f"{BASEBOARD}/Processors/CPU_{i}" for i in range(self.model.machine.sockets)]
        for path in processors:
            grace = {"ProcessorType": "CPU", "Manufacturer": "NVIDIA", "Model": "Grace", "Status": OK}
            self.tree.put(path, "Processor.v1_20_0.Processor", grace, "Processor")
        processors += [self._gpu_processor(i, gpu) for i, gpu in enumerate(self.tray.gpus)]
        self.tree.collect(f"{BASEBOARD}/Processors", "Processor", processors)
        self._log_services(BASEBOARD, [self.hmc_log])
        body = {
            "Links": {"Chassis": refs([f"{CHASSIS}/HGX_Chassis_0"]), "ManagedBy": refs([f"{ROOT}/Managers/HGX_BMC_0"])},
            "LogServices": ref(f"{BASEBOARD}/LogServices"),
            "Manufacturer": "NVIDIA",
            "Model": "GB200 NVL",
            "PowerState": "On",
            "Processors": ref(f"{BASEBOARD}/Processors"),
            "SerialNumber": self.tray.board_serial,
            "Status": OK,
            "SystemType": "Physical",
        }
        return self.tree.put(BASEBOARD, "ComputerSystem.v1_22_0.ComputerSystem", body)

    def _gpu_processor(self, i: int, gpu: GpuId) -> str:
        body: Body = {
            "ProcessorType": "GPU",
            "Manufacturer": "NVIDIA",
            "Model": self.model.gpu.name,
            "FirmwareVersion": older(self.model.gpu.vbios, gpu.behind),
            "SerialNumber": gpu.serial,
            "UUID": gpu.uuid.removeprefix("GPU-"),
            "MaxSpeedMHz": self.model.gpu.clock_max_mhz,
            "Links": {"Chassis": ref(f"{CHASSIS}/HGX_GPU_{i}")},
            "Location": {
                "PartLocation": {"LocationType": "Embedded", "ServiceLabel": f"GPU_{i % 2}"},
                "PartLocationContext": f"HGX_Chassis_0/ProcessorModule_{i // 2}",
            },
        }
        path = f"{BASEBOARD}/Processors/GPU_{i}"
        return self.tree.live(path, "Processor.v1_20_0.Processor", lambda: {**body, "Status": self._gpu_status(i)}, "Processor")

    def _gpu_status(self, position: int) -> Body:
        row = self.host.gpu(position)
        if row is None:
            return {"Health": "OK", "State": "UnavailableOffline" if not self.host.on() else "Absent"}
        lost = bool(row["lost"])
        return {"Conditions": [], "Health": "Critical" if lost else "OK", "HealthRollup": "OK", "State": "Enabled"}

    def _log_services(self, at: str, logs: list[Log]) -> None:
        self.tree.collect(f"{at}/LogServices", "LogService", [log.path for log in logs])

    def _managers(self) -> list[str]:
        now = self.account.now
        return [
            manager(self.tree, "BMC_0", older(_BMC_VERSION, self.tray.bmc_behind), [], now),
            manager(self.tree, "HGX_BMC_0", _HMC_VERSION, [], now),
        ]

    def _firmware(self) -> str:
        gpu = self.model.gpu
        versions = {
            "FW_BMC_0": (older(_BMC_VERSION, self.tray.bmc_behind), f"{ROOT}/Managers/BMC_0"),
            "FW_BIOS_0": (older(self.model.machine.bios, self.tray.behind), SYSTEM),
            "FW_CPLD_0": ("0x00_0x0C_0x01_0x02", f"{CHASSIS}/Chassis_0"),
            "HGX_FW_BMC_0": (_HMC_VERSION, f"{ROOT}/Managers/HGX_BMC_0"),
        }
        for i in range(self.model.machine.sockets):
            versions[f"HGX_FW_CPU_{i}"] = ("02.04.12", f"{CHASSIS}/HGX_CPU_{i}")
        for i in range(len(self.tray.gpus)):
            versions[f"HGX_FW_GPU_{i}"] = (older(gpu.vbios, self.tray.gpus[i].behind), f"{CHASSIS}/HGX_GPU_{i}")
            versions[f"HGX_InfoROM_GPU_{i}"] = (gpu.inforom, f"{CHASSIS}/HGX_GPU_{i}")
        for i in range(sum(nic.fabric == "infiniband" for nic in self.model.machine.nics)):
            versions[f"CX8_{i}"] = ("40.46.3048", f"{CHASSIS}/IO_Board_{i // 2}")
        return firmware(self.tree, versions)


def _uuid(tray: TrayId) -> str:
    digits = f"{int(tray.serial[1:]):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def make(model: Model, tray: TrayId, host: Host, account: Account) -> Made:
    """The service of one compute tray's BMC."""
    return _Bmc(model, tray, host, account).build()
