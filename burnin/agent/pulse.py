"""A square wave of load: when a launch may begin, and how well the edges were kept. Times are CLOCK_MONOTONIC nanoseconds.

A launch begins only if it will have ended before the falling edge. A rising edge that comes late by more than a tenth of the
pulse is missed, and so is one that was never seen.
"""

from __future__ import annotations

from typing import Any

LATE = 10
"""A pulse is missed when less than nine tenths of it are left."""
NAP_S = 0.05
"""Longest wait before the deadline is looked at again."""


class Wave:
    """One GPU's pulses. Raises ValueError for a wave that is none."""

    def __init__(self, period_ns: int, on_ns: int, first_ns: int) -> None:
        if not 0 < on_ns < period_ns:
            raise ValueError(f"{on_ns} ns of {period_ns} ns is no pulse")
        self.period_ns, self.on_ns, self.first_ns = period_ns, on_ns, first_ns
        self.edges, self.missed, self.late_ns = 0, 0, 0
        self._last = -1

    def begin(self, now_ns: int) -> None:
        """The GPU is ready: a wave that began before is joined at its next rising edge."""
        if now_ns > self.first_ns:
            self.first_ns += -(-(now_ns - self.first_ns) // self.period_ns) * self.period_ns

    def wait_ns(self, now_ns: int, lasts_ns: int) -> int:
        """0 when a launch that takes so long may begin now; else how long it must wait for the next rising edge."""
        if now_ns < self.first_ns:
            return self.first_ns - now_ns
        number, since_ns = divmod(now_ns - self.first_ns, self.period_ns)
        if since_ns + lasts_ns > self.on_ns:
            return self.period_ns - since_ns
        if number != self._last:
            self._rose(number, since_ns)
        return 0

    def _rose(self, number: int, since_ns: int) -> None:
        skipped = number - self._last - 1
        late = since_ns > self.on_ns // LATE
        self.edges += 1
        self.missed += skipped + late
        self.late_ns = max(self.late_ns, since_ns)
        self._last = number

    def fell(self, now_ns: int) -> None:
        """The GPU ran dry: by how much the falling edge was overrun counts as late."""
        if self._last >= 0:
            over_ns = now_ns - (self.first_ns + self._last * self.period_ns + self.on_ns)
            self.late_ns = max(self.late_ns, over_ns)

    def counts(self) -> dict[str, Any]:
        """What is told of it: rising edges, missed ones, and the worst lateness of any edge in ms."""
        return {"edges": self.edges, "missed": self.missed, "late_ms": round(self.late_ns / 1e6, 3)}


def wave(args: Any) -> Wave | None:
    """The wave that an order asks for, or None. Raises ValueError, TypeError, KeyError for nonsense."""
    return Wave(int(args["period_ns"]), int(args["on_ns"]), int(args["first_ns"])) if args else None
