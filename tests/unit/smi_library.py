"""A libnvidia-ml that says what a capture of `nvidia-smi -q -x` says, in NVML's own units, laid out as nvml.h does.

It knows nothing of the agent's table: what the driver calls a thing, and in which unit, is written here a second time.
"""

from __future__ import annotations

import ctypes as c
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from burnin.twin.emulate.abi import Library, Refuse, address, number, put, struct_at
from burnin.twin.emulate.nvml_core import FabricInfo, PciInfo, PlatformInfo, put_text

NOT_SUPPORTED, NO_PERMISSION, LOST, DEPRECATED, INVALID = 3, 4, 15, 26, 2
_REFUSALS = {
    "N/A": NOT_SUPPORTED, "": NOT_SUPPORTED, "Not Supported": NOT_SUPPORTED, "Insufficient Permissions": NO_PERMISSION,
    "GPU is lost": LOST, "Requested functionality has been deprecated": DEPRECATED,
}  # fmt: skip
_COUNTERS = "clocks_event_reasons_counters/clocks_event_reasons_counters_"
_RECOVERY = {"None": 0, "Reset": 1, "Reboot": 2}
_STATE = {"Not Supported": 0, "Not Started": 1, "In Progress": 2, "Completed": 3}
_HEALTH = {"Healthy": 1, "Unhealthy": 2, "Limited Capacity": 3}
Fields = Mapping[str, str]


def gpus(text: str) -> list[tuple[str, dict[str, str]]]:
    """(PCI address, path -> text) of every GPU of a capture."""
    out = []
    for gpu in ElementTree.fromstring(text).findall("gpu"):
        fields: dict[str, str] = {}

        def walk(node: ElementTree.Element, path: str, fields: dict[str, str] = fields) -> None:
            for child in node:
                walk(child, f"{path}{child.tag}/", fields)
            if not len(node):
                fields.setdefault(path[:-1], (node.text or "").strip())

        walk(gpu, "")
        out.append((gpu.attrib["id"], fields))
    return out


def _said(fields: Fields, path: str) -> str:
    text = fields.get(path, "")
    if text in _REFUSALS:
        raise Refuse(_REFUSALS[text])
    return text


def _raw(fields: Fields, path: str, unit: str, scale: float = 1) -> int:
    """A number with this unit behind it, times what makes it NVML's."""
    text = _said(fields, path)
    found = re.fullmatch(rf"(-?[\d.]+)\s*{unit}", text)
    assert found, f"{path}: {text!r} is not in {unit or 'counts'}"
    return round(float(found[1]) * scale)


def _yes(fields: Fields, path: str) -> int:
    return {"No": 0, "Yes": 1}[_said(fields, path)]


UINT, ULL = 1, 3
_FIELDS: dict[tuple[int, int], tuple[int, Callable[[Fields], int]]] = {
    (185, 0): (UINT, lambda f: _raw(f, "gpu_power_readings/average_power_draw", "W", 1000)),
    (186, 0): (UINT, lambda f: _raw(f, "gpu_power_readings/instant_power_draw", "W", 1000)),
    (185, 1): (UINT, lambda f: _raw(f, "module_power_readings/average_power_draw", "W", 1000)),
    (186, 1): (UINT, lambda f: _raw(f, "module_power_readings/instant_power_draw", "W", 1000)),
    (82, 0): (UINT, lambda f: _raw(f, "temperature/memory_temp", "C")),
    (74, 0): (ULL, lambda f: _raw(f, f"{_COUNTERS}sw_power_cap", "us", 1000)),
    (76, 0): (ULL, lambda f: _raw(f, f"{_COUNTERS}sync_boost", "us", 1000)),
    (269, 0): (ULL, lambda f: _raw(f, f"{_COUNTERS}sw_therm_slowdown", "us", 1000)),
    (270, 0): (ULL, lambda f: _raw(f, f"{_COUNTERS}hw_therm_slowdown", "us", 1000)),
    (271, 0): (ULL, lambda f: _raw(f, f"{_COUNTERS}hw_power_brake", "us", 1000)),
    (230, 0): (UINT, lambda f: _RECOVERY[_said(f, "gpu_recovery_action")]),
}  # fmt: skip
"""(field id, scope) -> type and value. NVML counts milliwatts and nanoseconds."""

