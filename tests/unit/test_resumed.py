"""Runs in several sessions, through a real database: the verdict is that of the run in one piece, of the parts that are there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from burnin.assess.case import gather
from burnin.assess.coverage import holes
from burnin.assess.judge import judge
from burnin.checks import CHECKS
from burnin.errors import StoreError
from burnin.events import Attached, LogLine, Severity, StageBegan, StageEnded, Status, Tick, TrayState, Verdict, Word
from burnin.run import plan
from burnin.run.owed import owed
from burnin.run.resume import left_in, proof
from burnin.store import Session, Store, Voided, open_store
from burnin.suites.schema import Suite
from burnin.verdict.document import canonical, document
from burnin.views.verdict import show
from tests import build
from tests.sampled import some
from tests.unit.test_assess import METRICS, TRAYS, Story

HOT = {("t02.g1", "gpu.temp"): (35.0, 92.0)}
LOAD_S, RESUMED_S = 12.0, 100.0
"""Run seconds at which the load began, and at which the second session did."""
GO_ON = "go on with it: burnin run SUITE RACK.yaml --resume r1"


def said(verdict: Verdict) -> set[tuple[str, str, str]]:
    return {(f.part, f.signature, f.severity) for f in verdict.findings}


def session(number: int, t0_s: float) -> Session:
    return Session("h", "b", 1, "1", "ann", f"2026-11-21T1{number}:00:00Z", 0.0, t0_s, number=number)


@contextmanager
def continued(path: Path, t0_s: float = RESUMED_S, number: int = 2) -> Iterator[Store]:
    with closing(open_store(path)) as store:
        store.continue_run("r1", session(number, t0_s), store.config("r1"))
        yield store


def stage(story: Story, name: str, t: float, trays: list[str] | None = None, first: int = 1) -> float:
    """One stage of a later session, whole, on these trays; when it ended."""
    index, one = next((i, s) for i, s in enumerate(story.suite.stages) if s.stage == name)
    on = trays or build.rack(TRAYS).compute()
    story.store.keep([StageBegan(index, name, one.phase or "", one.duration, t, tuple(trays) if trays else None)])
    if one.phase is not None:
        story._sample(one.phase, t, one.duration, on)
    t += one.duration
    story._attempts(name, [step.check for step in one.steps], on, t)
    story.store.keep([StageEnded(index, name, t, Status.COMPLETE)])
    return t


def cut(path: Path, seconds: int, **told: Any) -> None:
    """A first session, killed so many seconds into the load."""
    with closing(open_store(path)) as store:
        story = Story(store, until="load", end=None, **told)
        story.tell()
        store.keep([StageBegan(2, "load", "load", 24.0, LOAD_S)])
        story._sample("load", LOAD_S - 1, seconds, build.rack(TRAYS).compute())
        store.flush()


def finished(path: Path, **told: Any) -> Verdict:
    """The second session: the load whole, then the end of the run."""
    with continued(path) as store:
        story = Story(store, **told)
        stage(story, "load", RESUMED_S + 1)
        story._leave(build.rack(TRAYS).compute())
        store.end_run("r1", "2026-11-21T12:00:00Z", "COMPLETE")
        return judge(gather(store, "r1"))


# ---------------------------------------------------------------- cut


@pytest.mark.parametrize("readings", [{}, HOT])
@pytest.mark.parametrize("seconds", some([20, 0, 5]))
def test_a_run_that_was_cut_says_what_it_would_have_said(tmp_path: Path, readings: dict[Any, Any], seconds: int) -> None:
    with closing(open_store(tmp_path / "whole.db")) as store:
        undisturbed = Story(store, readings=readings).tell()
    path = tmp_path / "cut.db"
    cut(path, seconds, readings=readings)
    verdict = finished(path, readings=readings)
    assert verdict.word is undisturbed.word
    assert said(verdict) == said(undisturbed)
    assert [(s.name, s.stage, s.part, s.status, s.result) for s in verdict.steps] == [
        (s.name, s.stage, s.part, s.status, s.result) for s in undisturbed.steps
    ]
    assert (verdict.coverage.required, verdict.coverage.measured) == (
        undisturbed.coverage.required,
        undisturbed.coverage.measured,
    )
    assert undisturbed.sessions == ()
    assert "sessions" not in document(undisturbed)
    first, second = document(verdict)["sessions"]
    assert first["gap_s"] == 0
    assert second["gap_s"] == pytest.approx(RESUMED_S - first["to_s"])


def test_while_it_is_cut_it_holds_and_owes_the_stage(tmp_path: Path) -> None:
    path = tmp_path / "cut.db"
    cut(path, 9)
    with continued(path) as store:
        verdict = judge(gather(store, "r1"))
        assert verdict.word is Word.HOLD
        suite = Suite.model_validate(store.config("r1")["suite"])
        whole = plan.make(suite, build.rack(TRAYS), build.profile(TRAYS), CHECKS)
        many = owed(whole, suite, CHECKS, proof(store, "r1", {}, 0.0))
        assert {suite.stages[one.stage].stage for one in many} == {"load"}
        again = owed(whole, suite, CHECKS, proof(store, "r1", {"t03": "replaced"}, 150.0))
        assert {one.part for one in again if suite.stages[one.stage].stage != "load"} == {"t03"}


@pytest.mark.parametrize(
    ("code", "t_s", "again", "does"),
    [
        (
            "lease",
            20.0,
            {("load", "t03")},
            f"find out why the controller did not reach t03 in time, then {GO_ON}",
        ),
        ("sensor", 20.0, {("load", "t03")}, f"find out why its margin was not read, then {GO_ON}"),
        ("margin", 20.0, set(), "find out why t03.g1 does not reach its power, then run again"),
        ("lease", 35.5, set(), ""),
    ],
    ids=["nobody heard", "no margin", "hot", "as the stage ended"],
)
def test_load_that_an_agent_ended_for_no_fault_of_its_gpu_is_owed(
    tmp_path: Path, code: str, t_s: float, again: set[tuple[str, str]], does: str
) -> None:
    """The stage went through, and its mean power would do: the last seconds, or hours, were without load all the same."""
    path = tmp_path / "cut.db"
    with closing(open_store(path)) as store:
        story = Story(store, log=[LogLine("t03.g1", t_s, "cut", code, "the agent ended the load of t03.g1", "agent")])
        verdict = story.tell()
        assert [f.action for f in verdict.findings if f.part == "t03.g1"][:1] == ([does] if does else [])
        assert (verdict.word is Word.HOLD) == bool(does)
    with continued(path) as store:
        suite = Suite.model_validate(store.config("r1")["suite"])
        whole = plan.make(suite, build.rack(TRAYS), build.profile(TRAYS), CHECKS)

        def open_now() -> set[tuple[str, str]]:
            return {(suite.stages[o.stage].stage, o.part) for o in owed(whole, suite, CHECKS, proof(store, "r1", {}, 150.0))}

        assert open_now() == again
        if again:
            stage(Story(store), "load", RESUMED_S + 1, ["t03"])
            assert open_now() == set(), "it was done again"


def test_what_was_bad_before_the_cut_stays_bad(tmp_path: Path) -> None:
    path = tmp_path / "cut.db"
    cut(path, 20, readings={("t04.g0", "gpu.tlimit"): (52.0, -3.0)})
    verdict = finished(path)
    assert ("t04.g0", "gpu.tlimit.load", "FAIL") in said(verdict)
    assert "before the stage was cut" in next(f.why for f in verdict.findings if f.part == "t04.g0")


def test_errors_that_nobody_saw_come_are_counted(tmp_path: Path) -> None:
    """The counter grew between the sessions: it is the run's."""
    path = tmp_path / "cut.db"
    cut(path, 9)
    verdict = finished(path, readings={("t01.g3", "ecc.dram_ue"): (1.0, 1.0)})
    assert ("t01.g3", "ecc.dram_ue.growth", "FAIL") in said(verdict)


