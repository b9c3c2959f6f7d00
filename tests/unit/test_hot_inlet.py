"""The suite `hot-inlet`: one rack at two temperatures of its coolant. What one inlet cannot tell, and what is no fault there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from burnin.checks import OFFERS
from burnin.events import Severity
from burnin.rack.load import load_catalogue, load_profile
from burnin.signatures import find
from burnin.suites.load import load_suite
from burnin.suites.schema import Suite
from burnin.telemetry.series import Telemetry
from burnin.twin.batch import simulate
from burnin.twin.faults import Plant

ROWS = load_catalogue().signatures
TOPOLOGY = load_profile("gb300-nvl72").topology


@cache
def suite() -> Suite:
    return load_suite("hot-inlet", checks=OFFERS, metrics=load_catalogue().metrics)


def starts(stage: str) -> float:
    """Seconds from the first load to a stage."""
    at, first, wanted = 0.0, -1.0, -1.0
    for one in suite().stages:
        first = at if one.load is not None and first < 0 else first
        wanted = at if one.stage == stage else wanted
        at += one.duration
    return wanted - first


@cache
def record(*plants: Plant, warmer: float = 10.0) -> Telemetry:
    """A rack whose supply somebody sets warmer just before `idle-hot`."""
    warm = Plant("supply_warm", "cdu", warmer, start_s=starts("idle-hot") - 60)
    return next(simulate("gb300-nvl72", suite(), [11], lambda _: (*plants, warm)))


def named(telemetry: Telemetry) -> set[tuple[str, str]]:
    found = find(telemetry, TOPOLOGY, ROWS, {})
    return {(f.part, f.signature) for f in found if f.severity is not Severity.WATCH}


def test_a_leaky_die_is_told_by_its_power_between_two_inlets() -> None:
    said = named(record(Plant("leaky_die", "t07.g2", 1.5)))
    assert ("t07.g2", "power.leak_pair") in said
    assert {part for part, _ in said} == {"t07.g2"}


def test_a_power_sensor_that_reads_high_is_not_taken_for_leakage() -> None:
    said = named(record(Plant("psensor_gain", "t07.g2", 0.3)))
    assert ("t07.g2", "sensor.gain") in said and ("t07.g2", "power.leak_pair") not in said


def test_two_inlets_of_one_temperature_say_nothing_of_leakage() -> None:
    assert not {one for one in named(record(Plant("leaky_die", "t07.g2", 2.5), warmer=3.0)) if one[1] == "power.leak_pair"}


def test_what_was_made_warm_on_purpose_is_no_fault_and_without_the_word_it_is() -> None:
    healthy = record()
    assert named(healthy) == set()
    unsaid = tuple(replace(s, phase=s.phase.replace("-hot", "-2")) for s in healthy.stretches)
    assert ("cdu", "thermal.rack") in named(replace(healthy, stretches=unsaid))


def test_a_loop_that_warms_among_hot_phases_is_still_seen() -> None:
    drift = Plant("supply_warm", "cdu", 4.5, start_s=starts("full-hot") + 1100)
    assert ("cdu", "thermal.rack") in named(record(drift, warmer=5.0))


def test_a_loop_that_warms_between_full_loads_is_seen_behind_a_locked_one() -> None:
    """Each load is compared with the first of its power, not with whatever came first."""
    drift = Plant("supply_warm", "cdu", 4.5, start_s=starts("full") + 1100)
    assert ("cdu", "thermal.rack") in named(record(drift, warmer=0.0))
