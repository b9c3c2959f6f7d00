"""A stage's steps: who is asked, in which order, and what is kept of answers that do not come."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from collections.abc import Sequence
from typing import Any, Literal, cast

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order
from burnin.errors import TrayError
from burnin.events import Measurement, Status
from burnin.rack.schema import Catalogue
from burnin.run import plan
from burnin.run.job import Job, Keeper, Kept
from burnin.run.steps import MOST_ROUNDS, Steps
from burnin.run.tray import TraySession
from burnin.suites.schema import Step
from tests import build


class Tray:
    """A tray as a session shows it: what was ordered, and what it answers (a sentence is a refusal)."""

    def __init__(self, answer: Any = None, ready: bool = True) -> None:
        self.ready, self.why, self.answer = ready, "" if ready else "it is dark", answer
        self.ordered: list[tuple[str, dict[str, Any]]] = []

    async def order(self, verb: str, timeout_s: float, **args: Any) -> Any:
        self.ordered.append((verb, args))
        await asyncio.sleep(0)
        if isinstance(self.answer, str):
            raise TrayError(self.answer)
        return {gpu: {"ok": 1} for gpu in args.get("gpus", ())}


class Clock:
    def now(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def nothing(context: Context, evidence: Evidence) -> list[Measurement]:
    return []


class Bench:
    """One stage of `checks` on these trays; `run` gives what was kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trays: dict[str, Tray], *checks: Check) -> None:
        self.trays, self.kept = trays, list[Kept]()
        for check in checks:
            monkeypatch.setitem(CHECKS, check.name, check)
        steps = tuple(Step.model_validate({"check": check.name}) for check in checks)
        stage = build.suite().stages[0]
        self.leg = plan.Leg(0, stage, steps)
        self.job = Job(
            plan.Plan((self.leg,), tuple(trays), (), True), build.rack(18), build.profile(), build.suite(),
            Catalogue.model_validate({"metrics": {}, "xids": {}, "signatures": {}}),
            cast("dict[str, TraySession]", trays), self._knock, cast("Keeper", self), Clock(), 0.0, dt.date(2026, 11, 21),
        )  # fmt: skip

    async def _knock(self, part: str) -> None:
        raise AssertionError(part)

    def attempt(self, kept: Kept) -> None:
        self.kept.append(kept)

    def run(self, loadable: Sequence[str] = ()) -> list[Kept]:
        asyncio.run(Steps(self.job).run(self.leg, loadable))
        return self.kept


def asks(*rounds: list[Order]) -> Any:
    return lambda context, answers: rounds[len(answers)] if len(answers) < len(rounds) else []


def rack_wide(orders: Any) -> Check:
    return Check("c", "", (), nothing, orders, scope="rack", heats=True)


WORK = [Order(tray, "work", {"gpus": ["g0", "g1"]}) for tray in ("t00", "t01")]


def test_a_check_of_the_rack_is_done_once_and_hears_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
        seen.append(context.trays)
        return [] if len(answers) == 2 else WORK

    bench = Bench(monkeypatch, {"t00": Tray(), "t01": Tray("it hangs")}, rack_wide(orders))
    (kept,) = bench.run(["t00.g0", "t00.g1", "t01.g0", "t01.g1"])
    assert (kept.part, kept.status, kept.why) == (RACK, Status.COMPLETE, "")
    assert [[(a.order.to, a.ok) for a in answers] for answers in kept.answers] == [[("t00", True), ("t01", False)]] * 2
    assert seen[0] == ("t00", "t01")


def test_a_check_of_the_rack_that_nobody_answers_is_an_error_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"t00": Tray("no"), "t01": Tray("no")}, rack_wide(asks(WORK)))
    kept = bench.run(["t00.g0", "t01.g0"])
    assert [(k.attempt, k.status, k.why) for k in kept] == [(1, Status.ERROR, "no"), (2, Status.ERROR, "no")][: len(kept)]
    assert len(kept) == bench.job.suite.retries + 1


class Forgetful(Tray):
    """Answers its first question only."""

    async def order(self, verb: str, timeout_s: float, **args: Any) -> Any:
        self.answer = "no" if self.ordered else None
        return await super().order(verb, timeout_s, **args)


@pytest.mark.parametrize("scope", ["tray", "rack"])
def test_what_was_measured_is_not_measured_again_because_a_later_question_failed(
    monkeypatch: pytest.MonkeyPatch, scope: Literal["tray", "rack"]
) -> None:
    """A second attempt would be judged instead of the first, and could launder what the first one saw."""
    ask = asks([Order("t00", "identify")], [Order("t00", "identify")])
    bench = Bench(monkeypatch, {"t00": Forgetful()}, Check("c", "", (), nothing, ask, scope=scope))
    (kept,) = bench.run()
    assert [[answer.ok for answer in answers] for answers in kept.answers] == [[True], [False]]
    assert kept.status is (Status.COMPLETE if scope == "rack" else Status.ERROR), "the rack's check judges the silence itself"


