"""72 real processes on loopback, the agent's NCCL work in each, the twin's libnccl under them, and the check that drives them.

One rank that hangs, one that dies, one that is 3 % slow, one pair that is broken in one direction: each time the right tray, or
the right ordered pair, after as many rounds of bisection as halving 18 trays takes (5, and 6 for a pair).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from burnin.checks.base import RACK, Answer, Evidence
from burnin.checks.collective import CHECK
from burnin.checks.collective_story import Story, tell
from burnin.events import Measurement, Result
from burnin.twin.emulate.nccl import DIES, HANGS, SUMS_WRONG
from tests.unit.nccl_rack import Ranks
from tests.unit.test_collective import TRAYS, bad, context

SLOW_LIMITS = {"collective.all_reduce.72gpu.busbw": {"min": 900, "unit": "GB/s"}}
ARGS = {"sizes": ["1 GiB"], "repeats": 3, "warmup": 1}


class Bench:
    """The ranks, and the check on them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.healthy, _ = self.check()

    def patience_s(self, **args: Any) -> float:
        """How long a wait may last before it is a hang: more than a healthy rack needs for all of it, on this machine and now."""
        began = time.monotonic()
        self.check(**args)
        return min(0.8 + 1.5 * (time.monotonic() - began), 15)

    def check(self, limits: dict[str, Any] | None = None, patience_s: float = 30, **args: Any) -> tuple[list[Measurement], Story]:
        """The whole check, every round of it."""
        wait = {"timeout_s": patience_s, "start_s": 2 + patience_s / 2}
        told = context(limits, **{**ARGS, **wait, **args})
        answers: list[list[Answer]] = []
        while orders := CHECK.orders(told, answers):
            answers.append(self.ranks.answer(orders))
            assert len(answers) < 40
        return CHECK.judge(told, Evidence(answers=answers)), tell(told, answers)[0]


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    ranks = Ranks(tmp_path_factory.mktemp("rack"), TRAYS)
    try:
        yield Bench(ranks)
    finally:
        ranks.close()


@pytest.fixture
def bench(rack: Bench) -> Iterator[Bench]:
    yield rack
    for state in rack.ranks.states.values():
        for row in state.gpus:
            row["nccl_fault"] = row["slow_ppm"] = row["deaf_to"] = 0


def condemned(got: list[Measurement]) -> list[tuple[str, str]]:
    """What failed; where nothing did, what was said instead."""
    return bad(got) or [(m.part, m.why) for m in got]


def rounds(story: Story) -> int:
    assert story.bisection is not None
    return story.bisection.rounds


def test_a_healthy_rack_shows_the_bandwidth_of_its_model_and_exact_sums(bench: Bench) -> None:
    assert {m.result for m in bench.healthy} == {Result.PASS}
    (speed,) = (m for m in bench.healthy if m.name == "collective.busbw")
    assert speed.value == pytest.approx(920, rel=0.01)
    assert "72 GPUs, NCCL 2.28.7" in speed.why


@pytest.mark.long
def test_a_rank_that_hangs_is_traced_to_its_tray(bench: Bench) -> None:
    patience_s = bench.patience_s()
    bench.ranks.row("t07.g2")["nccl_fault"] = HANGS
    got, story = bench.check(patience_s=patience_s)
    assert condemned(got) == [("t07", "collective.completed")]
    assert rounds(story) <= 5
    (whole,) = (m for m in got if (m.part, m.name) == (RACK, "collective.completed"))
    assert whole.result is Result.UNKNOWN
    assert "t07.g2: cut by a local limit: time" in whole.why, "the dissenting rank is named"


@pytest.mark.long
def test_a_rank_that_dies_is_traced_to_its_tray(bench: Bench) -> None:
    bench.ranks.row("t00.g0")["nccl_fault"] = DIES
    got, story = bench.check()
    assert condemned(got) == [("t00", "collective.completed")], "though the unique id was its own"
    assert rounds(story) <= 5


def test_a_gpu_three_percent_slow_is_traced_to_its_tray(bench: Bench) -> None:
    bench.ranks.row("t16.g3")["slow_ppm"] = 30_000
    got, story = bench.check(SLOW_LIMITS)
    assert condemned(got) == [(RACK, "collective.busbw"), ("t16", "collective.slower")]
    assert next(m.value for m in got if m.name == "collective.slower") == pytest.approx(0.03, abs=0.002)
    assert rounds(story) <= 5


@pytest.mark.long
def test_a_gpu_that_sums_wrong_is_traced_to_its_tray(bench: Bench) -> None:
    bench.ranks.row("t11.g1")["nccl_fault"] = SUMS_WRONG
    got, story = bench.check()
    assert condemned(got) == [(RACK, "collective.wrong"), ("t11", "collective.wrong")]
    assert rounds(story) <= 5


@pytest.mark.long
def test_a_pair_broken_in_one_direction_is_named_in_its_order_and_neither_end_is_blamed(bench: Bench) -> None:
    patience_s = bench.patience_s(op="alltoall", repeats=1)
    bench.ranks.row("t13.g2")["deaf_to"] = 1 + 4 * 4 + 1
    got, story = bench.check(patience_s=patience_s, op="alltoall", repeats=1)
    assert condemned(got) == [(RACK, "collective.pairs")]
    (pair,) = (m for m in got if m.name == "collective.pairs")
    assert "t04.g1 > t13.g2" in pair.why
    assert "t13.g2 > t04.g1" not in pair.why
    assert {m.part for m in got} == {RACK}
    assert rounds(story) <= 6


@pytest.mark.long
def test_over_the_network_the_same_pair_is_well(bench: Bench) -> None:
    bench.ranks.row("t13.g2")["deaf_to"] = 1 + 4 * 4 + 1
    got, _ = bench.check(
        {"collective.alltoall.72gpu.net.busbw": {"min": 40, "unit": "GB/s"}}, op="alltoall", repeats=1, nvlink=False
    )
    assert {m.result for m in got} == {Result.PASS}, "so it is the NVLink side that is broken"
