"""Bisection: every single tray and every pair of trays is found among healthy ones, in a stated number of rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.checks.bisection import Bisection, Trays

TRAYS = tuple(f"t{i:02}" for i in range(18))


def search(trays: Trays, goes_bad: Callable[[Trays], bool], good: list[Trays] | None = None) -> Bisection:
    """Bisect a rack in which `goes_bad` says how a group behaves; every round must be one that a rack can do."""
    found = Bisection.of([trays], good or [])
    while trials := found.trials():
        used = [tray for trial in trials for tray in trial.trays]
        assert len(used) == len(set(used)), "a tray cannot be in two groups at once"
        found.learn(trials, [goes_bad(trial.trays) for trial in trials])
        assert found.rounds < 20
    return found


@pytest.mark.parametrize("bad", TRAYS)
def test_a_bad_tray_of_eighteen_is_alone_after_five_rounds(bad: str) -> None:
    found = search(TRAYS, lambda group: bad in group)
    assert (found.culprits, found.unexplained) == ([(bad,)], [])
    assert 4 <= found.rounds <= math.ceil(math.log2(18))
    assert found.good == set(TRAYS) - {bad}


@pytest.mark.parametrize("bad", list(combinations(TRAYS, 2)), ids="-".join)
def test_a_bad_pair_of_eighteen_is_found_after_six_rounds_and_neither_end_is_blamed_alone(bad: Trays) -> None:
    found = search(TRAYS, lambda group: set(bad) <= set(group))
    assert [set(culprit) for culprit in found.culprits] == [set(bad)]
    assert found.unexplained == []
    assert found.rounds <= math.ceil(math.log2(18)) + 1
    assert found.good.isdisjoint(bad)


@given(st.sets(st.sampled_from(TRAYS), min_size=2, max_size=5))
def test_several_bad_trays_are_all_named_and_nobody_else(bad: set[str]) -> None:
    found = search(TRAYS, lambda group: not bad.isdisjoint(group))
    assert {culprit[0] for culprit in found.culprits} == bad
    assert all(len(culprit) == 1 for culprit in found.culprits)
    assert found.rounds <= math.ceil(math.log2(18))


@given(st.integers(1, 18), st.data())
def test_any_number_of_trays(count: int, data: st.DataObject) -> None:
    trays = TRAYS[:count]
    bad = data.draw(st.sampled_from(trays))
    found = search(trays, lambda group: bad in group, [TRAYS[count:]])
    assert found.culprits == [(bad,)]
    assert found.rounds == 0 if count == 1 else found.rounds <= math.ceil(math.log2(count))


def test_what_does_not_go_bad_again_names_nobody() -> None:
    found = search(TRAYS, lambda group: False)
    assert (found.culprits, found.unexplained) == ([], [TRAYS])


def test_two_bad_groups_are_searched_at_once() -> None:
    found = Bisection.of([TRAYS[0:4], TRAYS[4:8]], [TRAYS[8:]])
    while trials := found.trials():
        found.learn(trials, [not {"t01", "t06"}.isdisjoint(trial.trays) for trial in trials])
    assert (sorted(found.culprits), found.rounds) == ([("t01",), ("t06",)], 2)


def test_groups_of_one_round_are_equally_large_once_good_trays_are_known() -> None:
    found = Bisection.of([TRAYS], [])
    first = found.trials()
    assert [len(trial.trays) for trial in first] == [9, 9]
    found.learn(first, [True, False])
    second = found.trials()
    assert [(len(trial.core), len(trial.trays)) for trial in second] == [(5, 5), (4, 5)]
    assert second[1].trays[4] in first[1].trays


def test_parts_that_meet_crosswise_are_equally_large() -> None:
    found = Bisection.of([TRAYS], [])
    found.learn(found.trials(), [False, False])
    assert [len(trial.trays) for trial in found.trials()] == [9, 9]
    found.learn(found.trials(), [False, False])
    assert sorted(len(trial.trays) for trial in found.trials()) == [4, 4, 5, 5]


def test_a_last_tray_is_never_tried_without_a_partner() -> None:
    found = Bisection.of([TRAYS[:2]], [TRAYS[2:]])
    assert [(trial.core, len(trial.trays)) for trial in found.trials()] == [(("t00",), 2), (("t01",), 2)]
