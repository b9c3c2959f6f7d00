"""What launched kernels do in an emulated driver: how long they take, and what they leave in memory.

A load kernel's third parameter is a C int `iters`: so many microseconds at the highest clock. The agent's digest kernels
write words that follow from name, seed, length and compute capability only; a GPU with silent data corruption gets one
of them wrong now and then, always on the same multiprocessor. Pattern kernels paint memory and compare it.
"""

from __future__ import annotations

import ctypes as c
import hashlib
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from .abi import Refuse, address
from .cuda_core import INVALID_VALUE, Context
from .memory import FIRST, word

_GEMM_FLOP = 2.0 * 128 * 128 * 64 * 32
_FMA_FLOP = 3.0 * 256 * 8
"""Work of one tile in one iteration of the digest kernels."""
_TOLD = 16
_CELLS = 0.05, 0.95
"""Where in the memory stuck cells may lie: in what a test of all memory reaches."""


class Parameters:
    """A launch's kernelParams: pointers to the values."""

    def __init__(self, pointer: Any) -> None:
        self._at = address(pointer)

    def __call__(self, kind: Any, index: int) -> int:
        """The value of one parameter."""
        place = c.c_void_p.from_address(self._at + 8 * index).value
        if not self._at or not place:
            raise Refuse(INVALID_VALUE)
        return int(kind.from_address(place).value)


def nanoseconds(kernel: str, context: Context, rates: Mapping[str, Any], blocks: int, parameters: Parameters) -> int:
    """Do what the kernel does, and say how long it takes; of no known name, it is a load kernel."""
    slower = context.device.facts["clock_max_mhz"] / max(context.device.row["clock_busy_mhz"], 1)
    known = _KNOWN.get(kernel)
    if known is None:
        return int(max(parameters(c.c_int, 2), 0) * 1000 * slower)
    return int(known(kernel, context, rates, blocks, parameters) * (slower if known is _digest else 1))


def _digest(kernel: str, context: Context, rates: Mapping[str, Any], tiles: int, parameters: Parameters) -> float:
    out, sm, iters, seed = (parameters(kind, i) for i, kind in enumerate((c.c_uint64, c.c_uint64, c.c_int, c.c_uint)))
    memory, sms = context.memory, context.device.facts["sms"]
    if not memory.holds(out, 8 * tiles) or not memory.holds(sm, 4 * tiles):
        raise Refuse(INVALID_VALUE)
    what = f"{kernel}/{context.device.facts['compute_capability']}/{seed}/{iters}/{tiles}"
    words = bytearray(hashlib.shake_128(what.encode()).digest(8 * tiles))
    _corrupt(context, words, sms, tiles)
    memory.write(out, bytes(words))
    memory.write(sm, struct.pack(f"<{tiles}I", *(tile % sms for tile in range(tiles))))
    flop = _GEMM_FLOP if kernel == "gemm_digest" else _FMA_FLOP
    return float(flop * iters * tiles / rates["gemm_tflops" if kernel == "gemm_digest" else "fma_tflops"] / 1e3)


def _corrupt(context: Context, words: bytearray, sms: int, tiles: int) -> None:
    """With its probability, one of the tiles that the bad multiprocessor computed has another digest."""
    row = context.device.row
    if not row["sdc_ppm"]:
        return
    row["sdc_launches"] += 1
    uuid = context.device.own["uuid"]
    bad_sm, chance = Random(uuid).randrange(min(sms, tiles)), Random(f"{uuid}/{row['sdc_launches']}")
    if chance.random() * 1e6 < row["sdc_ppm"]:
        tile = bad_sm + sms * chance.randrange((tiles - bad_sm - 1) // sms + 1)
        words[8 * tile : 8 * tile + 8] = chance.randbytes(8)


def _write(kernel: str, context: Context, rates: Mapping[str, Any], blocks: int, parameters: Parameters) -> float:
    base, words, kind, seed = (parameters(t, i) for i, t in enumerate((c.c_uint64, c.c_uint64, c.c_uint, c.c_uint)))
    if not context.memory.holds(base, 4 * words):
        raise Refuse(INVALID_VALUE)
    context.memory.paint(base, 4 * words, (kind, seed))
    return float(4 * words / rates["hbm_gbps"])


def _step(kernel: str, context: Context, rates: Mapping[str, Any], blocks: int, parameters: Parameters) -> float:
    base, words, kind, seed = (parameters(t, i) for i, t in enumerate((c.c_uint64, c.c_uint64, c.c_uint, c.c_uint)))
    report, next_kind, next_seed, flags = (parameters(t, i + 4) for i, t in enumerate((c.c_uint64, c.c_uint, c.c_uint, c.c_uint)))
    memory = context.memory
    if not memory.holds(base, 4 * words) or not memory.holds(report, 16 + 16 * _TOLD):
        raise Refuse(INVALID_VALUE)
    count, wrong = memory.differs(base, 4 * words, (kind, seed), _TOLD)
    stuck = _stuck(context, base, 4 * words, (kind, seed))
    count, wrong = count + len(stuck), (wrong + stuck)[:_TOLD]
    if count:
        before, told = struct.unpack("<2Q", memory.read(report, 16))
        memory.write(report, struct.pack("<2Q", before + count, told + count))
        for n, (at, expected, actual) in enumerate(wrong[: max(_TOLD - told, 0)], told):
            memory.write(report + 16 + 16 * n, struct.pack("<2Q", at, expected << 32 | actual))
    if flags & 1:
        memory.paint(base, 4 * words, (next_kind, next_seed))
    return float(4 * words * (1 + (flags & 1)) / rates["hbm_gbps"])


def _stuck(context: Context, base: int, size: int, pattern: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Words of a range in which a stuck cell reads otherwise than this pattern was written: (address, expected, actual)."""
    chance, out = Random(f"{context.device.own['uuid']}/cells"), []
    for _ in range(context.device.row["bad_cells"]):
        at = FIRST + (chance.randrange(int(_CELLS[0] * context.memory.room), int(_CELLS[1] * context.memory.room)) & ~3)
        bit = 1 << chance.randrange(32)
        if base <= at < base + size and not word(pattern, at // 4) & bit:
            out.append((at, word(pattern, at // 4), word(pattern, at // 4) | bit))
    return sorted(out)


_KNOWN: dict[str, Callable[..., float]] = {
    "gemm_digest": _digest,
    "fma_digest": _digest,
    "hbm_write": _write,
    "hbm_step": _step,
}
