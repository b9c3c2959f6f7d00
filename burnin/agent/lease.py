"""Until when each GPU's load may run: shared memory between the holder and its load processes.

A load process looks before every kernel launch, so load ends by itself when the holder is frozen, killed or forgotten
by its controller: nothing has to be delivered for it to stop. Times are CLOCK_MONOTONIC nanoseconds, one int64 a slot.
"""

from __future__ import annotations

import mmap
import os

_WORD = 8


class Deadlines:
    """`slots` deadlines in an anonymous file; `fd` is inherited by load processes."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self._words = memoryview(mmap.mmap(fd, slots * _WORD)).cast("q")

    @classmethod
    def create(cls, slots: int) -> Deadlines:
        """Holder's side: all slots in the past."""
        fd = os.memfd_create("burnin-lease", os.MFD_CLOEXEC)
        os.ftruncate(fd, max(slots, 1) * _WORD)
        return cls(fd, max(slots, 1))

    def until(self, slot: int) -> int:
        """The deadline of one slot."""
        return self._words[slot]

    def set(self, slot: int, until_ns: int) -> None:
        """Allow load until then; 0 revokes at once."""
        self._words[slot] = until_ns
