"""Device memory of an emulated GPU: addresses that look like a driver's, and real bytes behind the small ones.

An allocation of up to BACKED bytes keeps what is written to it. A larger one only takes room: it reads as zeros, but for
words that were filled over stretches of it (see runs).
A pattern that a kernel painted over a range is kept as what it is, of any size, with the words that were changed in it
since; it can be compared, not read.
"""

from __future__ import annotations

import bisect
import mmap

from .runs import Patterns, Runs, of_bytes, to_bytes

BACKED = 64 << 20
FIRST, _ALIGN = 0x7F0000000000, 512
_FEW = 64
"""Words at most that are kept one by one when they change a painted range."""


def word(pattern: tuple[int, int], index: int) -> int:
    """What (kind, seed) is at a word's index, its address / 4: the arithmetic of the agent's pattern kernels."""
    kind, seed = pattern
    if kind == 0:
        return seed
    if kind == 1:
        turn = index & 31
        return (seed << turn | seed >> (32 - turn)) & 0xFFFFFFFF
    x = (index ^ seed) & 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return (x ^ x >> 16) + (index >> 32) * 0x9E3779B9 & 0xFFFFFFFF


class Memory:
    """Allocations of one process on one GPU; `room` bytes in all."""

    def __init__(self, room: int, first: int = FIRST) -> None:
        self.room, self.used = room, 0
        self._next = first
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._bytes: dict[int, mmap.mmap] = {}
        self._painted: dict[int, tuple[int, tuple[int, int]]] = {}
        self._changed: dict[int, int] = {}
        self._patterns: dict[int, Patterns] = {}

    def allocate(self, size: int) -> int | None:
        """Address of `size` fresh bytes, or None when there is no room."""
        if self.used + size > self.room:
            return None
        start, self._next = self._next, self._next + -(-size // _ALIGN) * _ALIGN
        self._starts.append(start)
        self._sizes[start] = size
        if size <= BACKED:
            self._bytes[start] = mmap.mmap(-1, size)
        self.used += size
        return start

    def free(self, start: int) -> bool:
        """Give back; False when nothing was allocated there."""
        if start not in self._sizes:
            return False
        self.used -= self._sizes.pop(start)
        self._starts.remove(start)
        self._painted.pop(start, None)
        self._patterns.pop(start, None)
        if start in self._bytes:
            self._bytes.pop(start).close()
        return True

    def holds(self, address: int, size: int) -> bool:
        """True when all these bytes lie in one allocation."""
        start = self._start(address)
        return start is not None and address + size <= start + self._sizes[start]

    def write(self, address: int, data: bytes) -> None:
        """Keep bytes, if they are backed. The caller has asked `holds`, here and below."""
        start = self._start(address)
        if start in self._bytes:
            self._bytes[start][address - start : address - start + len(data)] = data

    def fill(self, address: int, word: bytes, count: int) -> None:
        """Write a word `count` times, if it is backed; over a painted range if they are few."""
        if count <= _FEW and self._start(address) in self._painted:
            self._changed.update((address + 4 * i, int.from_bytes(word, "little")) for i in range(count))
        if self._start(address) in self._bytes:
            self.write(address, word * count)
        else:
            pattern = self._patterns.setdefault(self._start(address) or 0, Patterns())
            pattern.fill(address, count, int.from_bytes(word, "little"))

    def runs(self, address: int, size: int) -> Runs:
        """Words as last written, as runs. Raises ValueError for contents that are not made of patterns."""
        start = self._start(address)
        if start in self._bytes:
            return of_bytes(self.read(address, size))
        return self._patterns.get(start or 0, Patterns()).runs(address, size)

    def read(self, address: int, size: int) -> bytes:
        """Bytes as last written."""
        start = self._start(address)
        if start in self._bytes:
            return self._bytes[start][address - start : address - start + size]
        if start in self._patterns and size <= BACKED:
            low, high = address // 4 * 4, -(-(address + size) // 4) * 4
            return to_bytes(self._patterns[start].runs(low, high - low))[address - low : address - low + size]
        return bytes(size)

    def copy(self, to: int, other: Memory, source: int, size: int) -> None:
        """Bytes from another memory, or this one, if they are backed here."""
        if self._start(to) in self._bytes:
            self.write(to, other.read(source, size))

    def paint(self, address: int, size: int, pattern: tuple[int, int]) -> None:
        """A kernel wrote this pattern over all of a range. One range per allocation, from its start, is kept."""
        self._changed = {at: value for at, value in self._changed.items() if not address <= at < address + size}
        self._painted[address] = size, pattern

    def differs(self, address: int, size: int, pattern: tuple[int, int], most: int) -> tuple[int, list[tuple[int, int, int]]]:
        """How many words of a range are not of this pattern, and the first: (address, expected, actual)."""
        painted, own = self._painted.get(address, (0, None))
        if own == pattern and painted >= size:
            changed = sorted((at, got) for at, got in self._changed.items() if address <= at < address + size)
            wrong = [(at, word(pattern, at // 4), got) for at, got in changed if got != word(pattern, at // 4)]
            return len(wrong), wrong[:most]
        shown = range(address, address + size, 4)[:most]
        return size // 4, [(at, word(pattern, at // 4), 0 if own is None else word(own, at // 4)) for at in shown]

    def _start(self, address: int) -> int | None:
        at = bisect.bisect_right(self._starts, address) - 1
        return self._starts[at] if at >= 0 else None