def test_a_stage_in_pieces_is_covered_by_all_of_them(tmp_path: Path) -> None:
    """`cut: rest`: 20 of 24 s, then 18 s (12 settle, at least half of the judged 12): neither piece alone is enough."""
    pieced = build.suite()
    pieced.stages[2] = pieced.stages[2].model_copy(update={"cut": "rest"})
    for suite, measured in ((build.suite(), False), (pieced, True)):
        path = tmp_path / f"{measured}.db"
        cut(path, 20, suite=suite)
        with continued(path) as store:
            story = Story(store, suite=suite)
            store.keep([StageBegan(2, "load", "load", 18.0, 101.0)])
            story._sample("load", 101.0, 18, build.rack(TRAYS).compute())
            story._attempts("load", [step.check for step in suite.stages[2].steps], build.rack(TRAYS).compute(), 119.0)
            store.keep([StageEnded(2, "load", 119.0, Status.COMPLETE)])
            assert (holes(gather(store, "r1")) == {}) == measured


# ---------------------------------------------------------------- detached


@pytest.mark.parametrize("readings", [{}, HOT])
def test_a_detached_stage_that_is_taken_up_is_one_stage_and_says_what_it_would_have_said(tmp_path: Path, readings: Any) -> None:
    suite = build.suite()
    suite.stages[2] = suite.stages[2].model_copy(update={"detach": 600.0})
    with closing(open_store(tmp_path / "whole.db")) as store:
        undisturbed = Story(store, suite=suite, readings=readings).tell()
        (whole,) = [row for row in store.stages("r1") if row.name == "load"]
    path, trays, begin, half = tmp_path / "left.db", build.rack(TRAYS).compute(), whole.t0_s, 9
    with closing(open_store(path)) as store:
        story = Story(store, suite=suite, until="load", end=None, readings=readings)
        story.tell()
        store.keep([StageBegan(2, "load", "load", 24.0, begin)])
        story._sample("load", begin, half, trays)
        store.flush()
        store.keep([LogLine("t00", begin + half, "note", "", "the last that was kept", "agent")])
    with closing(open_store(path)) as store:
        left = left_in(suite, store.stages("r1"), store.last_moment("r1"))
        assert left is not None and left.t0_s == begin
        store.continue_run("r1", session(2, begin + 15), store.config("r1"), left.stage)
        assert proof(store, "r1", {}, 0.0).stages[-1].t1_s is None
        story = Story(store, suite=suite, readings=readings)
        store.keep([StageBegan(2, "load", "load", 24.0, begin)])
        story._sample("load", begin + half, 24 - half, trays)  # what agents recorded meanwhile, and what they read since
        store.keep([LogLine("rack", begin + 16, "unguarded", "7.0", "7 s without a guard", "controller")])
        story._attempts("load", [step.check for step in suite.stages[2].steps], trays, begin + 24)
        store.keep([StageEnded(2, "load", begin + 24, Status.COMPLETE)])
        story._leave(trays)
        store.end_run("r1", "2026-11-21T10:01:00Z", "COMPLETE")
        verdict = judge(gather(store, "r1"))
        assert [row for row in store.stages("r1") if row.name == "load"] == [whole]
    assert (verdict.word, said(verdict)) == (undisturbed.word, said(undisturbed))
    assert verdict.steps == undisturbed.steps
    assert verdict.coverage == undisturbed.coverage
    first, second = document(verdict)["sessions"]
    assert "unguarded_s" not in first
    assert (second["unguarded_s"], second["gap_s"]) == (7.0, pytest.approx(6.0, abs=0.01))
    out = Console(file=io.StringIO(), width=200)
    show(document(verdict), out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "2 sessions, 0.00 h between them without a controller; load went on for 0.00 h without a guard" in text


# ---------------------------------------------------------------- replaced


def replaced(path: Path, readings: dict[Any, Any], again: dict[Any, Any], redo: bool = True) -> Verdict:
    """A whole run, then t02 is another tray and goes through idle and load alone."""
    with closing(open_store(path)) as store:
        assert Story(store, readings=readings).tell().word is not Word.PASS or not readings
    with continued(path) as store:
        store.void([Voided("t02", RESUMED_S, "t02 was JT02, is JT99")])
        story = Story(store, readings=again)
        store.keep([TrayState("t02", RESUMED_S + 0.1, "ready"), *story._sources("t02", RESUMED_S + 0.1)])
        if redo:
            t = stage(story, "audit", RESUMED_S + 1, ["t02"])
            t = stage(story, "idle", t + 1, ["t02"])
            stage(story, "load", t + 5, ["t02"])
        store.end_run("r1", "2026-11-21T12:00:00Z", "COMPLETE")
        return judge(gather(store, "r1"))


@pytest.fixture(autouse=True)
def _attempts_count_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later session numbers its attempts on, as the run does (Job.attempts)."""
    kept = Store.end_attempt

    def end(self: Store, attempt: Any, evidence: Any = ()) -> None:
        from dataclasses import replace

        key = (attempt.stage, attempt.name, attempt.part)
        before = [a.attempt for a in self.attempts("r1") if (a.stage, a.name, a.part) == key]
        number = max(before, default=0) + 1
        kept(self, replace(attempt, attempt=number), [replace(one, attempt=number) for one in evidence])

    monkeypatch.setattr(Store, "end_attempt", end)


def test_a_new_tray_is_judged_and_the_old_one_forgotten(tmp_path: Path) -> None:
    verdict = replaced(tmp_path / "r.db", HOT, {})
    assert not [f for f in verdict.findings if f.part.startswith("t02")]
    mine = [s for s in verdict.steps if s.part == "t02" and s.stage in ("idle", "load")]
    assert {s.status for s in mine} == {Status.COMPLETE}
    assert verdict.coverage.measured == verdict.coverage.required


def test_until_it_is_tested_it_holds(tmp_path: Path) -> None:
    verdict = replaced(tmp_path / "r.db", {}, {}, redo=False)
    assert verdict.word is Word.HOLD
    assert {s.part for s in verdict.steps if s.status is not Status.COMPLETE} == {"t02"}


def test_a_new_tray_is_compared_with_those_that_were_tested_before(tmp_path: Path) -> None:
    """Alone in its time it would have no peers, and a bad cold plate would pass."""
    verdict = replaced(tmp_path / "r.db", {}, HOT)
    weighs = [(f.part, f.signature) for f in verdict.findings if f.severity is not Severity.WATCH]
    assert ("t02.g1", "thermal.rth") in weighs
    assert {part for part, _ in weighs} == {"t02.g1"}


def test_replaced_parts_are_said_and_the_same_from_the_database_alone(tmp_path: Path) -> None:
    verdict = replaced(tmp_path / "r.db", HOT, {})
    assert document(verdict)["sessions"][1]["replaced"] == {"t02": "t02 was JT02, is JT99"}
    with closing(open_store(tmp_path / "r.db")) as store:
        assert canonical(judge(gather(store, "r1"))) == canonical(verdict)


# ---------------------------------------------------------------- the store: nothing twice, nobody else


COLUMNS = (("t00.g0", "gpu.temp"),)


def test_places_say_how_far_a_tray_was_heard(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    cut(path, 0)
    with continued(path) as store:
        store.keep([Attached("t00", 100.0, "h1"), *(Tick("t00", 100.0 + n, COLUMNS, (1.0,), {}, n) for n in range(5))])
        store.keep([LogLine("t00.g0", 105.0, "xid", "79", "", "nvml", 5)])
        assert (store.places("r1")["t00"].seq, store.places("r1")["t00"].logged_seq) == (-1, 5), "ticks wait, lines do not"
        store.keep([Tick("t00", 106.0, COLUMNS, (1.0,), {}, 6)])
        store.flush()
        assert (store.places("r1")["t00"].seq, store.places("r1")["t00"].logged_seq) == (6, 5)
        store.keep([Attached("t00", 110.0, "h2"), Tick("t00", 111.0, COLUMNS, (1.0,), {}, 0)])
        store.flush()
        place = store.places("r1")["t00"]
        assert (place.holder, place.seq, place.logged_seq) == ("h2", 0, -1)


def test_a_controller_that_was_replaced_keeps_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    cut(path, 0)
    with continued(path) as frozen, continued(path, 200.0, 3) as store:
        with pytest.raises(StoreError, match="was taken on by another controller: this one keeps nothing more"):
            frozen.keep([LogLine("t00", 201.0, "note", "", "", "agent")])
        store.keep([LogLine("t00", 202.0, "note", "", "mine", "agent")])
        assert [line.text for line in store.log("r1") if line.kind == "note"] == ["mine"]


def test_of_two_who_take_on_a_run_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    cut(path, 0)
    with continued(path), closing(open_store(path)) as second:
        with pytest.raises(StoreError, match=r"was taken on by another controller just now \(h\)"):
            second.continue_run("r1", session(2, 150.0), second.config("r1"))
        assert len(second.sessions("r1")) == 2


def test_an_attempt_and_what_it_brought_back_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    from burnin.events import Result
    from burnin.store import Attempt, Evidence

    path = tmp_path / "burnin.db"
    cut(path, 0)
    with continued(path) as store:
        before = len(store.evidence("r1"))
        bad = Evidence("load", "ecc", "t00", 1, 0, "a", {"x": object()})
        good = Evidence("load", "ecc", "t00", 1, 0, "a", "b")
        with pytest.raises(TypeError):
            store.end_attempt(Attempt("load", "ecc", "t00", 1, Status.COMPLETE, Result.UNKNOWN, 1.0, 2.0), [good, bad])
        assert len(store.evidence("r1")) == before


def test_metrics_of_the_story_are_read() -> None:
    assert ("gpu.temp" in METRICS) and TRAYS >= 5, "fewer have no family"
