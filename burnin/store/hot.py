"""Ticks on their way to the disk: gathered in memory for some seconds, then one frame per tray.

Frames never straddle a window of WINDOW_MS, so that a window's frames become one block, and a minute's rollup is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from burnin.events import Tick
from burnin.rack.parts import within
from burnin.telemetry.blocks import Group, Key, pack_frame

FLUSH_MS = 10_000
"""Ticks wait at most so long (by their own clock) before they are committed: what a crash may cost."""
WINDOW_MS = 1_800_000
"""A block's stretch, whole minutes. Against 600 s, measured: 9 % fewer bytes a value with rollups, half the CPU."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Some seconds of one tray, packed; all of one window."""

    tray: str
    t0_ms: int
    t1_ms: int
    body: bytes


Columns = tuple[Key, ...]


@dataclass(slots=True)
class _Rows:
    """Ticks of one tray with the same columns, all of one window."""

    window: int
    columns: Columns
    t_ms: list[int] = field(default_factory=list)
    values: list[tuple[float | None, ...]] = field(default_factory=list)


class Hot:
    """The ticks of one run that are not on the disk yet, and what the agents last said is absent."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], dict[Columns, _Rows]] = {}
        self._oldest_ms: int | None = None
        self.newest_ms = 0
        self._said: dict[Key, str] = {}
        self._unsaid: dict[Key, str] = {}
        self._last: dict[str, _Rows] = {}
        self.seen: dict[str, int] = {}
        """Tray -> number of its newest record among what waits."""

    def add(self, tick: Tick) -> None:
        """One tick. Raises ValueError for a tick that contradicts itself."""
        t_ms = round(tick.t_s * 1000)
        if len(tick.values) != len(tick.columns):
            raise ValueError(f"a tick of {tick.tray} has {len(tick.values)} values in {len(tick.columns)} columns")
        last = self._last.get(tick.tray)
        if last is not None and last.columns is tick.columns and last.window == t_ms // WINDOW_MS:
            rows = last
        else:
            rows = self._last[tick.tray] = self._rows(tick, t_ms // WINDOW_MS)
        rows.t_ms.append(t_ms)
        rows.values.append(tick.values)
        if tick.seq is not None:
            self.seen[tick.tray] = tick.seq
        self._oldest_ms = t_ms if self._oldest_ms is None else min(t_ms, self._oldest_ms)
        self.newest_ms = max(t_ms, self.newest_ms)
        for i, reason in tick.absent.items():
            if self._said.get(tick.columns[i]) != reason:
                self._said[tick.columns[i]] = self._unsaid[tick.columns[i]] = reason

    def _rows(self, tick: Tick, window: int) -> _Rows:
        """Where this tick belongs. Hashing hundreds of names is dear, so `add` looks at the tray's last rows first."""
        waiting = self._waiting.setdefault((tick.tray, window), {})
        if tick.columns not in waiting:
            # Readings are looked for by tray (`queries.telemetry`), so a tray speaks for its own parts only.
            if not all(within(part, tick.tray) for part in {part for part, _ in tick.columns}):
                raise ValueError(f"a tick of {tick.tray} has readings of other parts: {tick.columns}")
            waiting[tick.columns] = _Rows(window, tick.columns)
        return waiting[tick.columns]

    @property
    def empty(self) -> bool:
        """True when nothing waits."""
        return not self._waiting and not self._unsaid

    @property
    def due(self) -> bool:
        """True when the oldest tick has waited for FLUSH_MS."""
        return self._oldest_ms is not None and self.newest_ms - self._oldest_ms >= FLUSH_MS

    def frames(self) -> list[Frame]:
        """Everything that waits, packed."""
        out = []
        for (tray, _), window in self._waiting.items():
            groups = [
                Group(np.array(rows.t_ms, np.int64), columns, np.array(rows.values, np.float64).T)
                for columns, rows in window.items()
                if columns
            ]
            if groups:
                moments = [t for rows in window.values() for t in rows.t_ms]
                out.append(Frame(tray, min(moments), max(moments), pack_frame(groups)))
        return out

    def absences(self) -> dict[Key, str]:
        """What was said to be absent since the last `clear`, and why."""
        return self._unsaid

    def clear(self) -> None:
        """Forgets what waited: it is on the disk."""
        self._waiting.clear()
        self._last.clear()
        self._oldest_ms = None
        self._unsaid = {}
        self.seen = {}
