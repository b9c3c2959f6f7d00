"""Stages that go on without controller and guard: who may, for how long, and what the run that comes back makes of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from burnin import wire
from burnin.agent import host
from burnin.agent.holder import Holder
from burnin.checks import CHECKS
from burnin.events import LogLine, StageBegan, StageEnded, Status
from burnin.rack.schema import Catalogue
from burnin.run import plan
from burnin.run.detached import Detaching
from burnin.run.guard import Guardian
from burnin.run.job import Event, Job, Keeper, Left
from burnin.run.leases import UNMINDED_S, UNNAMED, Leases
from burnin.run.resume import left_in
from burnin.run.tray import TraySession
from burnin.store import RunStart, Session, Store, open_store
from burnin.suites.schema import Suite
from burnin.telemetry.watched import Said
from tests import build
from tests.unit.test_run_leases import ENABLED, OFF

LOAD_S = 1800.0
SUITE = build.suite(
    stages=[
        {"stage": "audit", "steps": ["inventory"]},
        {"stage": "ramp", "phase": "ramp", "for": "8 s", "load": {}, "steps": ["thermal-margin"]},
        {"stage": "load", "phase": "load", "for": "30 min", "detach": "10 min", "load": {}, "steps": ["gpu-load"]},
        {"stage": "more", "phase": "load-2", "for": "30 min", "load": {}, "steps": ["gpu-load"]},
    ]
)
LEFT = Left(2, "load", 100.0, LOAD_S, None, 400.0)
UNREAD = Said(1.0, {}, "t00: its Redfish service has not been read yet")


class Tray:
    """A session as far as this looks at it."""

    def __init__(self, tray: str, goes_on: str = "load", ready: bool = True, unloaded_s: float | None = None) -> None:
        self.tray, self.goes_on, self.ready, self.unloaded_s = tray, goes_on, ready, unloaded_s


class Rig:
    """A run at second `t`: its clock, keeper and guard, and BMCs that say what they are told to."""

    def __init__(self, *trays: Tray, left: Left | None = None, wanted: bool = True, relieved: bool = False) -> None:
        self.t, self.told, self.events, self.relieved = 500.0, list[float](), list[Event](), relieved
        self.said: dict[str, Said] = dict.fromkeys(("t00", "t01"), ENABLED)
        self.leases = Leases(UNMINDED_S, wanted, lambda tray: self.said[tray], self.events.append, self.now)
        sessions = {tray.tray: tray for tray in trays or (Tray("t00"), Tray("t01"))}
        rack, profile = build.rack(2), build.profile(2)
        self.job = Job(
            plan.make(SUITE, rack, profile, CHECKS), rack, profile, SUITE,
            Catalogue.model_validate({"metrics": {}, "xids": {}, "signatures": {}}),
            cast("Mapping[str, TraySession]", sessions), self._knock, cast("Keeper", self), self, 0.0, dt.date(2026, 11, 21),
            guard=cast("Guardian", self), leases=self.leases, left=left,
        )  # fmt: skip
        self.detaching = Detaching(self.job)
        self.leg = self.job.plan.legs[2]

    async def _knock(self, part: str) -> None:
        raise AssertionError(part)

    def now(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def detach(self, for_s: float) -> None:
        self.told.append(for_s)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def said_of(self, kind: str) -> list[LogLine]:
        return [one for one in self.events if isinstance(one, LogLine) and one.kind == kind]

    def ended(self) -> StageEnded:
        (one,) = (event for event in self.events if isinstance(event, StageEnded))
        return one

    def leases_now(self) -> list[tuple[float, str]]:
        return [(self.leases.of(tray), self.leases.stage(tray)) for tray in ("t00", "t01")]


# ---------------------------------------------------------------- how long, and where


def test_true_is_ten_minutes_and_it_stays_so_in_the_runs_own_copy() -> None:
    stage = {"stage": "load", "phase": "load", "for": "1 h", "load": {}, "detach": True, "steps": ["gpu-load"]}
    suite = build.suite(stages=[stage])
    assert suite.stages[0].detach == 600
    assert Suite.model_validate(suite.model_dump(mode="json", by_alias=True)) == suite
    assert build.suite().stages[2].detach is None


def test_the_lease_is_the_stated_time_and_never_beyond_the_end_of_the_stage() -> None:
    rig = Rig()
    assert rig.leases_now() == [(5, ""), (5, "")]
    rig.detaching.begin(rig.leg, 500.0)
    assert rig.told == [600]
    assert rig.leases_now() == [(600, "load"), (600, "load")]
    rig.t = 500 + LOAD_S - 42
    assert rig.leases_now() == [(42, "load"), (42, "load")]
    rig.t += 40
    assert rig.leases_now() == [(5, "load"), (5, "load")], "as short as ever, and whoever comes back now is still in time"
    rig.t += 2
    assert rig.leases_now() == [(5, ""), (5, "")]
    rig.t = 500
    rig.detaching.end()
    assert rig.leases_now() == [(5, ""), (5, "")]
    assert rig.told == [600, 0]


@pytest.mark.parametrize("said", [OFF, UNNAMED, Said(1.0, {}), UNREAD])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_policy_that_is_not_read_as_enabled_any_more_makes_the_lease_short_on_that_tray(said: Said, wanted: bool) -> None:
    rig = Rig(wanted=wanted)
    rig.detaching.begin(rig.leg, 500.0)
    rig.said["t01"] = said
    assert rig.leases_now() == [(600, "load"), (5, "")]


def test_it_is_refused_by_name_and_with_what_to_do_also_where_the_policy_is_waived() -> None:
    for wanted in (True, False):
        rig = Rig(wanted=wanted)
        gpus = ["t00.g0", "t00.g1", "t01.g3"]
        assert rig.detaching.refusal(rig.leg, gpus) is None
        rig.said["t01"] = OFF
        assert rig.detaching.refusal(rig.leg, ["t00.g0"]) is None, "t01 is not loaded"
        assert rig.detaching.refusal(rig.leg, gpus) == (
            "stage load may be left without controller and guard only where each tray's BMC was read to mind leaks itself (t01: "
            "LeakDetectionPolicy is disabled: the BMC does nothing about a leak); enable the policy on these BMCs and name them "
            "under bmc:, or take `detach` out of the stage"
        )
        rig.said = dict.fromkeys(("t00", "t01"), UNNAMED)
        assert "(t[00-01]: the rack file names no BMC (bmc:))" in (rig.detaching.refusal(rig.leg, gpus) or "")
        assert rig.detaching.refusal(rig.job.plan.legs[3], gpus) is None, "nobody asked for it there"


def test_without_anybody_who_asks_bmcs_it_is_refused() -> None:
    rig = Rig()
    rig.job.leases = None
    assert "cannot be detached" in (rig.detaching.refusal(rig.leg, ["t00.g0"]) or "")


def test_a_run_that_is_to_stop_leaves_nothing_detached() -> None:
    rig = Rig()
    rig.job.stop.set()
    rig.detaching.begin(rig.leg, 500.0)
    assert (rig.leases.detached, rig.told, rig.events) == (None, [], [])


# ---------------------------------------------------------------- coming back


def test_who_comes_back_in_time_takes_the_stage_up_and_says_how_long_nobody_watched() -> None:
    rig = Rig(left=LEFT)
    legs = [replace(leg, parts={"inventory": ("t01",)}) if leg.stage.load is None else leg for leg in rig.job.plan.legs]
    rig.job.plan = replace(rig.job.plan, legs=tuple(legs))  # as `owed.rest` has it: a ramp that only leads up owes nothing itself
    assert rig.told == [600], "the guard knows before a tray is met"
    assert rig.detaching.goes_on()
    assert rig.detaching.first()
    assert [leg.stage.stage for leg in rig.job.plan.legs] == ["load", "audit", "more"], "it comes first, and its ramp is done"
    first = rig.job.plan.legs[0]
    assert rig.detaching.under_way(first)
    assert rig.detaching.refusal(first, ["t00.g0"]) is None
    assert rig.detaching.taken_up(first) == 100.0
    assert not rig.detaching.under_way(first)
    (line,) = rig.said_of("unguarded")
    assert (line.part, line.code) == ("rack", "100.0")
    assert "100 s (0.03 h) without a guard" in line.text
    assert not [event for event in rig.events if isinstance(event, StageEnded)]
    rig.detaching.begin(first, 100.0)
    assert rig.leases_now() == [(600, "load"), (600, "load")]


def test_a_guard_that_watched_on_is_said() -> None:
    rig = Rig(left=LEFT, relieved=True)
    assert rig.detaching.goes_on() and rig.detaching.first()
    rig.detaching.taken_up(rig.job.plan.legs[0])
    (line,) = rig.said_of("unguarded")
    assert (line.code, "its guard watched on" in line.text) == ("0.0", True)


def test_until_the_bmcs_were_read_again_what_was_left_of_the_time_holds() -> None:
    rig = Rig(left=LEFT)  # kept last at 400 s: at 500 s half a minute of waiting changes nothing for whoever left it
    rig.said = {"t00": UNREAD, "t01": OFF}
    assert rig.leases_now() == [(500, "load"), (5, "")], "one that says it is off is believed"
    rig.t = 990
    assert rig.leases_now()[0] == (10, "load")
    rig.t = 1001
    assert rig.leases_now()[0] == (5, "")
    rig.said["t00"] = ENABLED
    assert rig.leases_now()[0] == (600, "load")


@pytest.mark.parametrize(
    ("trays", "t1_s", "on"),
    [
        ([Tray("t00", "", unloaded_s=460.0), Tray("t01", "", unloaded_s=461.0)], 460.0, "t[00-01]"),
        ([Tray("t00"), Tray("t01", "", unloaded_s=450.0)], 450.0, "t01"),
        ([Tray("t00"), Tray("t01", "")], 400.0, "t01"),  # its agent is gone, and nobody knows when it ended
        ([Tray("t00", "other", unloaded_s=460.0), Tray("t01")], 460.0, "t00"),
        ([Tray("t00", ready=False), Tray("t01", ready=False)], 400.0, "every tray"),
    ],
)
def test_who_comes_too_late_owes_the_stage_and_says_so(trays: list[Tray], t1_s: float, on: str) -> None:
    rig = Rig(*trays, left=LEFT)
    assert not rig.detaching.goes_on()
    ended = rig.ended()
    assert (ended.index, ended.name, ended.t_s, ended.status) == (2, "load", t1_s, Status.ABORTED)
    assert ended.why == f"its controller was gone, and the load of {on} had ended when it came back 100 s later"
    assert "what was recorded until then is kept, the stage is owed" in rig.said_of("detached")[0].text
    assert rig.said_of("unguarded")[0].code == f"{t1_s - 400:.1f}"
    assert (rig.leases.detached, rig.told) == (None, [600, 0])
    assert rig.detaching.taken_up(rig.leg) is None


def test_a_tray_that_is_lost_ends_nothing_for_the_others() -> None:
    assert Rig(Tray("t00", ready=False), Tray("t01"), left=LEFT).detaching.goes_on()


def test_of_a_stage_that_some_trays_did_only_those_are_asked() -> None:
    some = Left(2, "load", 100.0, LOAD_S, ("t01",), 400.0)
    assert Rig(Tray("t00", ""), Tray("t01"), left=some).detaching.goes_on()


def test_a_stage_that_nobody_owes_any_more_is_not_taken_up() -> None:
    rig = Rig(left=LEFT)
    rig.job.plan = plan.Plan(rig.job.plan.legs[:2], rig.job.plan.trays, (), True)
    assert rig.detaching.goes_on()
    assert not rig.detaching.first()
    assert rig.leases.detached is None


def test_the_rest_of_a_stage_is_what_it_was_when_it_began() -> None:
    """`cut: rest`: the session that began it had less than the whole to do."""
    whole = plan.make(SUITE, build.rack(2), build.profile(2), CHECKS)
    again = plan.goes_on(whole, 2, 700.0)
    assert again is not None and again.legs[0].stage.duration == 700
    assert plan.goes_on(whole, 7, 700.0) is None


# ---------------------------------------------------------------- kept


def began(store: Store, index: int, t_s: float) -> None:
    stage = SUITE.stages[index]
    store.keep([StageBegan(index, stage.stage, stage.phase or "", stage.duration, t_s)])


@pytest.mark.parametrize("index", [2, 3])
def test_the_stage_stays_open_until_it_is_known_what_became_of_it(tmp_path: Path, index: int) -> None:
    config = {"suite": SUITE.model_dump(mode="json", by_alias=True)}
    start = RunStart("r1", "R-1", "test-rack", "test", False, True, "ann", "2026-11-21T12:00:00Z", config)
    with closing(open_store(tmp_path / "runs.db")) as store:
        store.begin_run(start)
        began(store, index, 100.25)
        store.keep([LogLine("t00", 400.5, "note", "", "last", "agent", 3)])
    with closing(open_store(tmp_path / "runs.db")) as store:
        left = left_in(SUITE, store.stages("r1"), store.last_moment("r1"))
        assert left == (Left(2, "load", 100.25, LOAD_S, None, 400.5) if index == 2 else None), "only what was asked for"
        session = Session("h", "b", 1, "1", "ann", "2026-11-21T13:00:00Z", 0.0, 500.0, number=2)
        store.continue_run("r1", session, config, left.stage if left else None)
        rows = [(row.t1_s, row.status) for row in store.stages("r1")]
        assert rows == ([(None, None)] if left else [(400.5, Status.ABORTED)])
        if left is not None:
            began(store, index, left.t0_s)
            store.keep([StageEnded(index, "load", 1900.0, Status.COMPLETE)])
            (row,) = store.stages("r1")
            assert (row.t0_s, row.t1_s, row.status) == (100.25, 1900.0, Status.COMPLETE), "one stage, one row"
            began(store, index, 2000.0)
            assert len(store.stages("r1")) == 2


def test_a_stage_that_went_on_or_never_began_was_not_left(tmp_path: Path) -> None:
    assert left_in(SUITE, [], 0.0) is None


# ---------------------------------------------------------------- on the tray


def test_an_agent_keeps_what_it_recorded_as_long_again_and_ten_minutes_at_least(tmp_path: Path) -> None:
    t = [0]
    at = host.Roots(str(tmp_path), str(tmp_path), str(tmp_path))
    holder = Holder("r", "a", lambda: None, lambda *_: None, at, 600.0, str(tmp_path / "n"), lambda: t[0])  # type: ignore[arg-type]
    for lease_s, left_s in ((5, 600), (1200, 2400)):
        holder.hear(wire.Lease(lease_s, -1, "load"))
        t[0] += int((left_s - 1) * 1e9)
        assert holder.tick()
        t[0] += int(1e9)
        assert not holder.tick()
    assert holder.detached == "", "nothing is loaded"
    assert b'"stage":""' in holder.hello()
