"""When the guard trips: every rule, its limit's both sides, blindness, and once only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from burnin.rack.load import load_profile
from burnin.rack.schema import GUARDED, Guarded, Limit
from burnin.run.guard_rules import ACTIONS, ISOLATE, Seen, Watch, beyond

RULES = load_profile("gb300-nvl72").guard


def seen(name: str, part: str, value: float | str | None, at_s: float = 100.0, why: str = "") -> Seen:
    return Seen(name, part, value, at_s, at_s - 0.2, why)


@pytest.mark.parametrize(
    ("name", "part", "good", "bad", "target"),
    [
        ("gpu_margin", "t07.g2", -2.0, -3.0, "t07.g2"),
        ("tray_lost", "t07", 60.0, 60.5, "t07"),
        ("leak", "t07", "OK", "Warning", "rack"),
        ("leak", "t07", "OK", "Critical", "rack"),
        ("leak", "t07", "OK", "a word that nobody knows", "rack"),
        ("coolant_flow", "cdu", 53.0, 52.9, "rack"),
        ("coolant_supply", "cdu", 47.0, 47.1, "rack"),
        ("coolant_supply", "cdu", 2.0, 1.9, "rack"),
        ("coolant_rise", "cdu", 33.0, 33.1, "rack"),
        ("power_shelves", "p4", 1.0, 2.0, "rack"),
    ],
)
def test_each_thing_trips_beyond_its_limit_and_not_at_it(
    name: str, part: str, good: float | str, bad: float | str, target: str
) -> None:
    watch = Watch(RULES)
    assert watch.see(seen(name, part, good)) == []
    (trip,) = watch.see(seen(name, part, bad, 200.0))
    assert (trip.name, trip.part, trip.target, trip.seen_s) == (name, part, target, 200.0)
    assert trip.latency_s == pytest.approx(0.2)
    assert f"{name} of {part} is " in trip.why
    assert f"limit {RULES[name].limit}" in trip.why
    assert trip.action == ACTIONS[name]
    assert watch.see(seen(name, part, bad, 201.0)) == [], "once"


def test_a_leak_tells_the_operator_to_isolate_and_two_trays_are_the_racks() -> None:
    watch = Watch(RULES)
    (first,) = watch.see(seen("leak", "t03", "Critical"))
    assert ISOLATE in first.action
    assert watch.see(seen("leak", "t03", "Warning")) == []
    second, rack = watch.see(seen("leak", "t05", "Critical", 101.0))
    assert (second.part, rack.name, rack.part, rack.target) == ("t05", "leaking_trays", "rack", "rack")
    assert "2 trays leak (t03, t05)" in rack.why
    assert ISOLATE in rack.action


def test_where_a_leak_ends_only_its_tray_the_second_ends_the_rack() -> None:
    rules = {**RULES, "leak": RULES["leak"].model_copy(update={"ends": "tray"})}
    watch = Watch(rules)
    assert [trip.target for trip in watch.see(seen("leak", "t03", "Critical"))] == ["t03"]
    assert [trip.target for trip in watch.see(seen("leak", "t05", "Critical"))] == ["t05", "rack"]


@pytest.mark.parametrize("name", sorted(set(RULES) - {"leaking_trays", "tray_lost", "bmc_stale"}))
def test_unread_for_too_long_is_not_good(name: str) -> None:
    watch, rule = Watch(RULES), RULES[name]
    assert rule.blind_s is not None
    good: float | str = "OK" if rule.limit.equals else (rule.limit.min or rule.limit.max or 0.0)
    watch.expect(name, ["t01"], 50.0)
    watch.see(seen(name, "t01", good, 100.0))
    watch.see(seen(name, "t01", None, 101.0, "no answer"))
    assert watch.tick(100.0 + rule.blind_s - 0.1) == []
    (trip,) = watch.tick(100.0 + rule.blind_s)
    assert f"{name} of t01 was not read for" in trip.why
    assert "(no answer)" in trip.why
    assert watch.tick(1000.0) == []


def test_what_was_never_read_is_blind_from_when_it_had_to_be() -> None:
    watch = Watch(RULES)
    watch.expect("leak", ["t01", "t02"], 50.0)
    assert watch.tick(59.0) == []
    assert {trip.part for trip in watch.tick(60.0)} == {"t01", "t02"}


def test_what_need_not_be_read_any_more_is_not_missed_and_what_returns_begins_anew() -> None:
    watch = Watch(RULES)
    watch.expect("gpu_margin", ["t01.g0"], 50.0)
    watch.expect("gpu_margin", [], 51.0)
    assert watch.tick(500.0) == []
    watch.expect("gpu_margin", ["t01.g0"], 500.0)
    assert watch.tick(505.0) == []


def test_what_is_waived_or_not_in_the_profile_is_not_watched() -> None:
    watch = Watch({name: rule for name, rule in RULES.items() if name != "leak"})
    watch.expect("leak", ["t01"], 0.0)
    assert watch.see(seen("leak", "t01", "Critical")) == []
    assert watch.tick(1e6) == []


@given(
    st.lists(st.tuples(st.sampled_from(["t00", "t01", "t02"]), st.sampled_from(["OK", "Warning", "Critical", None])), max_size=40)
)
def test_whatever_comes_each_part_trips_once_and_only_when_bad(readings: list[tuple[str, str | None]]) -> None:
    watch = Watch(RULES)
    trips = [trip for i, (part, value) in enumerate(readings) for trip in watch.see(seen("leak", part, value, float(i)))]
    wet = {part for part, value in readings if value in ("Warning", "Critical")}
    assert sorted(trip.part for trip in trips if trip.name == "leak") == sorted(wet)
    assert [trip.part for trip in trips if trip.name == "leaking_trays"] == (["rack"] if len(wet) > 1 else [])


def test_a_guard_needs_a_number() -> None:
    unknown = Limit.model_validate({"max": None, "unit": "Cel", "source": "nobody has published it"})
    with pytest.raises(ValidationError, match="what nobody has published cannot be guarded"):
        Guarded(limit=unknown)
    assert beyond(Limit(max=3, unit="1", source="s"), "a word where a number belongs")


@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72", "vr200-nvl72", "hgx-h200", "h200-1gpu"])
def test_every_profile_says_what_is_guarded(name: str) -> None:
    guard = load_profile(name).guard
    assert set(guard) <= set(GUARDED)
    assert {"gpu_margin", "tray_lost"} <= set(guard)
    assert (set(guard) == set(GUARDED)) is name.endswith("nvl72")


def test_a_bmc_that_repeats_itself_ends_the_rack_and_says_what_it_says() -> None:
    watch, over = Watch(RULES), RULES["bmc_stale"].limit.max
    assert over is not None
    assert watch.see(Seen("bmc_stale", "t03.bmc", over, 200.0, 200.0 - over, "as before")) == []
    (trip,) = watch.see(Seen("bmc_stale", "t03.bmc", over + 5, 205.0, 200.0 - over, "it says 5000 W as before"))
    assert (trip.part, trip.target, trip.latency_s) == ("t03.bmc", "rack", over + 5)
    assert "it says 5000 W as before" in trip.why and "reset its BMC" in trip.action
