"""A stage's time begins when it may begin: what is waited for before (a guard that comes up late) is not taken from it."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from burnin.checks import CHECKS
from burnin.events import LogLine, StageBegan, StageEnded, Status
from burnin.rack.load import load_profile
from burnin.rack.schema import Catalogue
from burnin.run import plan
from burnin.run.guard import Guardian
from burnin.run.job import Event, Job, Keeper
from burnin.run.loop import UNLOADED_S, Run
from tests import build

LATE_S, LOAD_S = 12.0, 10.0


class Late:
    """A run's clock and keeper, and a guard that watches everything only after a while."""

    def __init__(self) -> None:
        self.t, self.events = 100.0, list[Event]()

    def now(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        self.t += seconds
        await asyncio.sleep(0)

    async def ready(self) -> None:
        self.t += LATE_S

    def interlocks(self, trays: Any) -> list[Any]:
        return []

    def event(self, event: Event) -> None:
        self.events.append(event)


async def test_a_guard_that_comes_up_late_takes_nothing_from_the_load() -> None:
    """Seen on a machine at a load average of 20: 12 of 14 s were over before the load was ordered, and every GPU was held."""
    late = Late()
    load = {"stage": "load", "phase": "load", "for": f"{LOAD_S:g} s", "settle": "6 s", "load": {}, "steps": ["gpu-load"]}
    suite = build.suite(stages=[load])
    profile, rack = load_profile("gb300-nvl72").model_copy(update={"interlocks": []}), build.rack(1)

    async def knock(part: str) -> None:
        raise AssertionError(part)

    job = Job(
        plan.make(suite, rack, profile, CHECKS), rack, profile, suite,
        Catalogue.model_validate({"metrics": {}, "xids": {}, "signatures": {}}), {}, knock, cast("Keeper", late), late, 0.0,
        dt.date(2026, 11, 21), guard=cast("Guardian", late),
    )  # fmt: skip
    await Run(job)._stage(replace(job.plan.legs[0], steps=()))
    (began,) = (one for one in late.events if isinstance(one, StageBegan))
    (ended,) = (one for one in late.events if isinstance(one, StageEnded))
    assert ended.status is Status.COMPLETE
    assert began.t_s == 100.0 + LATE_S
    assert ended.t_s - began.t_s >= LOAD_S


@pytest.mark.parametrize(
    ("one", "other", "lasts_s"),
    [
        (50.0, 80.0, 79.0 + UNLOADED_S),  # looked at once a second, last seen at 79
        (50.0, 1e9, 1000.0),
        (1e9, 1e9, 1000.0),
        (50.0, None, 1000.0),
        (None, None, 1000.0),
    ],
    ids=["all was cut", "one burns on", "all burn on", "one cannot be heard, and burned when it was", "nobody can be heard"],
)
async def test_a_stage_whose_load_is_gone_everywhere_is_not_waited_for(
    one: float | None, other: float | None, lasts_s: float
) -> None:
    """A management network that was gone for longer than the lease left 47 of 48 hours to wait for, with nothing to show."""
    late = Late()

    class Heard:
        def __init__(self, until_s: float | None) -> None:
            self.ready, self._until_s = until_s is not None, until_s

        @property
        def loaded(self) -> set[str]:
            return {"g0"} if self._until_s is None or late.t - 100.0 < self._until_s else set()

    run = Run.__new__(Run)
    run.job = cast(
        "Job",
        SimpleNamespace(
            sessions={"t00": Heard(one), "t01": Heard(other)}, clock=late, keeper=late, stop=asyncio.Event(), start_s=0.0
        ),
    )
    await run._while_loaded(1100.0)
    assert late.t - 100.0 == pytest.approx(lasts_s)
    said = [event.text for event in late.events if isinstance(event, LogLine)]
    assert said == ([f"nothing is loaded any more: the stage ends {1000 - lasts_s:.0f} s early"] if lasts_s < 1000 else [])


class Tray:
    def __init__(self) -> None:
        self.settled = asyncio.Event()


@pytest.mark.parametrize("silent", [False, True])
async def test_trays_are_attached_to_before_guard_and_services_take_the_machine(silent: bool, monkeypatch: Any) -> None:
    """A run that comes back to 18 loaded trays took 4.2 s for it beside its guard's start and the walks through 36 services."""
    monkeypatch.setattr("burnin.run.loop.FIRST_S", 0.05 if silent else 60.0)
    began = list[str]()

    class Beside:
        def __init__(self, name: str) -> None:
            self.name = name

        async def start(self) -> None:
            began.append(self.name)

        live = start

    trays = {"t00": Tray(), "t01": Tray()}
    job = cast("Job", SimpleNamespace(sessions=trays, guard=Beside("guard"), facility=Beside("services")))
    run = Run.__new__(Run)
    run.job = job
    beside = asyncio.ensure_future(run._beside())
    trays["t00"].settled.set()
    await asyncio.sleep(0)
    assert began == []
    if not silent:
        trays["t01"].settled.set()
    async with asyncio.timeout(10):
        await beside
    assert began == ["guard", "services"], "the guard first; and a tray that does not answer holds up neither"
