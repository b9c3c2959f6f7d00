"""What a GPU is joined by, through NVML: NVLink by link, the fabric's state, C2C and PCIe, and the SRAM's own verdict.

Counters of NVLink 5 take the link in scopeId. Bit error rates come packed, and "none" has a pattern of its own that is no
number. A link that the GPU does not have answers INVALID_ARGUMENT, so the count is asked first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from burnin.agent.fields import NO_ID, Call, Field, Group, Reading, Unread

LINK_COUNT, C2C_COUNT = 91, 170
_C2C_CRC, _C2C_REPLAY = 231, 232
_FEC, FEC_BINS = 235, 16
"""Histogram of code words by how many symbols error correction mended in them: 0 to 15."""
_RAW_BER = 293
_FEC_SINCE, _RAW_SINCE = 570, 595
_FABRIC_V2, _FABRIC_V3 = 0x2000024, 0x3000028
_REGISTERED = 3
_SRAM_V1 = 0x1000068
_ALL_GOOD = 0b10101010
"""The four 2-bit fields of a health mask that says of each trouble: no (2)."""


def error_rate(packed: float) -> float:
    """NVML's packed rate: mantissa in bits 8 to 11, negative decimal exponent in bits 0 to 7. 15e-255 and 15e-238 mean none."""
    bits = int(packed)
    mantissa, exponent = bits >> 8 & 0xF, bits & 0xFF
    if mantissa == 0 or (mantissa == 15 and exponent in (255, 238)):
        return 0.0
    return float(f"{mantissa}e-{exponent}")


def up(state: float) -> float:
    """1 for a link that is up (NVML: 1 active, 0 inactive, 2 sleeping)."""
    return 1.0 if state == 1 else 0.0


def branch(driver: str) -> int:
    """580.95.05 -> 580; 0 for a version that is no number."""
    first = driver.split(".")[0]
    return int(first) if first.isdigit() else 0


def fields(links: int, driver: str) -> list[Field]:
    """Every field of every link: sub-part l0, l1 ... What the driver's branch has no id for is not asked."""
    raw = _RAW_BER if branch(driver) >= _RAW_SINCE else NO_ID
    fec = [_FEC + n if branch(driver) >= _FEC_SINCE else NO_ID for n in range(FEC_BINS)]
    return [
        one
        for link in range(links)
        for one in (
            Field("nvlink.state", 165, 1.0, 0, link, f"l{link}", up),
            Field("nvlink.speed", 164, 1e-3, 3, link, f"l{link}"),
            Field("nvlink.tx_bytes", 202, 1.0, 0, link, f"l{link}"),
            Field("nvlink.rx_bytes", 204, 1.0, 0, link, f"l{link}"),
            Field("nvlink.rx_errors", 208, 1.0, 0, link, f"l{link}"),
            Field("nvlink.integrity_errors", 211, 1.0, 0, link, f"l{link}"),
            Field("nvlink.recovery_ok", 213, 1.0, 0, link, f"l{link}"),
            Field("nvlink.recovery_failed", 214, 1.0, 0, link, f"l{link}"),
            Field("nvlink.effective_errors", 219, 1.0, 0, link, f"l{link}"),
            Field("nvlink.effective_ber", 220, 1.0, 0, link, f"l{link}", error_rate),
            Field("nvlink.symbol_errors", 221, 1.0, 0, link, f"l{link}"),
            Field("nvlink.symbol_ber", 222, 1.0, 0, link, f"l{link}", error_rate),
            Field("nvlink.raw_ber", raw, 1.0, 0, link, f"l{link}", error_rate),
            *(Field(f"nvlink.fec_{n}", field, 1.0, 0, link, f"l{link}") for n, field in enumerate(fec)),
        )
    ]


# ---------------------------------------------------------------- calls of their own


def _fabric(nvml: Any, handle: Any) -> Sequence[Reading]:
    """State, status and health of the GPU's place in the fabric. Health 0, or a mask that leaves something out, is not read: a
    GPU that is not registered yet has none, so the whole of it is then `missing`; one that is registered and has none (H100,
    as captured) has a state and a status."""
    info = nvml.c_nvmlGpuFabricInfo_v3_t()
    try:
        info.version = _FABRIC_V3
        nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
        health = bytes(info)[type(info).healthSummary.offset]
    except nvml.NVMLError as error:
        if error.value not in (nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH, nvml.NVML_ERROR_INVALID_ARGUMENT):
            raise
        info = nvml.c_nvmlGpuFabricInfo_v2_t()
        info.version = _FABRIC_V2
        nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
        health = summary(int(info.healthMask))
    state = bytes(info)[type(info).state.offset]
    if state == 0:
        raise Unread("not_supported")
    if health == 0 and state != _REGISTERED:
        raise Unread("missing")
    return (float(state), float(info.status), float(health) if health else "missing")


def summary(mask: int) -> int:
    """A health mask as NVML's summary: 1 healthy, 2 unhealthy, 0 not read (a field says that it is not supported)."""
    troubles = [mask >> shift & 3 for shift in (0, 2, 4, 6)]
    configuration = mask >> 8 & 0xF
    if 1 in troubles or configuration > 1:
        return 2
    return 1 if mask & 0xFF == _ALL_GOOD else 0


def _c2c(nvml: Any, handle: Any) -> Sequence[float]:
    """CRC errors and replays between GPU and CPU, over all its links."""
    count = int(_numbers(nvml, handle, [(C2C_COUNT, 0)])[0])
    if not count:
        raise Unread("not_supported")
    each = range(count)
    crc, replay = ([(field, link) for link in each] for field in (_C2C_CRC, _C2C_REPLAY))
    return (sum(_numbers(nvml, handle, crc)), sum(_numbers(nvml, handle, replay)))


def _numbers(nvml: Any, handle: Any, ids: Sequence[tuple[int, int]]) -> list[float]:
    """Fields by (id, scope). Raises Unread with the reason of the first one that is not read."""
    out = list[float]()
    for reading in Group(nvml, handle, [Field("", field, 1.0, 0, scope) for field, scope in ids], ()).read():
        if isinstance(reading, str):
            raise Unread(reading)
        out.append(reading)
    return out


def _sram(nvml: Any, handle: Any) -> Sequence[float]:
    """1 when the SRAM has passed the vendor's threshold of uncorrectable errors."""
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = _SRAM_V1
    nvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return (float(bool(status.bThresholdExceeded)),)


def _repair(nvml: Any, handle: Any) -> Sequence[float]:
    """1 when a repair of an HBM channel or a TPC waits for a reset."""
    return (float(any(nvml.nvmlDeviceGetRepairStatus(handle))),)


CALLS = (
    Call(("fabric.state", "fabric.status", "fabric.health"), _fabric),
    Call(("c2c.crc", "c2c.replay"), _c2c),
    Call(("pcie.replay",), lambda n, h: (n.nvmlDeviceGetPcieReplayCounter(h),)),
    Call(("pcie.gen",), lambda n, h: (n.nvmlDeviceGetCurrPcieLinkGeneration(h),)),
    Call(("pcie.width",), lambda n, h: (n.nvmlDeviceGetCurrPcieLinkWidth(h),)),
    Call(("ecc.sram_threshold",), _sram),
    Call(("repair.pending",), _repair),
)