_ECC = "ecc_errors/{}/{}"
_ERRORS = {  # (uncorrected, aggregate, memory location)
    (0, 0, 2): ("volatile", ("dram_correctable",)), (0, 1, 2): ("aggregate", ("dram_correctable",)),
    (1, 0, 2): ("volatile", ("dram_uncorrectable",)), (1, 1, 2): ("aggregate", ("dram_uncorrectable",)),
    (0, 0, 7): ("volatile", ("sram_correctable",)), (0, 1, 7): ("aggregate", ("sram_correctable",)),
    (1, 0, 7): ("volatile", ("sram_uncorrectable_parity", "sram_uncorrectable_secded")),
    (1, 1, 7): ("aggregate", ("sram_uncorrectable_parity", "sram_uncorrectable_secded")),
}  # fmt: skip
_ROWS = "remapped_rows/remapped_row_"
_LINK = "pci/pci_gpu_link_info/"
_CLOCKS = {0: "graphics", 1: "sm", 2: "mem", 3: "video"}


def library(driver: str, all_gpus: list[tuple[str, dict[str, str]]]) -> Library:
    """The library of a host with these GPUs."""

    def of(handle: Any) -> Fields:
        return all_gpus[address(handle) - 1][1]

    def numbers(*values: Callable[[Fields], int], kind: Any = c.c_uint) -> Callable[..., None]:
        def get(handle: Any, *out: Any) -> None:
            got = [value(of(handle)) for value in values]
            for value, pointer in zip(got, out, strict=True):
                put(kind, value, pointer)

        return get

    def text(path: str) -> Callable[..., None]:
        return lambda handle, buffer, length: put_text(buffer, length, _said(of(handle), path))

    def module(handle: Any, out: Any) -> None:
        put(c.c_uint, int(_said(of(handle), "platformInfo/module_id")), out)

    def pci(handle: Any, out: Any) -> None:
        struct_at(PciInfo, out).busId = all_gpus[address(handle) - 1][0].encode()

    def keyed(table: Mapping[int, str], form: str, unit: str) -> Callable[..., None]:
        def get(handle: Any, key: Any, out: Any) -> None:
            put(c.c_uint, _raw(of(handle), form.format(table[number(key)]), unit), out)

        return get

    def margin(handle: Any, out: Any) -> None:
        struct_at(c.c_int * 2, out)[1] = _raw(of(handle), "temperature/gpu_temp_tlimit", "C")

    def utilization(handle: Any, out: Any) -> None:
        info = struct_at(c.c_uint * 2, out)
        info[0] = _raw(of(handle), "utilization/gpu_util", "%")
        info[1] = _raw(of(handle), "utilization/memory_util", "%")

    def errors(handle: Any, kind: Any, counter: Any, place: Any, out: Any) -> None:
        group, names = _ERRORS[number(kind), number(counter), number(place)]
        put(c.c_ulonglong, sum(_raw(of(handle), _ECC.format(group, name), "") for name in names), out)

    def sram(handle: Any, out: Any) -> None:
        struct_at(c.c_ubyte * 0x68, out)[0x68 - 8] = _yes(of(handle), "ecc_errors/aggregate/sram_threshold_exceeded")

    def repair(handle: Any, out: Any) -> None:
        found = [_yes(of(handle), f"ecc_errors/{name}_repair_pending") for name in ("channel", "tpc")]
        struct_at(c.c_uint * 3, out)[1:] = found

    def fabric(handle: Any, out: Any) -> None:
        info, fields = struct_at(FabricInfo, out), of(handle)
        state = fields.get("fabric/state", "N/A")
        if _REFUSALS.get(state) == LOST:
            raise Refuse(LOST)
        info.state = _STATE.get(state, 0)
        info.status = 0 if fields.get("fabric/status") == "Success" else 999
        info.summary = _HEALTH.get(fields.get("fabric/health/summary", "N/A"), 0)

    def platform(handle: Any, out: Any) -> None:
        info, fields = struct_at(PlatformInfo, out), of(handle)
        info.chassis[:] = _said(fields, "platformInfo/chassis_serial_number").encode().ljust(16, b"\0")
        info.slot, info.tray = (int(_said(fields, f"platformInfo/{name}")) for name in ("slot_number", "tray_index"))
        info.host, info.module = (int(_said(fields, f"platformInfo/{name}")) for name in ("host_id", "module_id"))

    def field_values(handle: Any, count: Any, values: Any) -> None:
        memory = memoryview((c.c_ubyte * (40 * number(count))).from_address(address(values))).cast("B")
        for at in range(0, len(memory), 40):
            ident, scope = struct.unpack_from("<II", memory, at)
            kind, raw, failed = 0, 0, 0
            try:
                kind, value = _FIELDS.get((ident, scope), (0, _refuse))
                raw = value(of(handle))
            except Refuse as refusal:
                failed = refusal.code
            struct.pack_into("<qqiIQ", memory, at + 8, 0, 0, kind, failed, raw)

    power = "gpu_power_readings/current_power_limit"
    getters: dict[str, Callable[..., Any]] = {
        "ModuleId": module, "PciInfo_v3": pci, "MarginTemperature": margin, "UtilizationRates": utilization,
        "MemoryErrorCounter": errors, "SramEccErrorStatus": sram, "RepairStatus": repair, "GpuFabricInfoV": fabric,
        "PlatformInfo": platform, "FieldValues": field_values,
        "Name": text("product_name"), "UUID": text("uuid"), "Serial": text("serial"),
        "BoardPartNumber": text("board_part_number"), "VbiosVersion": text("vbios_version"),
        "InforomImageVersion": text("inforom_version/img_version"),
        "Temperature": keyed({0: "gpu"}, "temperature/{}_temp", "C"),
        "ClockInfo": keyed(_CLOCKS, "clocks/{}_clock", "MHz"),
        "EnforcedPowerLimit": numbers(lambda f: _raw(f, power, "W", 1000)),
        "RemappedRows": numbers(
            lambda f: _raw(f, f"{_ROWS}corr", ""), lambda f: _raw(f, f"{_ROWS}unc", ""),
            lambda f: _yes(f, f"{_ROWS}pending"), lambda f: _yes(f, f"{_ROWS}failure"),
        ),
        "PcieReplayCounter": numbers(lambda f: _raw(f, "pci/replay_counter", "")),
        "CurrPcieLinkGeneration": numbers(lambda f: _raw(f, f"{_LINK}pcie_gen/current_link_gen", "")),
        "CurrPcieLinkWidth": numbers(lambda f: _raw(f, f"{_LINK}link_widths/current_link_width", "x")),
    }  # fmt: skip

    def by_index(index: Any, out: Any) -> None:
        put(c.c_size_t, number(index) + 1, out)

    return Library("libnvidia-ml.so.1", {
        "nvmlInitWithFlags": lambda *flags: None, "nvmlShutdown": lambda: None, "nvmlErrorString": lambda code: b"refused",
        "nvmlSystemGetDriverVersion": lambda buffer, length: put_text(buffer, length, driver),
        "nvmlSystemGetCudaDriverVersion": lambda out: put(c.c_int, 13000, out),
        "nvmlDeviceGetCount_v2": lambda out: put(c.c_uint, len(all_gpus), out),
        "nvmlDeviceGetHandleByIndex_v2": by_index,
        **{f"nvmlDeviceGet{name}": get for name, get in getters.items()},
    })  # fmt: skip


def _refuse(fields: Fields) -> int:
    raise Refuse(NOT_SUPPORTED)
