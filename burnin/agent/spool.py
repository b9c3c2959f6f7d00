"""The last records a holder made, by sequence number, so that a channel that was cut misses nothing.

Kept in memory: a tray whose disk is full or read-only must still be able to testify.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from burnin.wire import Record, encode, encode_sample


class Spool:
    """Numbers records and keeps their lines, up to `limit` bytes; beyond that the oldest go, which `first` shows."""

    def __init__(self, boot_id: str, now_ns: Callable[[], int], limit: int = 64 << 20) -> None:
        self._boot_id = boot_id
        self._now_ns = now_ns
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self.pressing = False
        """Something but samples was added since whoever sends it said False."""
        self.before: Callable[[], None] = lambda: None
        self.first = 0
        """Sequence number of the oldest record kept."""

    @property
    def next(self) -> int:
        """Sequence number that the next record gets."""
        return self.first + len(self._lines)

    def add(self, kind: str, body: dict[str, Any]) -> None:
        """Append one record, stamped with the monotonic clock; what came `before` it first."""
        self.before()
        self._append(encode(Record(kind, self._boot_id, self.next, self._now_ns(), body)))
        self.pressing = True

    def add_sample(self, table: int, taken_ns: int, values: list[float | None]) -> None:
        """Append a sample (see burnin.agent.holder), which nearly all records are."""
        self._append(encode_sample(self._boot_id, self.next, self._now_ns(), table, taken_ns, values))

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        while self._bytes > self._limit and len(self._lines) > 1:
            self._drop()

    def forget(self, seq: int) -> None:
        """Records up to `seq` are safe with the controller."""
        while self._lines and self.first <= seq:
            self._drop()

    def lines(self, seq: int, most: int = 1 << 16) -> tuple[bytes, int]:
        """Whole lines from `seq` on, about `most` bytes of them, and the sequence number to go on with."""
        seq = max(seq, self.first)
        out = bytearray()
        while seq < self.next and len(out) < most:
            out += self._lines[seq - self.first]
            seq += 1
        return bytes(out), seq

    def _drop(self) -> None:
        self._bytes -= len(self._lines.popleft())
        self.first += 1
