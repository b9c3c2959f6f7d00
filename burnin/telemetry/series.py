"""A run's readings in memory: one series per (part, metric), and the stretches of time it went through.

Pure: arrays in, numbers out. A null reading is NaN; a series that was never read is empty. Times are seconds since the
run began. `burnin.store` fills a Telemetry from the database, `burnin judge DIR` from files; judging cannot tell which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Readings of one metric of one part: `t_s` (seconds, rising) and `v` (NaN = null), of equal length."""

    t_s: Floats
    v: Floats

    def between(self, t0_s: float, t1_s: float) -> Series:
        """The part with t0 <= t < t1."""
        a, b = np.searchsorted(self.t_s, (t0_s, t1_s))
        return Series(self.t_s[a:b], self.v[a:b])

    @property
    def present(self) -> int:
        """How many readings are not null."""
        return int(np.count_nonzero(~np.isnan(self.v)))

    def known(self) -> Floats:
        """The values that are not null."""
        known: Floats = self.v[~np.isnan(self.v)]
        return known

    def mean(self) -> float:
        """Mean of the known values; NaN when there are none."""
        known = self.known()
        return float(known.mean()) if known.size else math.nan

    def median(self) -> float:
        """Median of the known values; NaN when there are none."""
        known = self.known()
        return float(np.median(known)) if known.size else math.nan

    def lowest(self) -> float:
        """Smallest known value; NaN when there are none."""
        known = self.known()
        return float(known.min()) if known.size else math.nan

    def highest(self) -> float:
        """Largest known value; NaN when there are none."""
        known = self.known()
        return float(known.max()) if known.size else math.nan

    def growth(self) -> float:
        """By how much a counter grew. A counter that falls was reset: what it shows afterwards counts on top.

        NaN with fewer than two known values: one reading is a baseline, not a growth.
        """
        known = self.known()
        if known.size < 2:
            return math.nan
        steps = np.diff(known)
        return float(np.where(steps >= 0, steps, known[1:]).sum())

    def rate(self) -> float:
        """By how much a counter grew, per second from its first known value to its last; NaN with fewer than two."""
        times = self.t_s[~np.isnan(self.v)]
        span = float(times[-1] - times[0]) if times.size > 1 else 0.0
        return self.growth() / span if span > 0 else math.nan


EMPTY = Series(np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Stretch:
    """One contiguous stretch of a phase: `settle_s` at its start is left out of statistics."""

    stage: str
    phase: str
    t0_s: float
    t1_s: float
    settle_s: float = 0.0
    own: tuple[tuple[str, float, float], ...] = ()
    """(tray, t0_s, t1_s) of trays that went through it at another time: tested again after the others."""

    @property
    def judged(self) -> tuple[float, float]:
        """The window that statistics use."""
        return self.t0_s + self.settle_s, self.t1_s

    def at(self, part: str) -> tuple[float, float]:
        """When the tray of `part` went through it."""
        tray = part.split(".", 1)[0]
        return next(((t0_s, t1_s) for name, t0_s, t1_s in self.own if name == tray), (self.t0_s, self.t1_s))


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Everything that was read in one run."""

    series: Mapping[tuple[str, str], Series]
    stretches: tuple[Stretch, ...] = ()
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Why a metric of a part is null, as the agent last said it (not_supported, hung ...)."""
    _parts: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, part: str, metric: str) -> Series:
        """The series, or an empty one."""
        return self.series.get((part, metric), EMPTY)

    def parts(self, metric: str) -> list[str]:
        """Parts that have at least one reading of `metric`, sorted."""
        if not self._parts:
            found: dict[str, list[str]] = {}
            read: dict[int, bool] = {}  # many parts may share one series
            for (part, name), one in self.series.items():
                if id(one) not in read:
                    read[id(one)] = bool(one.v.size and (one.v[0] == one.v[0] or one.present))
                if read[id(one)]:
                    found.setdefault(name, []).append(part)
            self._parts.update({name: sorted(parts) for name, parts in found.items()})
        return list(self._parts.get(metric, ()))

    def phase(self, prefix: str) -> list[Stretch]:
        """Stretches whose phase begins so: load, load-2, load@1500."""
        return [s for s in self.stretches if s.phase.startswith(prefix)]

    def window(self, part: str, metric: str, stretch: Stretch) -> Series:
        """One series within the judged window of one stretch.

        Of a tray that went through it at another time the readings are placed beside those of the others: parts are
        compared second by second of the same stage.
        """
        t0_s, t1_s = stretch.at(part)
        found = self.of(part, metric).between(t0_s + stretch.settle_s, t1_s)
        return found if t0_s == stretch.t0_s else Series(found.t_s - (t0_s - stretch.t0_s), found.v)


def gather(rows: Iterable[tuple[str, str, float, float | None]]) -> dict[tuple[str, str], Series]:
    """(part, metric, time, value or None) in any order -> series, sorted by time."""
    times: dict[tuple[str, str], list[float]] = {}
    values: dict[tuple[str, str], list[float]] = {}
    for part, metric, t, v in rows:
        times.setdefault((part, metric), []).append(t)
        values.setdefault((part, metric), []).append(math.nan if v is None else v)
    out = {}
    for key, t_list in times.items():
        t_array, v_array = np.asarray(t_list, float), np.asarray(values[key], float)
        order = np.argsort(t_array, kind="stable")
        out[key] = Series(t_array[order], v_array[order])
    return out
