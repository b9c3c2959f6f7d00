"""An emulated libnvidia-ml.so.1: what a Blackwell or Hopper driver of the tray's version would answer.

`library(facts, state)` gives what `ctypes.CDLL` would. Structs are written as C memory, by layouts of its own: whoever
calls, pynvml or another binding, sees what a driver writes. A GPU that is lost says so; one that hangs, hangs the caller.
"""

from __future__ import annotations

import ctypes as c
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..state import State
from .abi import Library, Refuse, address, number, put, struct_at
from .fields import write_fields
from .nvml_core import (
    HANDLE,
    INSUFFICIENT_SIZE,
    INVALID_ARGUMENT,
    NOT_FOUND,
    NOT_SUPPORTED,
    SET,
    TIMEOUT,
    UNINITIALIZED,
    EventData,
    EventSet,
    FabricInfo,
    Gpu,
    Memory,
    MemoryV2,
    Nvml,
    PciInfo,
    PlatformInfo,
    Process,
    put_text,
    versioned,
)

ERRORS = {
    0: b"Success",
    1: b"Uninitialized",
    2: b"Invalid Argument",
    3: b"Not Supported",
    4: b"Insufficient Permissions",
    6: b"Not Found",
    7: b"Insufficient Size",
    10: b"Timeout",
    13: b"Function Not Found",
    15: b"GPU is lost",
    25: b"Argument version mismatch",
    999: b"Unknown Error",
}
_POLL_S = 0.075
_NOBODY = 0xFFFFFFFF
_EVENTS = {"h": 0x0E1D, "b": 0xFE1D}
"""Event types that Hopper and Blackwell support."""
_HEALTHY = 0x1AA
"""GPU fabric health mask of a captured healthy GB300."""

_API: dict[str, Callable[..., Any]] = {}


