"""Rounds as a run keeps them are judged from the database as they were asked: to whom, through which door, with what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from burnin.assess.case import gather
from burnin.checks import CHECKS
from burnin.checks.base import Answer, Evidence, Order
from burnin.events import Result, Status
from burnin.run.job import Kept
from burnin.run.keep import Keep
from burnin.store import RunStart, open_store
from tests import build
from tests.unit.nvos_rack import Switches, context


async def _kept(where: Path, kept: Kept) -> tuple[tuple[Answer, ...], ...]:
    """The attempt's rounds, through the run's keeper and out of the database again."""
    dump: Any = {"mode": "json", "by_alias": True}
    config = {
        "rack": build.rack(2).model_dump(**dump), "profile": build.profile(2).model_dump(**dump, exclude_unset=True),
        "suite": build.suite().model_dump(**dump), "catalogue": build.catalogue().model_dump(**dump, exclude_unset=True),
        "plan": {"trays": ["t00", "t01", "s0"], "only": []}, "versions": {"burnin": "test"},
    }  # fmt: skip
    store = open_store(where / "burnin.db")
    store.begin_run(RunStart("r1", "R-1", "test-rack", "test", False, True, "me", "2026-11-21T10:00:00Z", config))
    keep = Keep(store, "r1", {}, asyncio.Event(), ())
    keep.attempt(kept)
    await keep.close()
    case = gather(store, "r1")
    store.close()
    return case.answers[kept.stage, kept.check, kept.part, kept.attempt]


def _attempt(check: str, part: str, answers: tuple[tuple[Answer, ...], ...]) -> Kept:
    return Kept("load", check, part, 1, Status.COMPLETE, 1.0, 2.0, "", answers)


def test_every_door_and_question_is_kept_with_its_answer(tmp_path: Path) -> None:
    orders = (
        Order("rack", "wait", {"round": "look", "cycle": 0, "group": 0, "wait_s": 20.0}, "clock"),
        Order("t00", "script", {"script": "true"}, "shell"),
        Order("t00.bmc", "walk", {"from": ["/redfish/v1/Chassis"], "depth": 4}, "redfish"),
        Order("t01", "identify"),
    )
    given = tuple(tuple(Answer(order, ok, {"n": n}) for n, order in enumerate(orders)) for ok in (True, False))
    kept = asyncio.run(_kept(tmp_path, _attempt("boot-cycle", "rack", given)))
    assert [[(a.order.to, a.order.verb, a.order.args, a.order.via, a.ok, a.body) for a in one] for one in kept] == [
        [(a.order.to, a.order.verb, a.order.args, a.order.via, a.ok, a.body) for a in one] for one in given
    ]


def test_a_switch_tray_that_was_asked_is_judged_from_the_database(tmp_path: Path) -> None:
    rack, at = Switches(tmp_path / "twin"), context("switch", "s0")
    answers = (tuple(rack.ask(order) for order in CHECKS["switch"].orders(at, [])),)
    kept = asyncio.run(_kept(tmp_path, _attempt("switch", "s0", answers)))
    found = CHECKS["switch"].judge(at, Evidence(answers=kept, stretch=build.LOAD))
    assert found and {one.result for one in found} == {Result.PASS}
