"""One GPU's digest of a fixed piece of arithmetic: equal GPUs must give equal digests, bit by bit (docs/consensus.md).

A *set* is `rounds` launches of each kernel, with one seed per round; it is repeated until the time is over. The first
set makes the digest. Every later one is compared with it tile by tile: a GPU that disagrees with itself is unstable.
"""

from __future__ import annotations

import ctypes as c
import struct
from typing import Any

from burnin.agent.cuda import Cuda, Gpu
from burnin.agent.work import kernels

TILES = 1024
"""Tiles of a launch, the same for every GPU: its digest must not depend on how many SMs there are."""
ITERS = {"gemm_digest": 32, "fma_digest": 16384}
"""How much each kernel computes per tile; 2 to 4 ms a launch on an H200, below 100 ms on any GPU that clocks at all."""
_FIRST = 16
_WORD = (1 << 64) - 1


def rotated(word: int) -> int:
    """A 64-bit word, rotated left by one."""
    return (word << 1 | word >> 63) & _WORD


def combine(tiles: bytes, word: int = 0) -> int:
    """Digests of tiles, 8 bytes each, little endian -> one word: rotate by one, then XOR, in the order of the tiles."""
    for (tile,) in struct.iter_unpack("<Q", tiles):
        word = rotated(word) ^ tile
    return word


def seed_of(seed: int, turn: int) -> int:
    """The 32-bit seed of one round."""
    return (seed + turn * 0x9E3779B9) & 0xFFFFFFFF


def run(talk: Any, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """Job kind "digest". args: seed; rounds; kernels (names); seconds of GPU time to go on for, after the first set.

    Tells {digest, digests: {kernel: hex}, launch_digests: {kernel: [hex]}, seed, rounds, tiles, launches, sets, unstable,
    first: [{kernel, round, tile, sm}], arch, driver, seconds}. `digest` is None when not even one set could be finished.
    """
    gpu = Gpu(cuda, device)
    work = Digest(gpu, args)
    while talk.going() and work.wants_more():
        work.launch()
    told = work.message()
    gpu.close()
    talk.tell(told)


class Digest:
    """Launches one after the other, and what became of them."""

    def __init__(self, gpu: Gpu, args: dict[str, Any]) -> None:
        self._gpu = gpu
        self._seed, self._rounds, self._seconds = int(args["seed"]), max(int(args["rounds"]), 1), float(args.get("seconds", 0.0))
        self._names = [str(name) for name in args.get("kernels", ITERS)]
        self._functions = gpu.functions(kernels("consensus"), *self._names)
        self._out, self._sm = gpu.allocate(8 * TILES), gpu.allocate(4 * TILES)
        self._set = self._rounds * len(self._names)
        self._kept: list[bytes] = []
        self._launches, self._busy_ms = 0, 0.0
        self._unstable = 0
        self._first: list[dict[str, Any]] = []

    def wants_more(self) -> bool:
        """A set that was begun is finished; another is begun while there is time."""
        whole = self._launches >= self._set and self._launches % self._set == 0
        return not whole or self._busy_ms < 1000 * self._seconds

    def launch(self) -> None:
        """The next launch of the set: kernel by kernel, round by round."""
        number = self._launches % self._set
        which, turn = divmod(number, self._rounds)
        name = self._names[which]
        values = (c.c_uint64(self._out), c.c_uint64(self._sm), c.c_int(ITERS[name]), c.c_uint(seed_of(self._seed, turn)))
        self._busy_ms += self._gpu.launch(self._functions[which], TILES, *values)
        tiles = self._gpu.read(self._out, 8 * TILES)
        if self._launches < self._set:
            self._kept.append(tiles)
        elif tiles != self._kept[number]:
            self._differs(name, turn, tiles, self._kept[number])
        self._launches += 1

    def _differs(self, name: str, turn: int, now: bytes, before: bytes) -> None:
        sms = struct.unpack(f"<{TILES}I", self._gpu.read(self._sm, 4 * TILES))
        for tile in range(TILES):
            if now[8 * tile : 8 * tile + 8] != before[8 * tile : 8 * tile + 8]:
                self._unstable += 1
                if len(self._first) < _FIRST:
                    self._first.append({"kernel": name, "round": turn, "tile": tile, "sm": sms[tile]})

    def message(self) -> dict[str, Any]:
        """What is told to the controller."""
        whole = self._launches >= self._set
        each = [combine(tiles) for tiles in self._kept]
        by_kernel = {name: each[i * self._rounds : (i + 1) * self._rounds] for i, name in enumerate(self._names)}
        digests = {name: combine(struct.pack(f"<{len(words)}Q", *words)) for name, words in by_kernel.items()}
        return {
            "digest": f"{combine(struct.pack(f'<{len(each)}Q', *each)):016x}" if whole else None,
            "digests": {name: f"{word:016x}" for name, word in digests.items()} if whole else {},
            "launch_digests": {name: [f"{word:016x}" for word in words] for name, words in by_kernel.items()} if whole else {},
            "seed": self._seed,
            "rounds": self._rounds,
            "tiles": TILES * self._launches,
            "launches": self._launches,
            "sets": self._launches // self._set,
            "unstable": self._unstable,
            "first": self._first,
            "arch": self._gpu.capability,
            "driver": int(self._gpu.cuda.get("cuDriverGetVersion", c.c_int)),
            "seconds": round(self._busy_ms / 1000, 3),
        }
