"""Minutes: counted from the start of the run, nulls left out, still ones together."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.telemetry.rollup import Rollup, rollups
from burnin.telemetry.series import Series

KEY, OTHER = ("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power")


def roll(t_s: Sequence[float], values: Sequence[float]) -> list[Rollup]:
    return rollups({KEY: Series(np.array(t_s, float), np.array(values, float))})[KEY]


def test_a_minute_begins_with_its_second_and_ends_before_the_next() -> None:
    rows = roll([0, 59.999, 60, 119.999, 120], [1, 3, 10, 20, 7])
    assert rows == [Rollup(0, 1, 2, 1, 4, 3), Rollup(60, 1, 2, 10, 30, 20), Rollup(120, 1, 1, 7, 7, 7)]
    assert [row.mean for row in rows] == [2, 15, 7]


def test_nulls_are_not_counted() -> None:
    assert roll([0, 1, 2, 60, 61], [math.nan, 4, 6, math.nan, math.nan]) == [Rollup(0, 1, 2, 4, 10, 6)]


def test_still_minutes_are_one_row_until_something_moves_or_is_missing() -> None:
    t_s = [0, 30, 60, 90, 120, 150, 180, 300, 360]
    values = [5.0, 5, 5, 5, 5, 6, 5, 5, 5]
    assert roll(t_s, values) == [
        Rollup(0, 2, 4, 5, 20, 5),
        Rollup(120, 1, 2, 5, 11, 6),
        Rollup(180, 1, 1, 5, 5, 5),
        Rollup(300, 2, 2, 5, 10, 5),
    ]


def test_two_still_minutes_of_different_values_stay_two() -> None:
    assert roll([0, 60], [5, 6]) == [Rollup(0, 1, 1, 5, 5, 5), Rollup(60, 1, 1, 6, 6, 6)]


def test_one_series_does_not_continue_another() -> None:
    t_s = np.array([0.0, 60.0])
    rows = rollups({KEY: Series(t_s, np.array([math.nan, 5.0])), OTHER: Series(t_s, np.array([5.0, 5.0]))})
    assert rows == {KEY: [Rollup(60, 1, 1, 5, 5, 5)], OTHER: [Rollup(0, 2, 2, 5, 10, 5)]}


def test_nothing_read_has_no_rows() -> None:
    assert roll([], []) == []
    assert roll([1, 2], [math.nan, math.nan]) == []


@given(st.lists(st.tuples(st.integers(0, 400_000), st.one_of(st.just(math.nan), st.integers(0, 2).map(float))), max_size=60))
def test_as_counted_by_hand(readings: list[tuple[int, float]]) -> None:
    readings.sort(key=lambda r: r[0])
    minutes: dict[int, list[float]] = {}
    for t_ms, value in readings:
        if not math.isnan(value):
            minutes.setdefault(t_ms // 60_000 * 60, []).append(value)
    rows = roll([t / 1000 for t, _ in readings], [v for _, v in readings])
    spread = {row.t0_s + 60 * i: row for row in rows for i in range(row.minutes)}
    assert sorted(spread) == sorted(minutes)
    assert sum(row.n for row in rows) == sum(map(len, minutes.values()))
    for t0_s, values in minutes.items():
        row = spread[t0_s]
        assert (row.low, row.high) == (min(values), max(values))
        if row.minutes == 1:
            assert row.n == len(values) and row.total == pytest.approx(sum(values))
        else:
            assert row.low == row.high
