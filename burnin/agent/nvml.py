"""GPU metrics through NVML: one table of what is read, and readers that read it cheaply (links: burnin.agent.links).

Adding a metric is one row. What cannot be read is null with a reason, never 0.

Pitfalls of the library are met here: field ids that moved between driver branches, structs that must be passed by
reference and read as raw bytes, module ids that are not in index order.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

from burnin.agent import links
from burnin.agent.fields import REASONS, Call, Field, Group, Number

_SM, _MEM = 1, 2
_MARGIN_V1 = 0x1000008
_CORRECTED, _UNCORRECTED, _AGGREGATE, _DRAM, _SRAM = 0, 1, 1, 2, 7
_XID_EVENTS = 0x8


def fast_fields(driver: str) -> tuple[Field, ...]:
    """Fields read every second. R575 numbers the event-reason counters 251..253, every other branch 269..271."""
    reasons = 251 if driver.startswith("575.") else 269
    return (
        Field("gpu.power", 186, 1e-3, 3),
        Field("gpu.power_avg", 185, 1e-3, 3),
        Field("gpu.energy", 83, 1e-3, 3),
        Field("module.power", 186, 1e-3, 3, scope=1),
        Field("hbm.temp", 82, 1.0, 0),
        Field("throttle.sw_power", 74, 1e-9, 6),
        Field("throttle.sw_thermal", reasons, 1e-9, 6),
        Field("throttle.hw_thermal", reasons + 1, 1e-9, 6),
        Field("throttle.hw_brake", reasons + 2, 1e-9, 6),
    )


def _ecc(kind: int, place: int) -> Callable[[Any, Any], Sequence[float]]:
    return lambda n, h: (n.nvmlDeviceGetMemoryErrorCounter(h, kind, _AGGREGATE, place),)


FAST_NUMBERS = (
    Number("gpu.temp", "nvmlDeviceGetTemperature", (0,)),
    Number("gpu.tlimit", "nvmlDeviceGetMarginTemperature", form="4xi", version=_MARGIN_V1),
    Number("gpu.clock_sm", "nvmlDeviceGetClockInfo", (_SM,)),
    Number("gpu.clock_mem", "nvmlDeviceGetClockInfo", (_MEM,)),
    Number("gpu.util", "nvmlDeviceGetUtilizationRates", per=100),
)
TRANSIENT_FIELDS = (Field("transient.power", 186, 1e-3, 3),)
TRANSIENT_NUMBERS = (Number("transient.clock_sm", "nvmlDeviceGetClockInfo", (_SM,)),)
"""What changes within a second. Names of their own: merged into gpu.power, a burst of readings would count for a whole stage."""
SLOW_FIELDS = (Field("gpu.recovery_action", 230, 1.0, 0),)
SLOW_CALLS = (
    Call(("gpu.power_limit",), lambda n, h: (n.nvmlDeviceGetEnforcedPowerLimit(h) / 1000,)),
    Call(("ecc.dram_ce",), _ecc(_CORRECTED, _DRAM)),
    Call(("ecc.dram_ue",), _ecc(_UNCORRECTED, _DRAM)),
    Call(("ecc.sram_ce",), _ecc(_CORRECTED, _SRAM)),
    Call(("ecc.sram_ue",), _ecc(_UNCORRECTED, _SRAM)),
    Call(
        ("remap.correctable", "remap.uncorrectable", "remap.pending", "remap.failed"),
        lambda n, h: tuple(map(float, n.nvmlDeviceGetRemappedRows(h))),
    ),
)


class Gpu:
    """One GPU: where it sits, its groups of metrics, one for each cadence, and who it is."""

    def __init__(self, nvml: Any, index: int) -> None:
        self.index = index
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        module = self.text("nvmlDeviceGetModuleId", ctypes.c_uint())  # pynvml's own default is shared and not thread-safe
        self.position = int(module) - 1 if isinstance(module, int) and module > 0 else index
        self.uuid = str(self.text("nvmlDeviceGetUUID"))
        pci = self.text("nvmlDeviceGetPciInfo")
        self.bdf: str | None = pci and (pci.busId.decode() if isinstance(pci.busId, bytes) else pci.busId)
        driver = str(nvml.nvmlSystemGetDriverVersion())
        self.fast = Group(nvml, self._handle, fast_fields(driver), (), FAST_NUMBERS)
        self.slow = Group(nvml, self._handle, SLOW_FIELDS, (*SLOW_CALLS, *links.CALLS))
        self.links = Group(nvml, self._handle, links.fields(self._count(links.LINK_COUNT), driver), ())
        self.transient = Group(nvml, self._handle, TRANSIENT_FIELDS, (), TRANSIENT_NUMBERS)

    def _count(self, field: int) -> int:
        """A field that counts; 0 when it is not read: then no link of this GPU is, and what wants links finds none."""
        one = Group(self._nvml, self._handle, (Field("", field, 1.0, 0),), ()).read()[0]
        return 0 if isinstance(one, str) else int(one)

    @property
    def name(self) -> str:
        """`g0` ... by module position (module id - 1), not by NVML index: on GB300 the two differ."""
        return f"g{self.position}"

    def text(self, call: str, *args: Any) -> Any:
        """One identity call: its value, or None with the reason lost (identity only, never a measurement)."""
        try:
            value = getattr(self._nvml, call)(self._handle, *args)
        except self._nvml.NVMLError:
            return None
        return value.decode() if isinstance(value, bytes) else value

    def platform(self) -> dict[str, Any]:
        """Chassis serial, fabric GUID, slot, tray index, host and module, read as raw bytes: pynvml would decode them as text."""
        info = self._nvml.c_nvmlPlatformInfo_v2_t()
        try:
            self._nvml.nvmlDeviceGetPlatformInfo(self._handle, ctypes.byref(info))
        except self._nvml.NVMLError:
            return {}
        raw, kind = bytes(info), type(info)
        chassis = raw[kind.chassisSerialNumber.offset :][:16].split(b"\0")[0].decode("ascii", "replace")
        numbers = {"slot": "slotNumber", "tray_index": "trayIndex", "host_id": "hostId", "module_id": "moduleId"}
        guid = raw[kind.ibGuid.offset :][:8].hex()  # of 16 bytes the rest is zero
        return {
            "chassis": chassis,
            "guid": guid if guid.strip("0") else None,
            **{name: raw[getattr(kind, field).offset] for name, field in numbers.items()},
        }

    def identity(self) -> dict[str, Any]:
        """Who this GPU is; what it does not say is null."""
        memory = self.text("nvmlDeviceGetMemoryInfo")
        return {
            "gpu": self.name,
            "index": self.index,
            "name": self.text("nvmlDeviceGetName"),
            "uuid": self.uuid,
            "pdi": f"{pdi:016x}" if (pdi := self.text("nvmlDeviceGetPdi")) else None,
            "serial": self.text("nvmlDeviceGetSerial"),
            "part_number": self.text("nvmlDeviceGetBoardPartNumber"),
            "vbios": self.text("nvmlDeviceGetVbiosVersion"),
            "inforom": self.text("nvmlDeviceGetInforomImageVersion"),
            "bdf": self.bdf,
            "memory_mib": memory.total >> 20 if memory else None,
            **self.platform(),
        }

    def settings(self) -> dict[str, Any]:
        """What must be left as it was found; what cannot be read is null."""
        limit = self.text("nvmlDeviceGetPowerManagementLimit")
        ecc, mig = self.text("nvmlDeviceGetEccMode"), self.text("nvmlDeviceGetMigMode")
        return {
            "power_limit_w": limit / 1000 if limit is not None else None,
            "persistence": self.text("nvmlDeviceGetPersistenceMode"),
            "compute_mode": self.text("nvmlDeviceGetComputeMode"),
            "ecc": list(ecc) if ecc is not None else None,
            "mig": list(mig) if mig is not None else None,
            "max_clock_sm": self.text("nvmlDeviceGetMaxClockInfo", _SM),
            "processes": self._processes(),
        }

    def hold_clock(self, mhz: int) -> str:
        """Hold the SM clock at one frequency; empty, or the reason why not (it needs root)."""
        return self._set("nvmlDeviceSetGpuLockedClocks", mhz, mhz)

    def free_clock(self) -> str:
        """Let the SM clock go; empty, or the reason why not."""
        return self._set("nvmlDeviceResetGpuLockedClocks")

    def _set(self, call: str, *args: int) -> str:
        try:
            getattr(self._nvml, call)(self._handle, *args)
        except self._nvml.NVMLError as error:
            return REASONS.get(error.value, "missing")
        return ""

    def _processes(self) -> int | None:
        found = self.text("nvmlDeviceGetComputeRunningProcesses")
        return len(found) if found is not None else None


class Gpus:
    """All GPUs of the tray that NVML shows. Raises NVMLError when the library cannot be used."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self.driver = str(nvml.nvmlSystemGetDriverVersion())
        self.cuda = int(nvml.nvmlSystemGetCudaDriverVersion())
        self.count = int(nvml.nvmlDeviceGetCount())
        self.gpus: list[Gpu] = []
        self.failed: dict[int, str] = {}
        for index in range(self.count):
            try:
                self.gpus.append(Gpu(nvml, index))
            except nvml.NVMLError as error:
                self.failed[index] = REASONS.get(error.value, "missing")
        names = [gpu.name for gpu in self.gpus]
        if len(set(names)) < len(names):  # no module ids on this board: the index is the position
            for gpu in self.gpus:
                gpu.position = gpu.index
        self.gpus.sort(key=lambda gpu: gpu.position)

    def watch_xids(self, found: Callable[[str, int], None], stop: Callable[[], bool]) -> str:
        """Wait for XID events, for ever; call in a thread. `found(gpu name, xid)`. Returns why it ended.

        Events from before registration are not replayed: the kernel log is read as well. A GPU that falls off the bus
        breaks the wait; the others are then registered anew.
        """
        why = "not_supported"
        while not stop():
            events, by_handle, why = self._register()
            if not by_handle:
                return why
            try:
                while not stop():
                    event = self._next_event(events)
                    if event is not None:
                        handle = ctypes.cast(event.device, ctypes.c_void_p).value
                        found(by_handle.get(handle, ""), int(event.eventData))
            except self._nvml.NVMLError as error:
                why = REASONS.get(error.value, "missing")
                if why != "lost":
                    return why
                time.sleep(1.0)  # do not storm a driver that is losing a GPU
            finally:
                with contextlib.suppress(self._nvml.NVMLError):
                    self._nvml.nvmlEventSetFree(events)
        return why

    def shut(self) -> None:
        """Let go of the library and every handle. Raises NVMLError. Nobody may be inside, and nothing of this is of use then."""
        self._nvml.nvmlShutdown()

    def _register(self) -> tuple[Any, dict[int | None, str], str]:
        by_handle: dict[int | None, str] = {}
        why = "missing"
        try:
            events = self._nvml.nvmlEventSetCreate()
        except self._nvml.NVMLError as error:
            return None, {}, REASONS.get(error.value, "missing")
        for gpu in self.gpus:
            try:
                self._nvml.nvmlDeviceRegisterEvents(gpu._handle, _XID_EVENTS, events)
                by_handle[ctypes.cast(gpu._handle, ctypes.c_void_p).value] = gpu.name
            except self._nvml.NVMLError as error:
                why = REASONS.get(error.value, "missing")
        return events, by_handle, why

    def _next_event(self, events: Any) -> Any:
        """None when a second has passed without one: without pynvml's wrapper, which makes an exception of every such second."""
        event = self._nvml.c_nvmlEventData_t()
        code = self._nvml._nvmlGetFunctionPointer("nvmlEventSetWait_v2")(events, ctypes.byref(event), ctypes.c_uint(1000))
        if code == self._nvml.NVML_ERROR_TIMEOUT:
            return None
        if code:
            raise self._nvml.NVMLError(code)
        return event
