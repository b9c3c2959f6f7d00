"""How the agent slows down for a slow driver, and what it says of its own cost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from burnin.agent.cost import Cost
from burnin.agent.fields import Reading
from burnin.agent.sampler import MOST_STRETCH, Pace, Sample, Sampler, Table

S, MS = 1_000_000_000, 1_000_000


class World:
    """A clock that only reading and waiting move, and one source that takes `takes_ns` a read; it ends at `end_ns`."""

    def __init__(self, takes_ns: int, seconds: float) -> None:
        self.ns, self.cpu, self.takes_ns = 0, 0, takes_ns
        self.end_ns = int(seconds * S)
        self.samples: list[Sample] = []
        self.paced: list[tuple[float, int]] = []
        self.name = "g0"
        self.columns: tuple[tuple[str, str], ...] = (("g0", "a"),)

    def read(self) -> list[Reading]:
        self.ns += self.takes_ns
        self.cpu += self.takes_ns // 10
        return [1.0]

    def wait(self, seconds: float) -> None:
        self.ns += max(1, int(seconds * S))
        if self.ns >= self.end_ns:
            self.sampler.stop()

    def run(self, table: Table) -> None:
        self.sampler = Sampler(
            [table], self.samples.append, lambda: self.ns, self.wait,
            paced=lambda table, took: self.paced.append((table.pace.stretch if table.pace else 0, took)), cpu_ns=lambda: self.cpu,
        )  # fmt: skip
        self.sampler._run(0)

    def gaps(self) -> list[int]:
        taken = [sample.taken_ns for sample in self.samples]
        return [b - a for a, b in itertools.pairwise(taken)]


def test_a_quick_driver_is_read_as_ordered() -> None:
    world = World(takes_ns=200 * MS, seconds=100)
    world.run(Table("fast", [world], S))
    assert set(world.gaps()) == {S} and world.paced == []


def test_a_slow_driver_is_read_less_often_and_it_is_said() -> None:
    world = World(takes_ns=400 * MS, seconds=100)
    table = Table("fast", [world], S)
    world.run(table)
    assert world.gaps()[:2] == [S, S] and set(world.gaps()[3:]) == {2 * S}, "0.4 of 1 s is too much, 0.4 of 2 s is not"
    assert world.paced == [(2.0, 400 * MS)]
    assert table.cpu_ns == len(world.samples) * 40 * MS


def test_how_seldom_is_bounded() -> None:
    for most, bound in ((None, MOST_STRETCH * S), (2 * S, 2 * S), (S // 2, S)):
        world = World(takes_ns=30 * S, seconds=2000)
        table = Table("fast", [world], S, most)
        world.run(table)
        assert table.pace is not None and table.pace.period_ns == bound
        assert len(world.samples) > 50, "it is never given up"


def test_a_driver_that_recovers_is_read_as_ordered_again() -> None:
    world = World(takes_ns=900 * MS, seconds=60)
    table = Table("fast", [world], S)
    world.run(table)
    assert world.gaps()[-1] == 4 * S
    world.takes_ns, world.end_ns = 10 * MS, 200 * S
    world.run(table)
    assert world.gaps()[-1] == S
    assert [stretch for stretch, _ in world.paced] == [2, 4, 2, 1]


def test_one_slow_answer_changes_nothing() -> None:
    pace = Pace(S)
    for took in [900 * MS, 900 * MS, 1 * MS] * 20:
        assert not pace.took(took)


@given(st.lists(st.integers(0, 20 * S), max_size=200), st.integers(50 * MS, 10 * S), st.none() | st.integers(1, 20 * S))
def test_a_period_stays_between_what_was_ordered_and_the_bound(took: list[int], ordered: int, most: int | None) -> None:
    pace = Pace(ordered, most)
    for one in took:
        before = pace.period_ns
        assert pace.took(one) == (pace.period_ns != before)
        assert pace.period_ns in (before, 2 * before, before // 2)
        assert ordered <= pace.period_ns <= max(ordered, MOST_STRETCH * ordered if most is None else most)


def test_a_table_that_is_ordered_begins_at_once_and_ends_by_itself() -> None:
    world = World(takes_ns=1 * MS, seconds=20)
    table = Table("transient", [world], 0)
    assert not table.due(0)
    table.order(200 * MS, 5 * S)
    world.run(table)
    assert len(world.samples) == 25
    assert set(world.gaps()) == {200 * MS}


def test_cost_is_shares_of_a_core_since_the_last_look() -> None:
    now, cpu = [0], [0]
    cost = Cost(lambda: now[0], lambda: cpu[0])
    fast, slow = Table("fast", [], S), Table("slow", [], 5 * S)
    cost.tables = [fast, slow]
    names = [metric for _, metric in cost.columns]
    first = dict(zip(names, cost.read(), strict=True))
    assert first["agent.cpu"] == "missing" and first["nvml.latency"] == "missing" and first["agent.stretch"] == 1
    now[0], cpu[0] = 10 * S, 50 * MS
    fast.cpu_ns, slow.cpu_ns = 20 * MS, 10 * MS
    for took in (1, 2, 30):
        cost.answered(took * MS)
    for _ in range(3):
        assert fast.pace is not None
        fast.pace.took(S)
    second = dict(zip(names, cost.read(), strict=True))
    assert second == {
        "agent.cpu": 0.005, "agent.cpu_fast": 0.002, "agent.cpu_slow": 0.001, "agent.cpu_links": "missing",
        "agent.cpu_transient": "missing", "agent.stretch": 2, "nvml.latency": 2.0, "nvml.latency_max": 30.0,
    }  # fmt: skip