def test_a_check_of_a_tray_ends_with_the_first_question_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Check("c", "", (), nothing, lambda c, a: [Order(c.tray, "identify")] if len(a) < 3 else [])
    bench = Bench(monkeypatch, {"t00": Tray(), "t01": Tray("no"), "t02": Tray(ready=False)}, ask)
    kept = bench.run()
    last = {k.part: (k.status, len(k.answers), k.why) for k in kept}
    assert last == {"t00": (Status.COMPLETE, 3, ""), "t01": (Status.ERROR, 1, "no"), "t02": (Status.ERROR, 0, "it is dark")}
    assert sum(k.part == "t02" for k in kept) == 1, "who is not there is not asked again"


def test_a_question_goes_through_its_door_and_needs_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BMC and a switch tray answer while the tray's own system does not."""
    asked: list[tuple[str, str, str]] = []

    def door(name: str) -> Any:
        async def order(part: str, verb: str, args: Any, timeout_s: float) -> dict[str, str]:
            asked.append((name, part, verb))
            if part == "s1":
                raise TrayError("s1: no answer")
            return {"by": name}

        return order

    bmc = Check("bmc", "", (), nothing, asks([Order("t00.bmc", "get", {"paths": ["/"]}, via="redfish")]), scope="rack")
    port = Check("port", "", (), nothing, lambda c, a: [] if a else [Order(c.tray, "script", {}, via="shell")], scope="switch")
    bench = Bench(monkeypatch, {"t00": Tray(ready=False)}, bmc, port)
    bench.job.plan = dataclasses.replace(bench.job.plan, switches=("s0", "s1"))
    bench.job.doors = {"redfish": door("redfish"), "shell": door("shell")}
    kept = {(k.check, k.part): (k.status, k.why) for k in bench.run()}
    assert kept == {
        ("bmc", RACK): (Status.COMPLETE, ""),
        ("port", "s0"): (Status.COMPLETE, ""),
        ("port", "s1"): (Status.ERROR, "s1: no answer"),
    }
    assert set(asked) == {("redfish", "t00.bmc", "get"), ("shell", "s0", "script"), ("shell", "s1", "script")}


def test_what_interlocks_keep_from_load_is_not_sent_and_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"t00": Tray(), "t01": Tray()}, rack_wide(asks(WORK)))
    (kept,) = bench.run(["t00.g1"])
    assert bench.trays["t00"].ordered == [("work", {"gpus": ["g1"]})]
    assert bench.trays["t01"].ordered == []
    refused = {"failed": "an interlock keeps it from being loaded"}
    assert [answer.body for answer in kept.answers[0]] == [{"g0": refused, "g1": {"ok": 1}}, {"g0": refused, "g1": refused}]


def test_what_loads_gpus_comes_one_after_the_other_when_the_rest_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(name: str, heats: bool) -> Check:
        return Check(name, "", (), nothing, asks([Order("t00", name)], [Order("t00", name)]), scope="rack", heats=heats)

    bench = Bench(monkeypatch, {"t00": Tray()}, one("hot", True), one("calm", False), one("hotter", True))
    assert [kept.check for kept in bench.run()] == ["calm", "hot", "hotter"]
    assert [verb for verb, _ in bench.trays["t00"].ordered] == ["calm"] * 2 + ["hot"] * 2 + ["hotter"] * 2


def test_a_check_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.monotonic()
    bench = Bench(monkeypatch, {"t00": Tray()}, Check("c", "", (), nothing, lambda c, a: [Order("t00", "identify")]))
    kept = bench.run()
    assert {(k.status, k.why) for k in kept} == {(Status.ERROR, f"c did not end within {MOST_ROUNDS} rounds")}
    assert time.monotonic() - begin < 20


def test_a_run_that_is_stopped_asks_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"t00": Tray()}, Check("c", "", (), nothing, asks([Order("t00", "identify")])))
    bench.job.stop.set()
    assert [(k.status, k.why) for k in bench.run()] == [(Status.ABORTED, "the run was stopped")]
    assert bench.trays["t00"].ordered == []


def test_a_question_that_takes_long_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"t00": Tray()}, rack_wide(asks([Order("t00", "identify")], [Order("t00", "identify")])))

    async def stops(verb: str, timeout_s: float, **args: Any) -> Any:
        bench.job.stop.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(bench.trays["t00"], "order", stops)
    (kept,) = bench.run()
    assert (kept.status, [a.body for a in kept.answers[0]]) == (Status.ABORTED, ["the run was stopped"])
