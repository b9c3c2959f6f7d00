"""A load that pulses: the wave by itself, and launches of the shipped kernel that keep to it on the twin's CUDA driver."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent.burn import run as burn
from burnin.agent.lease import Deadlines
from burnin.agent.pulse import Wave, wave
from burnin.agent.talk import Talk
from burnin.twin.emulate import cuda, cuda_core, transfers
from tests.unit.gpu_jobs import Clock, open_gpu
from tests.unit.twin_tray import Bench, bench

MS = 1_000_000


@given(
    st.integers(200, 5000),
    st.integers(10, 90),
    st.integers(0, 10_000),
    st.lists(st.integers(1, 400), max_size=60),
    st.integers(1, 15),
)
def test_nothing_is_launched_outside_of_a_pulse_or_into_its_end(
    period_ms: int, duty: int, first_ms: int, steps_ms: list[int], lasts_ms: int
) -> None:
    on_ms = period_ms * duty // 100
    one, now_ms = Wave(period_ms * MS, on_ms * MS, first_ms * MS), 0
    for step_ms in steps_ms:
        wait = one.wait_ns(now_ms * MS, lasts_ms * MS) // MS
        into = (now_ms - first_ms) % period_ms if now_ms >= first_ms else -1
        may = into >= 0 and into + lasts_ms <= on_ms
        assert (wait == 0) == may
        if wait:
            assert (now_ms + wait - first_ms) % period_ms == 0, "it waits for a rising edge"
        now_ms += step_ms
    passed = max((now_ms - first_ms) // period_ms + 1, 0)
    assert one.edges <= passed
    assert 0 <= one.missed <= passed


def test_an_edge_that_is_late_by_a_tenth_is_missed_and_so_is_one_that_nobody_saw() -> None:
    one = Wave(1000 * MS, 500 * MS, 0)
    for at_ms in (0, 20, 1049, 2051, 5000):
        assert one.wait_ns(at_ms * MS, 10 * MS) == 0
    assert one.counts() == {"edges": 4, "missed": 3, "late_ms": 51.0}, "the third is late, the fourth and fifth are not there"
    one.fell(5507 * MS)
    assert one.counts()["late_ms"] == 51.0
    one.fell(5580 * MS)
    assert one.counts()["late_ms"] == 80.0


@pytest.mark.parametrize(("ready_ms", "first_ms"), [(0, 700), (700, 700), (701, 1700), (1700, 1700), (5000, 5700)])
def test_who_is_ready_late_joins_at_the_next_edge_and_missed_none(ready_ms: int, first_ms: int) -> None:
    one = Wave(1000 * MS, 500 * MS, 700 * MS)
    one.begin(ready_ms * MS)
    assert one.wait_ns(ready_ms * MS, 1 * MS) == (first_ms - ready_ms) * MS
    assert one.wait_ns(first_ms * MS, 1 * MS) == 0
    assert one.counts() == {"edges": 1, "missed": 0, "late_ms": 0.0}


@pytest.mark.parametrize("args", [{"period_ns": 5, "on_ns": 5, "first_ns": 0}, {"period_ns": 0, "on_ns": 0, "first_ns": 0}])
def test_a_wave_that_is_none_is_refused(args: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no pulse"):
        wave(args)


def test_no_wave_is_steady_load() -> None:
    assert wave(None) is None


class Still(Talk):
    """A conversation in the emulated driver's time, which only waiting moves."""

    def __init__(self, out: io.StringIO, deadlines: Deadlines, clock: Clock) -> None:
        super().__init__(-1, out, deadlines, 0, clock.monotonic_ns)
        self._clock = clock

    def pause(self, seconds: float) -> None:
        self._clock.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (cuda, cuda_core, transfers):
        monkeypatch.setattr(module, "time", made)
    return made


def pulsed(tray: Bench, clock: Clock, seconds: float, period_ms: int, on_ms: int) -> tuple[list[dict[str, Any]], float]:
    """What a pulsed load says in its life, and the share of it in which the GPU worked."""
    out, deadlines, begin = io.StringIO(), Deadlines.create(1), clock.monotonic_ns()
    deadlines.set(0, begin + int(seconds * 1e9))
    args = {"kernel": "tensor_burn", "pulse": {"period_ns": period_ms * MS, "on_ns": on_ms * MS, "first_ns": begin + 300 * MS}}
    burn(Still(out, deadlines, clock), *open_gpu(tray, "g0"), args)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    return told, told[-1]["busy_ms"] / 1000 / (seconds - 0.3)


@pytest.mark.parametrize(("period_ms", "on_ms"), [(2000, 1000), (500, 250), (1000, 200)])
def test_a_pulsed_load_works_for_its_duty_and_misses_no_edge(tmp_path: Any, clock: Clock, period_ms: int, on_ms: int) -> None:
    tray = bench(tmp_path)
    tray.run(1)
    told, share = pulsed(tray, clock, 10.3, period_ms, on_ms)
    last = told[-1]
    assert last["edges"] == 10_000 // period_ms
    assert last["missed"] == 0
    assert last["late_ms"] < on_ms / 10
    assert share == pytest.approx(on_ms / period_ms, abs=0.12 * on_ms / period_ms)
    assert last["wrong"] == 0


def test_a_pulsed_load_ends_with_its_deadline_whatever_the_next_edge(tmp_path: Any, clock: Clock) -> None:
    tray = bench(tmp_path)
    tray.run(1)
    begin = clock.monotonic_ns()
    pulsed(tray, clock, 1.0, 60_000, 6_000)
    assert clock.monotonic_ns() - begin < 1_300 * MS
