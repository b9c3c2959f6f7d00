"""Where a tray's clock stands: never further off than half the quickest answer, whatever a busy machine does to the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.run.placing import DRIFT, Placing, between

DELAY = st.floats(0.0, 30.0)
ASKED = st.tuples(DELAY, DELAY)
"""Seconds that a question and its answer were under way, or lay somewhere."""


@given(st.floats(-1e7, 1e7), st.lists(st.one_of(DELAY, ASKED), min_size=1, max_size=40), st.floats(0.0, 2.0))
def test_a_place_is_off_by_no_more_than_half_the_quickest_answer(ahead_s: float, events: list[object], pause_s: float) -> None:
    """`ahead_s`: the tray's clock less ours. What is only heard may be late by all of its delay, an answer by half."""
    placing, ours_s, best_s, heard_s = Placing(), 1000.0, float("inf"), float("inf")
    for event in events:
        ours_s += pause_s
        if isinstance(event, tuple):
            sent_s, (there_s, back_s) = ours_s, event
            ours_s += there_s + back_s
            placing.asked(sent_s, ours_s, sent_s + there_s + ahead_s)
            best_s = min(best_s, (there_s + back_s) / 2)
        else:
            assert isinstance(event, float)
            placing.heard(ours_s + event, ours_s + ahead_s)
            heard_s = min(heard_s, event)
            ours_s += event
        off_s = placing.ours_s(5000.0 + ahead_s) - 5000.0
        slack_s = 1e-7 + DRIFT * (ours_s - 1000.0)
        least_s = best_s if best_s < float("inf") else 0.0
        assert -least_s - slack_s <= off_s <= min(best_s, heard_s) + slack_s
        assert placing.within_s(ours_s) <= best_s + slack_s or best_s == float("inf")


def test_a_later_better_answer_counts_and_a_later_worse_one_does_not() -> None:
    placing = Placing()
    placing.heard(11.0, 10.0)
    assert placing.ours_s(50.0) == 51.0, "hello lay there for a second"
    placing.asked(20.0, 20.8, 20.0)
    assert placing.ours_s(50.0) == pytest.approx(50.4)
    placing.asked(21.0, 21.002, 21.001)
    assert placing.ours_s(50.0) == pytest.approx(50.0)
    placing.asked(22.0, 22.8, 22.0)
    assert placing.ours_s(50.0) == pytest.approx(50.0)
    assert placing.within_s(22.8) < 0.002


def test_it_follows_clocks_that_drift_apart() -> None:
    """50 ppm for an hour, asked once a minute."""
    placing = Placing()
    for minute in range(61):
        ours_s = 60.0 * minute
        theirs_s = ours_s * (1 - 50e-6)
        placing.asked(ours_s - 0.001, ours_s + 0.001, theirs_s)
        assert placing.ours_s(theirs_s) == pytest.approx(ours_s, abs=0.007)


@pytest.mark.parametrize("stood_s", [10.0, -10.0])
def test_a_machine_that_stood_still_has_another_clock_afterwards(stood_s: float) -> None:
    """A virtual machine that was paused: the tray's (its clock falls behind), or the controller's."""
    placing = Placing()
    placing.asked(0.0, 0.002, 0.001)
    placing.heard(1.001, 1.0)
    placing.asked(20.0, 20.01, 20.005 - stood_s)
    assert placing.ours_s(30.0 - stood_s) == pytest.approx(30.0, abs=0.005)


def test_the_middle_of_a_question_and_its_answer() -> None:
    tie = between(100.0, 100.5, 1100.25)
    assert (tie.offset_s, tie.within_s) == (1000.0, 0.25)
    assert tie.mono_ns(100.25) == 1100250000000
