"""Load within what rack and loop bear: whatever is asked for, the staircase that comes out is walked step by step."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from burnin.rack.load import list_profiles, load_profile
from burnin.rack.schema import Limit
from burnin.run import ramp
from burnin.run.ramp import Allowed, Unit
from tests import build

KW = st.floats(0.01, 2.0)


@st.composite
def racks(draw: st.DrawFn) -> list[Unit]:
    """Up to 72 GPUs in trays, each with its own idle and full power."""
    trays, gpus = draw(st.integers(1, 18)), draw(st.integers(1, 4))
    names = [f"t{t:02}.g{g}" for t in range(trays) for g in range(gpus)]
    powers = draw(st.lists(st.tuples(KW, KW), min_size=1, max_size=6))
    return [Unit(name, *sorted(powers[n % len(powers)])) for n, name in enumerate(names)]


LIMITS = st.builds(Allowed, st.floats(0.1, 150), st.floats(0.05, 100))


def steepest(changes: list[tuple[float, float]], kw_per_s: float) -> float:
    """The most by which power changes beyond `kw_per_s` x the time between, over every pair of moments: by brute force."""
    levels, total = [], 0.0
    for at, kw in sorted(changes):
        levels.append((at, total))  # just before
        total += kw
        levels.append((at, total))
    return max((abs(b - a) - kw_per_s * (t1 - t0) for i, (t0, a) in enumerate(levels) for t1, b in levels[i:]), default=0.0)


@given(racks(), LIMITS, st.floats(0, 60))
def test_load_never_rises_above_kw_or_faster_than_kw_per_s(units: list[Unit], allow: Allowed, over_s: float) -> None:
    idle = sum(unit.idle_kw for unit in units)
    rise = ramp.rise(units, idle, allow, over_s)
    adds = {unit.part: unit.adds_kw for unit in units}
    total, before = idle, -1.0
    for step in rise.steps:
        total += sum(adds[part] for part in step.parts)
        assert step.kw == pytest.approx(total)
        assert total <= allow.kw + 1e-6
        assert step.at_s >= before
        before = step.at_s
    changes = [(step.at_s, sum(adds[part] for part in step.parts)) for step in rise.steps]
    assert steepest(changes, allow.kw_per_s) <= max(allow.kw_per_s * 1.0, *adds.values()) + 1e-6
    assert sorted([*rise.left_out, *(part for step in rise.steps for part in step.parts)]) == sorted(adds), "each once"
    for part in rise.left_out:
        assert total + max(sum(adds[p] for p in adds if p[:3] == part[:3]), adds[part]) > allow.kw - 1e-6, "none without need"


@given(racks(), LIMITS)
def test_load_falls_as_it_may_rise(units: list[Unit], allow: Allowed) -> None:
    steps = ramp.fall(units, sum(unit.full_kw for unit in units), allow)
    adds = {unit.part: unit.adds_kw for unit in units}
    changes = [(step.at_s, -sum(adds[part] for part in step.parts)) for step in steps]
    assert steepest(changes, allow.kw_per_s) <= max(allow.kw_per_s * 1.0, *adds.values()) + 1e-6
    assert sorted(part for step in steps for part in step.parts) == sorted(adds)
    assert steps[-1].kw == pytest.approx(sum(unit.full_kw - unit.adds_kw for unit in units))


@given(racks(), LIMITS, st.floats(0.2, 20), st.floats(0.1, 0.9))
def test_pulses_stay_within_kw_and_kw_per_s(units: list[Unit], allow: Allowed, period_s: float, duty: float) -> None:
    idle = sum(unit.idle_kw for unit in units)
    try:
        beats = ramp.pulses(units, idle, period_s, duty, allow)
    except ValueError:
        return
    assert set(beats) == {unit.part for unit in units}
    assert idle + sum(unit.adds_kw for unit in units) <= allow.kw + 1e-6
    adds = {unit.part: unit.adds_kw for unit in units}
    assume(len(units) <= 16)  # the walk below looks at every pair of moments
    last = max(beat.first_s for beat in beats.values())
    assume((last + 2 * period_s) / period_s < 40)
    changes = [
        (round(beat.first_s + turn * period_s + at, 6), kw)
        for part, beat in beats.items()
        for turn in range(int((last + 2 * period_s - beat.first_s) / period_s) + 1)
        for at, kw in ((0.0, adds[part]), (duty * period_s, -adds[part]))
    ]
    met: dict[float, float] = {}
    for at, kw in changes:
        met[at] = met.get(at, 0.0) + kw
    assert steepest(list(met.items()), allow.kw_per_s) <= max(allow.kw_per_s * 1.0, *adds.values()) + 1e-4


GB300 = [Unit(f"t{t:02}.g{g}", 0.2, 1.4) for t in range(18) for g in range(4)]


def test_a_rack_comes_up_tray_by_tray_in_five_seconds() -> None:
    """72 GPUs add 86.4 kW: at 20 kW/s the last of 18 steps of 4.8 kW comes after 17 x 0.24 s."""
    rise = ramp.rise(GB300, 14.4, Allowed(107.8, 20))
    assert [len(step.parts) for step in rise.steps] == [4] * 18
    assert rise.steps[-1].at_s == pytest.approx(17 * 0.24)
    assert rise.steps[-1].kw == pytest.approx(100.8)


def test_one_tray_comes_up_gpu_by_gpu_and_so_does_a_rack_whose_trays_are_too_much_at_once() -> None:
    assert [step.parts for step in ramp.rise(GB300[:4], 0.8, Allowed(10, 20)).steps] == [(f"t00.g{g}",) for g in range(4)]
    assert all(len(step.parts) == 1 for step in ramp.rise(GB300, 14.4, Allowed(107.8, 4)).steps)


def test_what_the_supply_does_not_carry_is_left_out() -> None:
    rise = ramp.rise(GB300, 14.4, Allowed(50, 20))
    assert len(rise.left_out) == 72 - 4 * 7, "35.6 kW are left above idle: seven trays of 4.8"
    assert not ramp.rise(GB300, 60, Allowed(50, 20)).steps


def test_a_supply_that_bears_it_is_pulsed_all_at_once_and_a_weaker_one_in_groups() -> None:
    strong = ramp.pulses(GB300, 14.4, 4.0, 0.5, Allowed(107.8, 100))
    assert {(beat.first_s, beat.group) for beat in strong.values()} == {(0.0, 0)}
    weak = ramp.pulses(GB300, 14.4, 4.0, 0.5, Allowed(107.8, 20))
    phases = {beat.group: round(beat.first_s % 4.0, 6) for beat in weak.values()}
    assert len(phases) == len(set(phases.values())) >= 5, "86.4 kW in steps of 20 kW at most"


def test_pulses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ramp.pulses(GB300, 14.4, 4.0, 0.5, Allowed(50, 20))


def test_the_tighter_of_rack_and_loop_counts_and_the_place_is_asked_before_the_profile() -> None:
    profile = load_profile("gb300-nvl72")
    assert ramp.allowed(ramp.limits(profile, build.rack())) == Allowed(127.8 - 20.7, 20)
    weak = {"loop.heat": {"max": 60, "unit": "kW", "source": "the CDU of this bench"}}
    assert ramp.allowed(ramp.limits(profile, build.rack(power=weak))) == Allowed(60 - 20.7, 20)


def test_a_limit_that_nobody_stated_allows_nothing() -> None:
    assert "no limit is known for rack.power" in str(ramp.allowed({}))
    known = dict(load_profile("gb300-nvl72").limits)
    known["loop.heat_rate"] = Limit.model_validate({"max": None, "unit": "kW/s", "source": "nobody"})
    assert "loop.heat_rate" in str(ramp.allowed(known))
    known["loop.heat_rate"] = Limit.model_validate({"max": 0, "unit": "kW/s", "source": "closed"})
    assert "0 kW/s" in str(ramp.allowed(known))


@pytest.mark.parametrize("name", sorted(list_profiles()))
def test_every_shipped_profile_carries_its_own_gpus(name: str) -> None:
    profile = load_profile(name)
    allow = ramp.allowed(profile.limits)
    assert isinstance(allow, Allowed), allow
    count, watts = len(profile.topology.trays()) * profile.topology.gpus_per_tray, profile.gpu.power_limit_w
    assert watts is None or count * watts / 1000 <= allow.kw + 1e-9
