"""All memory that the driver gives, filled with patterns and read back: moving inversions, walking ones, random.

Memory is taken in chunks, each half of the one before when that is refused, until only a reserve is left. Every pattern is
written over all of it before the first word is read again, so that nothing comes out of a cache. A pass reads one pattern
and writes the next in the same sweep, upwards and downwards in turn.
"""

from __future__ import annotations

import ctypes as c
import struct
from typing import Any

from burnin.agent.cuda import OUT_OF_MEMORY, Cuda, CudaError, Gpu
from burnin.agent.work import kernels

LARGEST, SMALLEST = 8 << 30, 2 << 20
"""Bytes of a chunk, which is also what one launch sweeps: 86 GB/s are enough for 100 ms."""
RESERVE = 256 << 20
"""Bytes left to the driver."""
FIRST = 16
"""Mismatches that are told one by one; all are counted."""
_FIXED, _TURNING, _HASHED = 0, 1, 2


def programme() -> list[tuple[int, int]]:
    """Patterns (kind, seed) in their order: moving inversions of four words, ones walking through all bits, random."""
    inverted = [(_FIXED, word ^ mask) for word in (0, 0x55555555, 0x33333333, 0x0F0F0F0F) for mask in (0, 0xFFFFFFFF, 0)]
    walking = [(_TURNING, 1 << bit) for bit in range(32)]
    return [*inverted, *walking, *((_HASHED, seed * 0x9E3779B1 & 0xFFFFFFFF) for seed in range(1, 4))]


def run(talk: Any, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """Job kind "hbm". args: seconds of GPU time to go on for, after the first programme; reserve_bytes.

    Tells {bytes, total_bytes, fraction, passes, complete, mismatches, first: [{address, expected, actual}] (hexadecimal),
    seconds, gbps}. `passes` counts patterns read back from all bytes; `complete`: the whole programme, at least once.
    """
    gpu = Gpu(cuda, device)
    test = Sweeps(gpu, int(args.get("reserve_bytes", RESERVE)))
    test.take(talk)
    whole, seconds = 0, float(args.get("seconds", 0.0))
    while test.chunks and (not whole or test.busy_ms < 1000 * seconds) and test.play(talk, programme()):
        whole += 1
    told = test.message(whole > 0)
    gpu.close()
    talk.tell(told)


class Sweeps:
    """The chunks of one GPU, and what was found in them."""

    def __init__(self, gpu: Gpu, reserve: int) -> None:
        self._gpu, self._reserve = gpu, reserve
        self._write, self._step = gpu.functions(kernels("hbm"), "hbm_write", "hbm_step")
        self._blocks = gpu.resident(self._step)
        self._report = gpu.allocate(16 + 16 * FIRST)
        gpu.clear(self._report, 16 + 16 * FIRST)
        self.chunks: list[tuple[int, int]] = []
        self.passes, self.moved, self.busy_ms = 0, 0, 0.0

    def take(self, talk: Any) -> None:
        """Allocate until the driver refuses, or only the reserve is left."""
        if talk.going():  # the driver loads kernels at their first launch, and needs memory for it
            start = self._gpu.allocate(SMALLEST)
            self._gpu.launch(self._write, 1, c.c_uint64(start), c.c_uint64(1024), c.c_uint(0), c.c_uint(0))
            self._gpu.launch(self._step, 1, *self._values(start, 4096, (0, 0), None))
            self._gpu.free(start)
        size = LARGEST
        while size >= SMALLEST and talk.going():
            if self._gpu.memory()[0] < size + self._reserve:
                size //= 2
                continue
            try:
                self.chunks.append((self._gpu.allocate(size), size))
            except CudaError as error:
                if error.code != OUT_OF_MEMORY:
                    raise
                size //= 2

    def play(self, talk: Any, patterns: list[tuple[int, int]]) -> bool:
        """Write the first pattern, then read each and write its successor. False when the time was over before the end."""
        for start, size in self.chunks:
            if not talk.going():
                return False
            values = (c.c_uint64(start), c.c_uint64(size // 4), c.c_uint(patterns[0][0]), c.c_uint(patterns[0][1]))
            self._count(size, self._gpu.launch(self._write, self._blocks, *values))
        for number, pattern in enumerate(patterns):
            following = patterns[number + 1] if number + 1 < len(patterns) else None
            for start, size in self.chunks if number % 2 == 0 else reversed(self.chunks):
                if not talk.going():
                    return False
                values = self._values(start, size, pattern, following, down=number % 2 == 1)
                self._count(size if following is None else 2 * size, self._gpu.launch(self._step, self._blocks, *values))
            self.passes += 1
        return True

    def _values(
        self, start: int, size: int, now: tuple[int, int], following: tuple[int, int] | None, down: bool = False
    ) -> tuple[Any, ...]:
        kind, seed = following or (0, 0)
        flags = int(following is not None) | int(down) << 1
        reading = (c.c_uint64(start), c.c_uint64(size // 4), c.c_uint(now[0]), c.c_uint(now[1]), c.c_uint64(self._report))
        return (*reading, c.c_uint(kind), c.c_uint(seed), c.c_uint(flags))

    def _count(self, moved: int, took_ms: float) -> None:
        self.moved += moved
        self.busy_ms += took_ms

    def message(self, complete: bool) -> dict[str, Any]:
        """What is told to the controller."""
        words = struct.unpack(f"<{2 + 2 * FIRST}Q", self._gpu.read(self._report, 16 + 16 * FIRST))
        taken, total = sum(size for _, size in self.chunks), self._gpu.memory()[1]
        told = range(2, 2 + 2 * min(words[1], FIRST), 2)
        return {
            "bytes": taken,
            "total_bytes": total,
            "fraction": round(taken / total, 6),
            "passes": self.passes,
            "complete": complete,
            "mismatches": words[0],
            "first": [
                {
                    "address": f"{words[at]:#x}",
                    "expected": f"{words[at + 1] >> 32:#010x}",
                    "actual": f"{words[at + 1] & 0xFFFFFFFF:#010x}",
                }
                for at in told
            ],
            "seconds": round(self.busy_ms / 1000, 3),
            "gbps": round(self.moved / self.busy_ms / 1e6, 1) if self.busy_ms else 0.0,
        }
