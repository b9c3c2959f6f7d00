"""NVML field values: what each field id of a Blackwell or Hopper driver answers, per scope.

A scope is 0 | 1 | 2 (GPU, module, memory) for power, a link number for NVLink and C2C, ALL_LINKS for a sum.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import c_ubyte
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from .nvml_core import Gpu

DOUBLE, UINT, ULL, INT = 0, 1, 3, 5
"""nvmlValueType_t."""
ALL_LINKS = 0xFFFFFFFF
INVALID_ARGUMENT, NOT_SUPPORTED = 2, 3
NO_ERRORS = 15 << 8 | 255
"""A bit error rate of none, packed as the driver does: mantissa << 8 | exponent."""
NO_ERRORS_SUMMED = 15 << 8 | 238
_LINK_ERRORS = (*range(206, 216), 219, 221)
_COUNTED = {
    202: ("tx_bytes",), 204: ("rx_bytes",), 208: ("rx_errors",), 211: ("integrity_errors",), 213: ("recovery_ok",),
    214: ("recovery_failed",), 215: ("recovery_ok", "recovery_failed"), 219: ("effective_errors",), 221: ("symbol_errors",),
}  # fmt: skip
_RATES = {220: "effective_ber", 222: "symbol_ber"}
_RAW_ERRORS, _RAW_RATES = (289, 290), (291, 292, 293)
_RAW_SINCE = 595
"""Errors and rates before error correction: this branch brought them."""
_ATTO = 18
"""A rate of the state is in parts of 10^-18."""

_Answer = Union[tuple[int, int], int]
"""(type, value), or the return code of a refusal."""
_SIZE = 40
_TAIL = struct.Struct("<qqiIQ")


def write_fields(gpu: Gpu, at: int, count: int, now_us: int) -> None:
    """Answer an array of nvmlFieldValue_t in place: ids and scopes are read from it, the rest is written."""
    memory = memoryview((c_ubyte * (_SIZE * count)).from_address(at)).cast("B")
    for offset in range(0, _SIZE * count, _SIZE):
        field, scope = struct.unpack_from("<II", memory, offset)
        answer = read_field(gpu, field, scope)
        if isinstance(answer, tuple):
            kind, value = answer
            mask = 0xFFFFFFFFFFFFFFFF if kind == ULL else 0xFFFFFFFF
            _TAIL.pack_into(memory, offset + 8, now_us, 0, kind, 0, value & mask)
        else:
            _TAIL.pack_into(memory, offset + 8, now_us, 0, 0, answer, 0)


def read_field(gpu: Gpu, field: int, scope: int) -> _Answer:
    """One field of one GPU."""
    if gpu.driver.startswith("575.") and 251 <= field <= 271:  # that branch numbered the event-reason counters otherwise
        field = field + 18 if field <= 253 else 0
    if field in _POWER:
        return _POWER[field](gpu, scope)
    if field in _PLAIN:
        kind, of = _PLAIN[field]
        return kind, of(gpu)
    if field in _C2C:
        return _of_link(scope, gpu.facts["c2c_links"], lambda: _C2C[field](gpu))
    if gpu.blackwell and (201 <= field <= 204 or field in _LINK_ERRORS or 220 <= field <= 222 or 235 <= field <= 250):
        return _nvlink(gpu, field, scope)
    if gpu.blackwell and (field in _RAW_ERRORS or field in _RAW_RATES) and _branch(gpu.driver) >= _RAW_SINCE:
        return _nvlink(gpu, field, scope)
    if 164 <= field <= 167:
        return _of_link(scope, gpu.facts["nvlinks"], lambda: (UINT, _link_setting(gpu, field, scope)))
    if not gpu.blackwell and 161 <= field <= 163:
        return _of_link(scope, gpu.facts["nvlinks"], lambda: (ULL, 0))
    return NOT_SUPPORTED


def _branch(driver: str) -> int:
    return int(driver.split(".")[0])


def _of_link(link: int, links: int, of: Callable[[], tuple[int, int]]) -> _Answer:
    if not links:
        return NOT_SUPPORTED
    return of() if link < links else INVALID_ARGUMENT


def _link_setting(gpu: Gpu, field: int, link: int) -> int:
    """Speed (MB/s), state, version, power state of one link."""
    up = 1 - gpu.links[link]["down"]
    return int({164: gpu.facts["nvlink_mbps"] * up, 165: up, 166: gpu.facts["nvlink_version"], 167: 0}[field])


def _nvlink(gpu: Gpu, field: int, scope: int) -> _Answer:
    """Counters of one NVLink, or of all."""
    if scope != ALL_LINKS and scope >= len(gpu.links):
        return INVALID_ARGUMENT
    rows = gpu.links if scope == ALL_LINKS else (gpu.links[scope],)
    if field in _RATES:
        none = NO_ERRORS_SUMMED if scope == ALL_LINKS and field == 222 else NO_ERRORS
        worst = max(row[_RATES[field]] for row in rows)
        return ULL, _packed(worst) if worst else none
    if field in _RAW_RATES:
        return ULL, _packed(max(row["raw_ber"] for row in rows))
    if field in (201, 203):  # packets of 128 bytes
        return ULL, sum(row["tx_bytes" if field == 201 else "rx_bytes"] for row in rows) // 128
    if field in _COUNTED:
        return ULL, sum(row[name] for row in rows for name in _COUNTED[field])
    if field >= 235:  # symbols by number of corrected errors
        return ULL, {235: 10**13, 236: 3000}.get(field, 0) * len(rows)
    return ULL, 0


def _packed(atto: int) -> int:
    """A rate as the driver packs it: one digit of mantissa in bits 8 to 11, the negative exponent in bits 0 to 7."""
    exponent = _ATTO
    while atto > 9:
        atto, exponent = atto // 10, exponent - 1
    return atto << 8 | exponent


def _limit(kind: str) -> Callable[[Gpu, int], _Answer]:
    names = {0: f"limit{kind}_w", 1: f"module_limit{kind}_w"}

    def read(gpu: Gpu, scope: int) -> _Answer:
        watts = gpu.facts.get(names.get(scope, ""))
        return NOT_SUPPORTED if watts is None else (UINT, int(watts * 1000))

    return read


def _meter(own: str) -> Callable[[Gpu, int], _Answer]:
    def read(gpu: Gpu, scope: int) -> _Answer:
        if scope == 0:
            return UINT, gpu.row[own]
        if scope == 1 and gpu.facts["module_limit_w"] is not None:
            return UINT, gpu.row["module_power_mw"]
        if scope == 2 and gpu.blackwell and own == "power_avg_mw":  # memory: an average only, as captured
            return UINT, gpu.row["hbm_power_mw"]
        return NOT_SUPPORTED

    return read


_POWER: dict[int, Callable[[Gpu, int], _Answer]] = {
    185: _meter("power_avg_mw"),
    186: _meter("power_mw"),
    187: _limit("_min"),
    188: _limit(""),
    189: _limit(""),
    190: _limit(""),
    192: _limit(""),
}


def _row(kind: int, name: str) -> tuple[int, Callable[[Gpu], int]]:
    return kind, lambda gpu: gpu.row[name]


def _always(kind: int, value: int) -> tuple[int, Callable[[Gpu], int]]:
    return kind, lambda gpu: value


def _fact(kind: int, name: str) -> tuple[int, Callable[[Gpu], Any]]:
    return kind, lambda gpu: gpu.facts[name]


_PLAIN: dict[int, tuple[int, Callable[[Gpu], int]]] = {
    1: _always(UINT, 1),
    2: _always(UINT, 1),
    3: _row(ULL, "ecc_ce_volatile"),  # single-bit
    5: _row(ULL, "ecc_ce_aggregate"),
    11: _row(ULL, "ecc_ce_volatile"),
    22: _row(ULL, "ecc_ce_aggregate"),
    4: _row(ULL, "ecc_ue_volatile"),
    6: _row(ULL, "ecc_ue_aggregate"),
    12: _row(ULL, "ecc_ue_volatile"),
    23: _row(ULL, "ecc_ue_aggregate"),
    74: _row(ULL, "sw_power_ns"),
    75: _row(ULL, "sw_thermal_ns"),
    76: _always(ULL, 0),
    82: _row(UINT, "hbm_c"),
    83: _row(ULL, "energy_mj"),
    91: _fact(UINT, "nvlinks"),
    94: _always(UINT, 0),
    95: _always(UINT, 0),
    142: _always(UINT, 0),
    143: _row(UINT, "remap_unc"),
    144: _row(UINT, "remap_pending"),
    145: _always(UINT, 0),
    170: _fact(UINT, "c2c_links"),
    **{field: _always(UINT, 0) for field in range(173, 184)},  # PCIe errors
    191: _row(ULL, "energy_mj"),
    193: _fact(INT, "shutdown_margin_c"),
    194: _fact(INT, "slowdown_margin_c"),
    195: _always(INT, 0),
    196: _always(INT, 0),
    230: _row(UINT, "recovery_action"),
    269: _row(ULL, "sw_thermal_ns"),
    270: _row(ULL, "hw_thermal_ns"),
    271: _always(ULL, 0),
}
_C2C: dict[int, Callable[[Gpu], tuple[int, int]]] = {
    171: lambda gpu: (UINT, 1),
    172: lambda gpu: (UINT, gpu.facts["c2c_mbps"]),
    **{field: (lambda gpu: (UINT, 0)) for field in range(231, 235)},
}
