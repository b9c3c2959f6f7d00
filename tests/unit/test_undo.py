"""What a check switched off is switched on again, by whatever the run ends, or when it is resumed."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Order
from burnin.errors import TrayError
from burnin.events import LogLine, Status
from burnin.rack.schema import Catalogue
from burnin.run import plan
from burnin.run.job import Event, Job, Keeper, Kept
from burnin.run.steps import Steps
from burnin.run.undo import Undo, pending
from burnin.store import RunStart, open_store
from burnin.suites.schema import Step
from tests import build
from tests.unit.test_check_redundancy import Rig as Shelf

STAGE = {
    "stage": "spare", "phase": "ramp-redundancy", "for": "1 min", "load": {},
    "steps": [{"check": "redundancy", "with": {"part": "p4.u2"}}],
}  # fmt: skip
SUITE = build.suite(stages=[STAGE])


class Bench:
    """A loaded stage with that check, a shelf behind the door, and what was kept, posted and answered in order."""

    def __init__(self, stop_at: str = "", deaf_from: int = 99, undo: Mapping[str, Order] | None = None) -> None:
        """`stop_at`: `wait` or `post`, when the run is stopped; `deaf_from`: the request from which on nothing is answered."""
        self.shelf, self.what, self.kept = Shelf(), list[str](), list[Kept]()
        self.lines = list[LogLine]()
        self._stop_at, self._deaf_from, self._requests, self._flushes = stop_at, deaf_from, 0, 0
        self.full_disk = False
        rack, profile = build.rack(1, allow=["redundancy"]), build.profile(1)
        self.leg = plan.Leg(0, SUITE.stages[0], (Step.model_validate(STAGE["steps"][0]),))  # type: ignore[index]
        self.job = Job(
            plan.Plan((self.leg,), ("t00",), (), True), rack, profile, SUITE,
            Catalogue.model_validate({"metrics": {}, "xids": {}, "signatures": {}}), {}, self._knock, cast("Keeper", self),
            self, 0.0, dt.date(2026, 11, 21), doors={"redfish": self._door}, undo=undo or {},
        )  # fmt: skip
        self.undo = Undo(self.job)

    async def _knock(self, part: str) -> None:
        raise AssertionError(part)

    def now(self) -> float:
        return self.shelf.now_s

    async def sleep(self, seconds: float) -> None:
        self.shelf.now_s += seconds
        if seconds and self._stop_at == "wait":
            self.job.stop.set()
            await asyncio.sleep(0)

    async def _door(self, to: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        self._requests += 1
        if self._requests >= self._deaf_from:
            raise TrayError(f"{to}: no answer")
        if verb != "post":
            return self.shelf._walk(to)
        self.what.append(args["body"]["ResetType"])
        found = self.shelf._post(args)
        if self._stop_at == "post":
            self.job.stop.set()
            await asyncio.sleep(0)
        return found

    def event(self, event: Event) -> None:
        assert isinstance(event, LogLine)
        self.what.append(event.code or "said")
        self.lines.append(event)

    async def flush(self) -> None:
        self.what.append("kept")
        if self.full_disk:
            self.job.stop.set()

    def attempt(self, kept: Kept) -> None:
        self.kept.append(kept)

    async def run(self) -> None:
        await Steps(self.job, undo=self.undo).run(self.leg, ())


async def test_how_to_put_it_back_is_kept_before_and_what_was_put_back_is_done() -> None:
    bench = Bench()
    await bench.run()
    assert bench.what == ["pending", "kept", "ForceOff", "On", "done"]
    assert pending(bench.lines) == {}
    await bench.undo.all()
    assert bench.what[5:] == [], "once"
    assert [kept.status for kept in bench.kept] == [Status.COMPLETE]


@pytest.mark.parametrize("stop_at", ["wait", "post"])
async def test_a_run_that_is_stopped_while_it_is_off_switches_it_on(stop_at: str) -> None:
    bench = Bench(stop_at)
    await bench.run()
    assert bench.what == ["pending", "kept", "ForceOff"]
    assert [kept.status for kept in bench.kept] == [Status.ABORTED]
    assert len(bench.shelf.out) == 1
    await bench.undo.all()
    assert bench.what[3:] == ["On", "done"]
    assert bench.shelf.out == set()


async def test_a_controller_that_was_killed_meanwhile_leaves_it_to_the_next_session(tmp_path: Path) -> None:
    bench = Bench("wait")
    await bench.run()
    with closing(open_store(tmp_path / "runs.db")) as store:
        store.begin_run(RunStart("r1", "R-1", "test-rack", "test", False, True, "ann", "2026-11-21T12:00:00Z", {}))
        store.keep(bench.lines)
        left = pending(store.log("r1"))
    again = Bench(undo=left)
    again.shelf.out = set(bench.shelf.out)
    await again.undo.all()
    assert again.what == ["On", "done"]
    assert again.shelf.out == set()
    assert pending([*bench.lines, *again.lines]) == {}


async def test_what_cannot_be_put_back_is_said_and_stays_pending() -> None:
    bench = Bench("wait", deaf_from=3)
    await bench.run()
    await bench.undo.all()
    assert "p4 is not put back as it was" in bench.lines[-1].text and "do it by hand" in bench.lines[-1].text
    (order,) = pending(bench.lines).values()
    assert (order.to, order.verb, order.via, order.args["body"]) == ("p4", "post", "redfish", {"ResetType": "On"})


async def test_nothing_is_switched_off_where_that_cannot_be_kept() -> None:
    bench = Bench()
    bench.full_disk = True
    await bench.run()
    assert bench.what == ["pending", "kept"]
    assert bench.shelf.posts == []


def test_only_what_does_not_come_back_by_itself_is_noted() -> None:
    order = Order("t00", "load", {})
    assert order.undo is None
    assert replace(order, undo={"a": 1}).undo == {"a": 1}
    assert "redundancy" in CHECKS
