"""Minutes instead of seconds: how many, lowest, sum and highest of each minute of a series.

Minutes are counted from the start of the run. Nulls are not counted; a minute without a known reading has no row. Minutes
in which nothing changed are one row together: most counters never move, and their rows would outweigh their readings.

Pure: arrays in, rows out. Series that share their times are rolled up together: numpy's calls cost more than the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from burnin.telemetry.blocks import Key
from burnin.telemetry.series import Floats, Series

MINUTE_S = 60


class Rollup(NamedTuple):
    """`minutes` consecutive minutes from `t0_s` (a multiple of 60): `n` known readings. More than one only if all are equal."""

    t0_s: int
    minutes: int
    n: int
    low: float
    total: float
    high: float

    @property
    def mean(self) -> float:
        """Mean of the known readings."""
        return self.total / self.n


def rollups(series: Mapping[Key, Series]) -> dict[Key, list[Rollup]]:
    """Rows of each series, in order of time."""
    out: dict[Key, list[Rollup]] = {key: [] for key in series}
    together: dict[int, list[Key]] = {}
    for key, one in series.items():
        together.setdefault(id(one.t_s), []).append(key)
    for keys in together.values():
        t_s = series[keys[0]].t_s
        if t_s.size:
            for number, row in _rows(t_s, np.stack([series[key].v for key in keys])):
                out[keys[number]].append(row)
    return out


def _rows(t_s: Floats, values: Floats) -> Iterator[tuple[int, Rollup]]:
    """(which row of `values`, rollup), series by series, in order of time."""
    minutes = (t_s // MINUTE_S).astype(np.int64)
    begin = np.flatnonzero(np.concatenate(([True], minutes[1:] != minutes[:-1])))
    known = ~np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduceat(np.where(known, values, 0.0), begin, axis=1)
    low, high = np.fmin.reduceat(values, begin, axis=1), np.fmax.reduceat(values, begin, axis=1)
    n = np.add.reduceat(known, begin, axis=1, dtype=np.int64)
    # From here on one long list of minutes: all of the first series, all of the second ...
    some = n > 0
    number, minute = (a[some] for a in np.broadcast_arrays(np.arange(len(values))[:, None], minutes[begin]))
    n, low, total, high = n[some], low[some], total[some], high[some]
    if not n.size:
        return
    still = low == high
    follows = (number[1:] == number[:-1]) & (minute[1:] == minute[:-1] + 1)
    joins = follows & still[1:] & still[:-1] & (low[1:] == low[:-1])
    head = np.flatnonzero(np.concatenate(([True], ~joins)))
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(n, head), low[head], np.add.reduceat(total, head), high[head]
    columns = (number[head], minute[head] * MINUTE_S, np.diff(np.append(head, n.size)), *sums)
    for which, *row in zip(*(column.tolist() for column in columns), strict=True):
        yield which, Rollup(*row)
