"""Enough or extend: Wald's test of minor events, bounds of hours, and what may be undetected."""

from __future__ import annotations

import numpy as np
import pytest

from burnin.assess import soak
from burnin.rack.load import load_catalogue
from burnin.signatures import enough
from burnin.telemetry.series import Series, Stretch, Telemetry

ROW = load_catalogue().signatures[enough.ENOUGH]


@pytest.mark.parametrize(
    ("hours", "events", "suspicious", "word"),
    [
        (12.0, 0, False, "extend"), (13.0, 0, False, "extend"), (24.0, 0, False, "enough"), (24.0, 2, False, "extend"),
        (24.0, 0, True, "extend"), (24.0, 5, False, "weak"), (48.0, 2, False, "enough"), (72.0, 8, False, "weak"),
        (168.0, 0, True, "enough"),
    ],
)  # fmt: skip
def test_words(hours: float, events: int, suspicious: bool, word: str) -> None:
    """5 events in 24 h and 8 in 72 h are a weak rack's (reference, section 3); 13 h without one accept, but not before 24 h."""
    assert enough.decide(ROW, hours, events, suspicious).word == word


def test_thirteen_hours_without_an_event_leave_only_the_minimum_open() -> None:
    assert len(enough.decide(ROW, 12.0, 0, False).why) == 2
    assert [why for why in enough.decide(ROW, 13.0, 0, False).why if "minor" in why] == []


def test_more_hours_leave_less_undetected_and_never_nothing() -> None:
    values = [enough.undetected(ROW, hours) for hours in (0.0, 1.0, 24.0, 36.0, 48.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.2) and values[-1] > 0.01


def test_the_number_is_printed_as_what_it_is() -> None:
    text = enough.sentence(enough.decide(ROW, 30.0, 0, False), "9.9")
    assert "simulated, twin 9.9, validated on 0 real racks" in text


def test_a_hole_in_the_recording_is_no_time_under_load() -> None:
    """An hour, two days of nothing and an hour more were 50 h, and enough."""
    t = np.concatenate([np.arange(0.0, 3600.0, 10.0), np.arange(0.0, 3600.0, 10.0) + 50 * 3600])
    load = Stretch("load", "load", 0.0, float(t[-1]) + 10.0)
    told = soak.said(Telemetry({("t00.g0", "gpu.temp"): Series(t, t)}, (load,)), load_catalogue(), ())
    assert told["soak"].startswith("extend;") and "2.0 of at least 24 h" in told["soak"]
