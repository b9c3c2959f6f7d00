"""The snapshot after a run waits for a driver that still names a process that is gone, and not for anything else."""

from __future__ import annotations

import asyncio
import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Order
from burnin.run import plan
from burnin.run.job import Job
from burnin.run.left import FORGET_S, more_processes, snapshot
from burnin.run.loop import Run
from tests import build
from tests.unit.test_run_parts import FakeClock

ORDER = Order("t00", "state")


def says(*processes: int | None, ok: bool = True, **more: Any) -> Answer:
    body = {f"g{i}": {"processes": count, "power_limit_w": 1400.0, **more} for i, count in enumerate(processes)}
    return Answer(ORDER, ok, body if ok else "link lost")


class Tray:
    """Answers in turn, the last one for ever."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies, self.asked, self.ready = list(bodies), 0, True

    async def order(self, verb: str, timeout_s: float = 20.0, **args: Any) -> dict[str, Any]:
        self.asked += 1
        return self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (says(0, 0), says(0, 0), False),
        (says(0, 0), says(0, 1), True),
        (says(1, 0), says(0, 0), False),
        (says(None, 0), says(None, 0), False),
        (says(0, 0), says(0, 0, power_limit_w=900.0), False),
        (says(0), says(ok=False), False),
        (says(ok=False), says(3), False),
        (says(0), says(), False),
    ],
)
def test_more_processes_are_told_from_everything_else(before: Answer, after: Answer, more: bool) -> None:
    assert more_processes(before, after) is more


@pytest.mark.parametrize("another", [False, True])
async def test_a_tray_that_is_another_one_now_is_compared_with_itself(another: bool) -> None:
    """Who goes on with a run compares with how it was found at first, but for a tray or GPU that was replaced meanwhile."""
    was, now, found = says(0, power_limit_w=1200.0), says(0, power_limit_w=1400.0), list[Any]()
    tray = Tray({"host": {}}, now.body)
    keeper = SimpleNamespace(identity=lambda part, body: another, found=lambda part, answer: found.append(answer.body))
    profile, rack = build.profile(1), build.rack(1)
    whole = plan.make(build.suite(), rack, profile, CHECKS)
    job = Job(
        whole, rack, profile, build.suite(), build.catalogue(), cast("Any", {"t00": tray}), cast("Any", None),
        cast("Any", keeper), FakeClock(), 100.0, dt.date(2026, 11, 21), as_found={"t00": was},
    )  # fmt: skip
    run = Run(job)
    await run._meet("t00")
    assert [answer.body for answer in run._states["t00"]] == [now.body if another else was.body]
    assert found == ([now.body] if another else [])


async def after(tray: Tray, before: Answer | None) -> tuple[Answer, float]:
    clock = FakeClock()
    job = cast("Job", SimpleNamespace(clock=clock, sessions={"t00": tray}))
    asked = asyncio.ensure_future(snapshot(job, "t00", before))
    while not asked.done():
        await clock.pass_time(0.25)
    return asked.result(), clock.now() - 100.0


async def test_a_driver_forgets_a_process_in_a_moment() -> None:
    answer, took = await after(Tray(says(1).body, says(1).body, says(0).body), says(0))
    assert answer.body["g0"]["processes"] == 0
    assert 1.0 <= took <= 1.5


async def test_who_stays_is_told() -> None:
    answer, took = await after(Tray(says(1).body), says(0))
    assert answer.body["g0"]["processes"] == 1
    assert FORGET_S <= took <= FORGET_S + 1


async def test_the_first_look_and_other_changes_wait_for_nothing() -> None:
    for before, body in ((None, says(4).body), (says(0), says(0, power_limit_w=900.0).body)):
        tray = Tray(body)
        answer, _ = await after(tray, before)
        assert (answer.body, tray.asked) == (body, 1)
