"""Device memory of an emulated GPU: addresses that look like a driver's, and real bytes behind the small ones.

An allocation of up to BACKED bytes keeps what is written to it. A larger one only takes room: it reads as zeros.
"""

from __future__ import annotations

import bisect
import mmap

BACKED = 64 << 20
_FIRST, _ALIGN = 0x7F0000000000, 512


class Memory:
    """Allocations of one process on one GPU; `room` bytes in all."""

    def __init__(self, room: int, first: int = _FIRST) -> None:
        self.room, self.used = room, 0
        self._next = first
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._bytes: dict[int, mmap.mmap] = {}

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
        """Write a word `count` times, if it is backed."""
        if self._start(address) in self._bytes:
            self.write(address, word * count)

    def read(self, address: int, size: int) -> bytes:
        """Bytes as last written."""
        start = self._start(address)
        return self._bytes[start][address - start : address - start + size] if start in self._bytes else bytes(size)

    def copy(self, to: int, other: Memory, source: int, size: int) -> None:
        """Bytes from another memory, or this one, if they are backed here."""
        if self._start(to) in self._bytes:
            self.write(to, other.read(source, size))

    def _start(self, address: int) -> int | None:
        at = bisect.bisect_right(self._starts, address) - 1
        return self._starts[at] if at >= 0 else None