def api(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Export a function under these symbol names."""

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        _API.update(dict.fromkeys(names, function))
        return function

    return keep


def library(facts: Mapping[str, Any], state: State, name: str = "libnvidia-ml.so.1") -> Library:
    """The library, as `ctypes.CDLL(name)` would give it. `facts` is what burnin.twin.identity.for_emulation wrote."""
    nvml = Nvml(facts, state)

    def bind(symbol: str, function: Callable[..., Any]) -> Callable[..., Any]:
        needs_init = not symbol.startswith(("nvmlInit", "nvmlErrorString"))

        def call(*args: Any) -> Any:
            if needs_init and not nvml.users:
                return UNINITIALIZED
            return function(nvml, *args)

        return call

    return Library(name, {symbol: bind(symbol, function) for symbol, function in _API.items()})


# ---------------------------------------------------------------- life cycle, system, handles


@api("nvmlInit_v2", "nvmlInitWithFlags")
def _init(nvml: Nvml, *flags: Any) -> None:
    with nvml.lock:
        nvml.users += 1


@api("nvmlShutdown")
def _shutdown(nvml: Nvml) -> None:
    with nvml.lock:
        nvml.users -= 1


@api("nvmlErrorString")
def _error_string(nvml: Nvml, code: Any) -> bytes:
    return ERRORS.get(number(code), b"Unknown Error")


@api("nvmlSystemGetDriverVersion")
def _driver_version(nvml: Nvml, buffer: Any, length: Any) -> None:
    put_text(buffer, length, nvml.facts["driver"])


@api("nvmlSystemGetNVMLVersion")
def _nvml_version(nvml: Nvml, buffer: Any, length: Any) -> None:
    put_text(buffer, length, f"{nvml.facts['cuda'] // 1000}.{nvml.facts['driver']}")


@api("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2")
def _cuda_version(nvml: Nvml, out: Any) -> None:
    put(c.c_int, nvml.facts["cuda"], out)


@api("nvmlDeviceGetCount_v2")
def _count(nvml: Nvml, out: Any) -> None:
    put(c.c_uint, len(nvml.gpus), out)


@api("nvmlDeviceGetHandleByIndex_v2")
def _by_index(nvml: Nvml, index: Any, out: Any) -> None:
    if not 0 <= number(index) < len(nvml.gpus):
        raise Refuse(INVALID_ARGUMENT)
    put(c.c_size_t, HANDLE + 1 + nvml.gpus[number(index)].check().index, out)


def _find(key: str) -> Callable[..., None]:
    def find(nvml: Nvml, text: Any, out: Any) -> None:
        wanted = c.string_at(address(text)).decode().lower()
        for gpu in nvml.gpus:
            own = gpu.own[key].lower()
            if own == wanted or (key == "bdf" and own[4:] == wanted):  # 0008:06:00.0 for 00000008:06:00.0
                return put(c.c_size_t, HANDLE + 1 + gpu.check().index, out)
        raise Refuse(NOT_FOUND)

    return find


_API["nvmlDeviceGetHandleByUUID"] = _find("uuid")
_API["nvmlDeviceGetHandleByPciBusId_v2"] = _find("bdf")


# ---------------------------------------------------------------- getters, as tables


def _text(of: Callable[[Gpu], str]) -> Callable[..., None]:
    return lambda nvml, handle, buffer, length: put_text(buffer, length, of(nvml.gpu(handle)))


def _words(kind: Any, of: Callable[[Gpu], tuple[Any, ...]]) -> Callable[..., None]:
    """One or more numbers, each behind a pointer of its own; None is NOT_SUPPORTED."""

    def get(nvml: Nvml, handle: Any, *out: Any) -> None:
        values = of(nvml.gpu(handle))
        if values[0] is None:
            raise Refuse(NOT_SUPPORTED)
        for value, pointer in zip(values, out):
            put(kind, value, pointer)

    return get


def _w(watts: float | None) -> int | None:
    return None if watts is None else int(watts * 1000)


_TEXTS: dict[str, Callable[[Gpu], str]] = {
    "Name": lambda g: g.facts["name"],
    "UUID": lambda g: g.own["uuid"],
    "Serial": lambda g: g.own["serial"],
    "BoardPartNumber": lambda g: g.facts["board_part"],
    "VbiosVersion": lambda g: g.own["vbios"],
    "InforomImageVersion": lambda g: g.facts["inforom"],
}
_NUMBERS: dict[str, tuple[Any, Callable[[Gpu], tuple[Any, ...]]]] = {
    "MinorNumber": (c.c_uint, lambda g: (g.index,)),
    "Index": (c.c_uint, lambda g: (g.index,)),
    "ModuleId": (c.c_uint, lambda g: (g.position + 1,)),
    "Architecture": (c.c_uint, lambda g: (g.facts["architecture"],)),
    "CudaComputeCapability": (c.c_int, lambda g: tuple(g.facts["compute_capability"])),
    "PowerUsage": (c.c_uint, lambda g: (g.row["power_avg_mw"],)),
    "TotalEnergyConsumption": (c.c_ulonglong, lambda g: (g.row["energy_mj"],)),
    "EnforcedPowerLimit": (c.c_uint, lambda g: (_w(g.facts["limit_w"]),)),
    "PowerManagementLimit": (c.c_uint, lambda g: (_w(g.facts["limit_w"]),)),
    "PowerManagementDefaultLimit": (c.c_uint, lambda g: (_w(g.facts["limit_w"]),)),
    "PowerManagementLimitConstraints": (c.c_uint, lambda g: (_w(g.facts["limit_min_w"]), _w(g.facts["limit_w"]))),
    "PerformanceState": (c.c_int, lambda g: (0,)),
    "CurrentClocksEventReasons": (c.c_ulonglong, lambda g: (g.row["reasons"],)),
    "CurrentClocksThrottleReasons": (c.c_ulonglong, lambda g: (g.row["reasons"],)),
    "SupportedClocksEventReasons": (c.c_ulonglong, lambda g: (0x1FF,)),
    "EccMode": (c.c_int, lambda g: (1, 1)),
    "RemappedRows": (c.c_uint, lambda g: (0, g.row["remap_unc"], g.row["remap_pending"], 0)),
    "PersistenceMode": (c.c_int, lambda g: (1,)),
    "ComputeMode": (c.c_int, lambda g: (0,)),
    "MigMode": (c.c_uint, lambda g: (0, 0)),
    "SupportedEventTypes": (c.c_ulonglong, lambda g: (_EVENTS["b" if g.blackwell else "h"],)),
    "CurrPcieLinkGeneration": (c.c_uint, lambda g: (g.facts["pcie_gen"],)),
    "MaxPcieLinkGeneration": (c.c_uint, lambda g: (g.facts["pcie_gen"],)),
    "CurrPcieLinkWidth": (c.c_uint, lambda g: (16,)),
    "MaxPcieLinkWidth": (c.c_uint, lambda g: (16,)),
    "PcieReplayCounter": (c.c_uint, lambda g: (g.row["pcie_replays"],)),
}
_ABSENT = ("FanSpeed", "NumFans", "RetiredPagesPendingStatus", "GpuOperationMode", "AutoBoostedClocksEnabled")
"""Exported by every driver, answered by none of these boards."""
_API.update({f"nvmlDeviceGet{name}": _text(of) for name, of in _TEXTS.items()})
_API.update({f"nvmlDeviceGet{name}": _words(kind, of) for name, (kind, of) in _NUMBERS.items()})
_API.update({f"nvmlDeviceGet{name}": _words(c.c_uint, lambda g: (None,)) for name in _ABSENT})


@api("nvmlDeviceGetInforomVersion")
def _inforom(nvml: Nvml, handle: Any, which: Any, buffer: Any, length: Any) -> None:
    gpu = nvml.gpu(handle)
    versions = {0: gpu.facts["inforom_oem"], 1: gpu.facts["inforom_ecc"]}
    if number(which) not in versions:
        raise Refuse(NOT_SUPPORTED)
    put_text(buffer, length, versions[number(which)])


def _keyed(kind: Any, of: Callable[[Gpu, int], Any], unknown: int = NOT_SUPPORTED) -> Callable[..., None]:
    """(handle, key, out): None is `unknown`."""

    def get(nvml: Nvml, handle: Any, key: Any, out: Any) -> None:
        value = of(nvml.gpu(handle), number(key))
        if value is None:
            raise Refuse(unknown)
        put(kind, value, out)

    return get


def _clock(gpu: Gpu, kind: int) -> int | None:
    now = gpu.row["clock_mhz"]
    return {0: now, 1: now, 2: gpu.facts["clock_mem_mhz"], 3: gpu.facts["clock_video_mhz"]}.get(kind)


def _max_clock(gpu: Gpu, kind: int) -> int | None:
    top = gpu.facts["clock_max_mhz"]
    return {0: top, 1: top, 2: gpu.facts["clock_mem_mhz"], 3: gpu.facts["clock_video_max_mhz"]}.get(kind)


def _link(value: Callable[[Gpu], int]) -> Callable[[Gpu, int], int | None]:
    return lambda gpu, link: value(gpu) if 0 <= link < gpu.facts["nvlinks"] else None


_API.update(
    {
        "nvmlDeviceGetTemperature": _keyed(
            c.c_uint, lambda g, sensor: g.row["temp_c"] if sensor == 0 else None, INVALID_ARGUMENT
        ),
        # absolute thresholds are N/A on boards that have T.Limit
        "nvmlDeviceGetTemperatureThreshold": _keyed(c.c_uint, lambda g, kind: None),
        "nvmlDeviceGetClockInfo": _keyed(c.c_uint, _clock, INVALID_ARGUMENT),
        "nvmlDeviceGetMaxClockInfo": _keyed(c.c_uint, _max_clock, INVALID_ARGUMENT),
        # a link that is not there is INVALID_ARGUMENT on GB200, not NOT_SUPPORTED
        "nvmlDeviceGetNvLinkState": _keyed(
            c.c_uint, lambda g, link: 1 - g.links[link]["down"] if 0 <= link < len(g.links) else None, INVALID_ARGUMENT
        ),
        "nvmlDeviceGetNvLinkVersion": _keyed(c.c_uint, _link(lambda g: int(g.facts["nvlink_version"])), INVALID_ARGUMENT),
        "nvmlDeviceGetNvLinkRemoteDeviceType": _keyed(c.c_uint, _link(lambda g: 2), INVALID_ARGUMENT),
    }
)


# ---------------------------------------------------------------- structs


@api("nvmlDeviceGetPciInfo_v3")
def _pci(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu, info = nvml.gpu(handle), struct_at(PciInfo, out)
    bdf = gpu.own["bdf"]
    info.busId, info.busIdLegacy = bdf.encode(), bdf[4:].encode()
    info.domain, info.bus, info.device = int(bdf[:8], 16), int(bdf[9:11], 16), int(bdf[12:14], 16)
    info.pciDeviceId, info.pciSubSystemId = gpu.facts["pci_device"], gpu.facts["pci_subsystem"]


@api("nvmlDeviceGetPlatformInfo")
def _platform(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    if not gpu.facts["platform_info"]:
        raise Refuse(NOT_SUPPORTED)
    info = versioned(PlatformInfo, out, 0x100002C, 0x200002C)
    info.ibGuid[:] = bytes.fromhex(gpu.own["guid"]).ljust(16, b"\0")
    info.chassis[:] = nvml.facts["chassis"].encode().ljust(16, b"\0")
    info.slot, info.tray, info.host, info.peer = nvml.facts["slot"], nvml.facts["tray_index"], 1, 1
    info.module = gpu.position + 1


@api("nvmlDeviceGetGpuFabricInfoV")
def _fabric(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    info = versioned(FabricInfo, out, 0x2000024, 0x3000028)
    info.status, info.health = 0, 0
    if gpu.facts["fabric_clique"] is None:
        info.state = 0
    else:
        info.cluster[:] = bytes.fromhex(nvml.facts["cluster_uuid"])
        info.clique, info.state = gpu.facts["fabric_clique"], 3
        info.health = _HEALTHY & ~0x30 | 0x10 if gpu.row["unhealthy"] else _HEALTHY  # its route is unhealthy
    if info.version == 0x3000028:
        info.summary = (2 if gpu.row["unhealthy"] else 1) if gpu.facts["fabric_clique"] is not None else 0


@api("nvmlDeviceGetTemperatureV")
def _temperature_v(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    info = versioned(c.c_int * 3, out, 0x100000C)  # version, sensor, temperature
    if info[1] != 0:
        raise Refuse(INVALID_ARGUMENT)
    info[2] = gpu.row["temp_c"]


@api("nvmlDeviceSetGpuLockedClocks")
def _lock_clocks(nvml: Nvml, handle: Any, least: Any, most: Any) -> None:
    gpu, low, high = nvml.gpu(handle), number(least), number(most)
    if low > high or not 100 <= high <= gpu.facts["clock_max_mhz"]:
        raise Refuse(INVALID_ARGUMENT)
    gpu.row["locked_mhz"] = high


@api("nvmlDeviceResetGpuLockedClocks")
def _free_clocks(nvml: Nvml, handle: Any) -> None:
    nvml.gpu(handle).row["locked_mhz"] = 0


@api("nvmlDeviceGetMarginTemperature")
def _margin(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    versioned(c.c_int * 2, out, 0x1000008)[1] = gpu.row["margin_c"]


@api("nvmlDeviceGetMemoryInfo")
def _memory(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu, info = nvml.gpu(handle), struct_at(Memory, out)
    reserved = gpu.facts["reserved_mib"] << 20
    info.total = gpu.facts["memory_mib"] << 20
    info.used = nvml.mem_used(gpu) + reserved
    info.free = info.total - info.used


@api("nvmlDeviceGetMemoryInfo_v2")
def _memory_v2(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    info = versioned(MemoryV2, out, 0x2000028)
    info.total, info.reserved = gpu.facts["memory_mib"] << 20, gpu.facts["reserved_mib"] << 20
    info.used = nvml.mem_used(gpu)
    info.free = info.total - info.reserved - info.used


@api("nvmlDeviceGetUtilizationRates")
def _utilization(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu, info = nvml.gpu(handle), struct_at(c.c_uint * 2, out)
    info[0], info[1] = gpu.row["util_pct"], gpu.row["util_pct"] * 6 // 10


@api("nvmlDeviceGetRowRemapperHistogram")
def _histogram(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu, info = nvml.gpu(handle), struct_at(c.c_uint * 5, out)  # banks with max, high, partial, low, no availability
    used = min(gpu.row["remap_unc"], gpu.facts["remap_banks"])
    info[:] = [gpu.facts["remap_banks"] - used, used, 0, 0, 0]


@api("nvmlDeviceGetPdi")
def _pdi(nvml: Nvml, handle: Any, out: Any) -> None:
    gpu = nvml.gpu(handle)
    versioned(c.c_ulonglong * 2, out, 0x1000010)[1] = gpu.own["pdi"]


# ---------------------------------------------------------------- memory errors


def _errors(gpu: Gpu, kind: int, counter: int, place: int | None) -> int:
    """kind 0 corrected, 1 uncorrected; counter 0 volatile, 1 aggregate; place 2 DRAM, 7 SRAM, None all."""
    if kind not in (0, 1) or counter not in (0, 1):
        raise Refuse(INVALID_ARGUMENT)
    if place not in (None, 2, 7):
        raise Refuse(NOT_SUPPORTED)
    if place == 7:
        return 0
    return gpu.row[f"ecc_{'ue' if kind else 'ce'}_{'aggregate' if counter else 'volatile'}"]


@api("nvmlDeviceGetTotalEccErrors")
def _total_errors(nvml: Nvml, handle: Any, kind: Any, counter: Any, out: Any) -> None:
    put(c.c_ulonglong, _errors(nvml.gpu(handle), number(kind), number(counter), None), out)


@api("nvmlDeviceGetMemoryErrorCounter")
def _memory_errors(nvml: Nvml, handle: Any, kind: Any, counter: Any, place: Any, out: Any) -> None:
    put(c.c_ulonglong, _errors(nvml.gpu(handle), number(kind), number(counter), number(place)), out)


@api("nvmlDeviceGetSramEccErrorStatus")
def _sram(nvml: Nvml, handle: Any, out: Any) -> None:
    nvml.gpu(handle)
    info = versioned(c.c_ubyte * 0x68, out, 0x1000068)
    info[8:] = [0] * (0x68 - 8)


@api("nvmlDeviceGetRepairStatus")
def _repair(nvml: Nvml, handle: Any, out: Any) -> None:
    nvml.gpu(handle)
    versioned(c.c_uint * 3, out, 0x100000C)[1:] = [0, 0]  # channel, TPC: no repair pending


# ---------------------------------------------------------------- field values, processes, events


@api("nvmlDeviceGetFieldValues")
def _field_values(nvml: Nvml, handle: Any, count: Any, values: Any) -> None:
    gpu = nvml.gpu(handle)
    if number(count) < 1 or not address(values):
        raise Refuse(INVALID_ARGUMENT)
    write_fields(gpu, address(values, 40 * number(count)), number(count), time.time_ns() // 1000)


@api("nvmlDeviceGetComputeRunningProcesses_v3")
def _processes(nvml: Nvml, handle: Any, count: Any, infos: Any) -> None:
    gpu = nvml.gpu(handle)
    running = [(s["pid"], s["mem_bytes"]) for _, s in nvml.state.slots() if s["gpu"] == gpu.position]
    room = struct_at(c.c_uint, count).value
    put(c.c_uint, len(running), count)
    if not running:
        return
    if not address(infos) or room < len(running):
        raise Refuse(INSUFFICIENT_SIZE)
    for info, (pid, used) in zip(struct_at(Process * len(running), infos), running):
        info.pid, info.used, info.gpuInstance, info.computeInstance = pid, used, _NOBODY, _NOBODY


@api("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v3")
def _no_processes(nvml: Nvml, handle: Any, count: Any, infos: Any) -> None:
    nvml.gpu(handle)
    put(c.c_uint, 0, count)


@api("nvmlEventSetCreate")
def _create_set(nvml: Nvml, out: Any) -> None:
    with nvml.lock:
        nvml.made += 1
        ident = SET + nvml.made
        nvml.sets[ident] = EventSet(nvml.state.events)
    put(c.c_size_t, ident, out)


def _event_set(nvml: Nvml, handle: Any) -> EventSet:
    found = nvml.sets.get(address(handle))
    if found is None:
        raise Refuse(INVALID_ARGUMENT)
    return found


@api("nvmlDeviceRegisterEvents")
def _register(nvml: Nvml, handle: Any, types: Any, event_set: Any) -> None:
    gpu, wanted = nvml.gpu(handle), number(types)
    if wanted & ~_EVENTS["b" if gpu.blackwell else "h"]:
        raise Refuse(NOT_SUPPORTED)
    events = _event_set(nvml, event_set)
    if not events.wanted:
        events.seen = nvml.state.events  # nothing from before is replayed
    events.wanted[gpu.position] = wanted


@api("nvmlEventSetWait_v2")
def _wait(nvml: Nvml, event_set: Any, out: Any, timeout_ms: Any) -> None:
    events, data = _event_set(nvml, event_set), struct_at(EventData, out)
    left_s, poll_s = number(timeout_ms) / 1000, nvml.facts.get("poll_s", _POLL_S)
    while True:
        while events.seen < nvml.state.events:
            event = nvml.state.event(events.seen)
            events.seen += 1
            if events.wanted.get(event.gpu, 0) & event.type:
                data.device = HANDLE + 1 + nvml.by_position[event.gpu].index
                data.type, data.data, data.gpuInstance, data.computeInstance = event.type, event.data, _NOBODY, _NOBODY
                return
        if left_s <= 0:
            raise Refuse(TIMEOUT)
        nvml.sleep(min(poll_s, left_s))
        left_s -= poll_s


@api("nvmlEventSetFree")
def _free_set(nvml: Nvml, event_set: Any) -> None:
    _event_set(nvml, event_set)
    del nvml.sets[address(event_set)]
