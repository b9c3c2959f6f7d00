"""From what a run kept to its verdict: whole cases through a real database, judged as `burnin judge` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnin.assess import exchanges, went
from burnin.assess.case import gather
from burnin.assess.judge import judge, suspects
from burnin.checks import ALWAYS, CHECKS
from burnin.checks.base import Answer, Order
from burnin.events import LogLine, Result, Severity, StageBegan, StageEnded, Status, Tick, TrayState, Verdict, Word
from burnin.rack.load import load_catalogue
from burnin.rack.schema import Profile
from burnin.store import Attempt, Evidence, RunStart, Session, Store, Tray, open_store
from burnin.store.records import Stage
from burnin.suites.schema import Suite
from burnin.verdict.document import canonical
from tests import build

TRAYS = 6
METRICS = {
    "gpu.temp": (35.0, 65.0), "gpu.power": (190.0, 1395.0), "gpu.tlimit": (52.0, 22.0), "gpu.util": (0.0, 1.0),
    "gpu.power_limit": (1400.0, 1400.0), "gpu.clock_sm": (120.0, 1890.0), "hbm.temp": (36.0, 70.0), "load.wrong": (None, 0.0),
    **{f"throttle.{x}": (1.0, 1.0) for x in ("sw_thermal", "hw_thermal", "hw_brake")},
    **{f"ecc.{x}": (0.0, 0.0) for x in ("dram_ue", "sram_ue", "dram_ce", "sram_ce")},
    **{f"remap.{x}": (0.0, 0.0) for x in ("uncorrectable", "correctable", "pending", "failed")},
    **dict.fromkeys(("repair.pending", "ecc.sram_threshold", "gpu.recovery_action"), (0.0, 0.0)),
}  # fmt: skip


@dataclass
class Story:
    """A run of `build.suite()` on a small rack, healthy unless told otherwise, and how it is kept."""

    store: Store
    run: str = "r1"
    profile: Profile = field(default_factory=lambda: build.profile(TRAYS))
    suite: Suite = field(default_factory=build.suite)
    ships: bool = False
    whole: bool = True
    readings: dict[tuple[str, str], Any] = field(default_factory=dict)
    """(gpu, metric) -> (idle, load) or None (never read) or a function of (phase, second)."""
    log: list[LogLine] = field(default_factory=list)
    lost: dict[str, float] = field(default_factory=dict)
    skip: dict[str, str] = field(default_factory=dict)
    errors: set[tuple[str, str, str]] = field(default_factory=set)
    end: str | None = "COMPLETE"
    until: str = ""
    """The run breaks off before this stage."""
    rack: dict[str, Any] = field(default_factory=dict)
    absent: dict[tuple[str, str], str] = field(default_factory=dict)
    earlier: dict[str, Any] | None = None
    """What an attempt at t03's inventory brought that then broke off."""

    def tell(self) -> Verdict:
        """Keep it, and judge it."""
        run = self.run
        rack = build.rack(TRAYS, **self.rack)
        trays = rack.compute()
        dump = {"mode": "json", "by_alias": True}
        config = {
            "rack": rack.model_dump(mode="json", by_alias=True),
            "profile": self.profile.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "suite": self.suite.model_dump(mode="json", by_alias=True),
            "catalogue": build.catalogue().model_dump(mode="json", by_alias=True, exclude_unset=True),
            "plan": {"trays": trays, "only": []},
            "versions": {"burnin": "test"},
        }
        assert dump
        self.store.begin_run(
            RunStart(run, "R-1", "test-rack", "test", self.ships, self.whole, "me", "2026-11-21T10:00:00Z", config)
        )
        for tray in trays:
            self.store.keep([TrayState(tray, 0.1, "ready"), *self._sources(tray)])
            self.store.keep_tray(Tray(tray, "192.0.2.1:22", None, f"J{tray}", _identity(tray)))
        if self.earlier is not None:
            body = {"ok": True, "body": self.earlier}
            self.store.keep_evidence(Evidence("audit", "inventory", "t03", 0, 0, "identify", body))
            self.store.end_attempt(Attempt("audit", "inventory", "t03", 0, Status.ERROR, Result.UNKNOWN, 0.5, 0.6, "cut"))
        self._stages(trays)
        self.store.keep(self.log)
        for tray, when in self.lost.items():
            self.store.keep([TrayState(tray, when, "LOST", f"{tray}: the link is gone")])
        if not self.until:
            self._leave(trays)
        if self.end is not None:
            self.store.end_run(run, "2026-11-21T10:01:00Z", self.end)
        else:
            self.store.flush()
        return judge(gather(self.store, run))

    def _sources(self, tray: str, t_s: float = 0.1) -> Iterable[LogLine]:
        known = {line.code for line in self.log if line.kind == "source" and line.part == tray}
        return [LogLine(tray, t_s, "source", code, "", "agent") for code in ("xid", "kmsg") if code not in known]

    def _stages(self, trays: list[str]) -> None:
        t = 1.0
        for index, stage in enumerate(self.suite.stages):
            if stage.stage == self.until:
                return
            if stage.stage in self.skip:
                self.store.keep([StageEnded(index, stage.stage, t, Status.SKIPPED, self.skip[stage.stage])])
                if self.skip[stage.stage].startswith("not loaded"):
                    self._attempts(stage.stage, [s.check for s in stage.steps], trays, t, Status.SKIPPED, self.skip[stage.stage])
                continue
            self.store.keep([StageBegan(index, stage.stage, stage.phase or "", stage.duration, t)])
            if stage.phase is not None:
                self._sample(stage.phase, t, stage.duration, trays)
            t += stage.duration
            self._attempts(stage.stage, [s.check for s in stage.steps], trays, t)
            self.store.keep([StageEnded(index, stage.stage, t, Status.COMPLETE)])

    def _attempts(
        self, stage: str, checks: list[str], trays: list[str], t: float, status: Status = Status.COMPLETE, why: str = ""
    ) -> None:
        for check in checks:
            for tray in trays:
                gone = tray in self.lost and self.lost[tray] <= t
                broken = (stage, check, tray) in self.errors or gone
                one = Status.ERROR if broken and status is Status.COMPLETE else status
                if check == "inventory" and not broken:
                    body = {"ok": True, "body": _identity(tray)}
                    self.store.keep_evidence(Evidence(stage, check, tray, 1, 0, "identify", body))
                self.store.end_attempt(
                    Attempt(stage, check, tray, 1, one, Result.UNKNOWN, t, t, why or ("broken" if broken else ""))
                )

    def _sample(self, phase: str, t0: float, seconds: float, trays: list[str]) -> None:
        loaded = phase.startswith("load")
        for tray in trays:
            columns = tuple((gpu, metric) for gpu in self.profile.topology.gpus(tray) for metric in METRICS)
            columns += tuple(c for c in self.absent if c[0].startswith(f"{tray}.") and c not in columns)
            for second in range(int(seconds)):
                t = t0 + second + 0.3
                if tray in self.lost and t >= self.lost[tray]:
                    break
                values = tuple(self._value(*one, loaded, phase, second) if one[1] in METRICS else None for one in columns)
                absent = {i: self.absent.get(c, "missing") for i, c in enumerate(columns) if values[i] is None}
                self.store.keep([Tick(tray, t, columns, values, absent)])

    def _value(self, gpu: str, metric: str, loaded: bool, phase: str, second: int) -> float | None:
        given = self.readings.get((gpu, metric), METRICS[metric])
        if given is None:
            return None
        if callable(given):
            return given(phase, second)  # type: ignore[no-any-return]
        return given[1] if loaded else given[0]  # type: ignore[no-any-return]

    def _leave(self, trays: list[str]) -> None:
        for tray in trays:
            if tray in self.lost:
                continue
            state = {f"g{i}": {"power_limit_w": 1400.0} for i in range(4)}
            for number in range(2):
                self.store.keep_evidence(Evidence("leave", "as-found", tray, 1, number, "state", {"ok": True, "body": state}))
        self._attempts("leave", list(ALWAYS), trays, 40.0)


def _identity(tray: str) -> dict[str, Any]:
    index = int(tray[1:])
    gpus = [
        {"gpu": f"g{i}", "name": "NVIDIA GB300", "uuid": f"GPU-{tray}-{i}", "serial": f"S{tray}{i // 2}", "slot": 10 + index,
         "tray_index": index, "chassis": "C1"}
        for i in range(4)
    ]  # fmt: skip
    return {"host": {"serial": f"J{tray}"}, "nvml": None, "driver": "580", "gpus": gpus, "failed": {}, "hung": []}


@pytest.fixture
def story(tmp_path: Path) -> Any:
    store = open_store(tmp_path / "burnin.db")
    yield Story(store)
    store.close()


def named(verdict: Verdict) -> dict[str, str]:
    """part -> severity or HOLD, of everything that weighs."""
    out = {h.part: "HOLD" for h in verdict.holds}
    return {**out, **{f.part: str(f.severity) for f in verdict.findings if f.severity != "WATCH"}}


def test_a_healthy_run_passes_with_full_coverage_and_the_same_bytes_again(story: Story) -> None:
    verdict = story.tell()
    assert verdict.word is Word.PASS
    assert named(verdict) == {}
    assert (verdict.coverage.required, verdict.coverage.measured) == (TRAYS * 4 * 2 * 2, TRAYS * 4 * 2 * 2)
    assert canonical(judge(gather(story.store, "r1"))) == canonical(verdict)
    assert {step.result for step in verdict.steps} == {Result.PASS}


def test_a_shipping_suite_holds_without_a_build_record(story: Story) -> None:
    story.suite = build.suite(ships=True)
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert {h.part for h in verdict.holds} == {"rack"}, "every tray lacks it: it is the rack's"


def test_a_failing_gpu_is_named_with_serial_slot_and_action(story: Story) -> None:
    story.readings["t03.g2", "ecc.dram_ue"] = lambda phase, second: 1.0 if phase == "load" and second > 12 else 0.0
    verdict = story.tell()
    assert verdict.word is Word.FAIL
    (finding,) = verdict.findings
    assert (finding.part, finding.signature, finding.fru) == ("t03.g2", "ecc.dram_ue.growth", "superchip board")
    assert (finding.serial, finding.slot) == ("St031", "slot 13, module 3")
    assert finding.action
    assert "load" in finding.why


def test_one_gpu_that_was_not_sampled_holds_the_rack(story: Story) -> None:
    story.readings["t03.g2", "gpu.temp"] = None
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert verdict.coverage.missing == (("t03.g2", "gpu.temp", "idle"), ("t03.g2", "gpu.temp", "load"))
    assert named(verdict) == {"t03.g2": "HOLD"}


@pytest.mark.parametrize(("gap", "word"), [(2, Word.PASS), (5, Word.HOLD)])
def test_the_coverage_floor_holds_for_every_slot(story: Story, gap: int, word: Word) -> None:
    story.readings["t03.g2", "gpu.temp"] = lambda phase, second: None if phase == "load" and second < gap else 60.0
    assert story.tell().word is word


@pytest.mark.parametrize(("period", "missing"), [("1 s", 0), ("250 ms", TRAYS * 4)])
def test_power_within_a_second_is_owed_in_the_stage_that_asks_and_as_often(
    story: Story, monkeypatch: pytest.MonkeyPatch, period: str, missing: int
) -> None:
    monkeypatch.setitem(METRICS, "transient.power", (None, 1300.0))
    stages = [stage.model_dump(mode="json", by_alias=True, exclude_unset=True) for stage in build.suite().stages]
    stages[2]["sample_power"] = period
    story.suite = build.suite(coverage={"metrics": ["gpu.temp", "transient.power"]}, stages=stages)
    verdict = story.tell()
    assert verdict.coverage.required == TRAYS * 4 * 3, "temperature idle and loaded, power only where it is asked for"
    assert [(metric, phase) for _, metric, phase in verdict.coverage.missing] == [("transient.power", "load")] * missing
    assert verdict.word is (Word.HOLD if missing else Word.PASS)


def test_an_agent_that_reads_less_often_than_ordered_holds_the_rack(story: Story) -> None:
    """It says so in a note; to coverage it is what it is: fewer readings."""
    story.readings["t03.g2", "gpu.power"] = lambda phase, second: (190.0, 1395.0)[phase == "load"] if second % 2 == 0 else None
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert ("t03.g2", "gpu.power", "load") in verdict.coverage.missing


def test_a_lost_tray_is_one_hold_with_its_reason_and_the_others_keep_theirs(story: Story) -> None:
    story.lost["t03"] = 20.0
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert named(verdict) == {"t03": "HOLD"}
    (finding,) = verdict.findings
    assert (finding.signature, finding.why) == ("tray.lost", "t03: the link is gone")
    assert {s.result for s in verdict.steps if s.part != "t03"} == {Result.PASS}
    assert Result.PASS not in {s.result for s in verdict.steps if s.part == "t03" and s.stage == "load"}


def test_a_load_that_ended_with_its_tray_is_the_trays_and_one_that_was_low_before_is_its_own(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: Any = lambda phase, second: float(second)  # noqa: E731
    monkeypatch.setitem(METRICS, "load.launches", launches)
    story.lost["t03"] = 24.5
    assert named(story.tell()) == {"t03": "HOLD"}
    story.run, story.readings["t03.g2", "gpu.power"] = "r2", (190.0, 900.0)
    story.log = [LogLine("t03.g1", 24.0, "cut", "margin", "its load was ended: 3 K to its limit", "agent")]
    assert named(story.tell()) == {"t03": "HOLD", "t03.g1": "HOLD", "t03.g2": "HOLD"}


def test_a_fail_on_a_tray_that_was_lost_later_stands(story: Story) -> None:
    story.lost["t03"] = 30.0
    story.log = [LogLine("t03.g1", 25.0, "xid", "79", "fell off", "kmsg")]
    verdict = story.tell()
    assert verdict.word is Word.FAIL
    assert named(verdict) == {"t03": "HOLD", "t03.g1": "FAIL"}


def test_a_load_that_was_not_reached_proves_nothing_about_what_needed_it(story: Story) -> None:
    story.readings["t03.g2", "gpu.power"] = (190.0, 900.0)
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    (finding,) = verdict.findings
    assert (finding.part, finding.signature) == ("t03.g2", "load.not_attained")
    reasons = {
        (s.name, m.name): m.reason
        for s in verdict.steps
        for m in s.measurements
        if m.part == "t03.g2" and m.result is Result.UNKNOWN
    }
    assert {name for _, name in reasons} >= {
        "gpu.tlimit.load",
        "throttle.hw_thermal.growth",
        "gpu.power_fraction",
        "gpu.mismatches",
    }
    assert {why for (check, _), why in reasons.items() if check != "inventory"} == {"not_attained"}


def test_what_needed_a_load_that_was_not_reached_holds_where_no_check_judges_the_load(story: Story) -> None:
    stages = story.suite.model_dump(mode="json", by_alias=True)["stages"]
    stages[2]["steps"] = [step for step in stages[2]["steps"] if step["check"] != "gpu-load"]
    story.suite = build.suite(stages=stages)
    story.readings["t03.g2", "gpu.power"] = (190.0, 900.0)
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert {hold.part for hold in verdict.holds} == {"t03.g2"}
    assert not any(step.name == "ecc" and step.result is not Result.PASS for step in verdict.steps), "ecc needs no load"


def test_what_an_attempt_measured_before_it_broke_off_is_not_undone_by_a_later_one(story: Story) -> None:
    """A run that goes on asks again: a wrong part that was seen stays seen."""
    story.rack = {"expect": {"t03": {"serial": "Jt03", "gpus": [f"St03{i // 2}" for i in range(4)]}}}
    story.earlier = _identity("t03") | {"host": {"serial": "another"}}
    verdict = story.tell()
    (step,) = (s for s in verdict.steps if (s.name, s.part) == ("inventory", "t03"))
    assert (step.status, step.result, step.attempts) == (Status.COMPLETE, Result.FAIL, 2)
    assert "(in attempt 0, which broke off)" in next(m.why for m in step.measurements if m.result is Result.FAIL)


def test_too_hot_below_full_load_is_still_too_hot(story: Story) -> None:
    story.readings["t03.g2", "gpu.power"] = (190.0, 900.0)
    story.readings["t03.g2", "gpu.tlimit"] = (50.0, 0.0)
    verdict = story.tell()
    assert verdict.word is Word.FAIL
    assert ("t03.g2", "gpu.tlimit.load") in {(f.part, f.signature) for f in verdict.findings}


def test_load_that_an_interlock_refused_is_one_hold_of_the_rack(story: Story) -> None:
    story.skip["load"] = "not loaded: this version of burnin cannot read leak"
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert [(h.part, h.why) for h in verdict.holds] == [("rack", "not loaded: this version of burnin cannot read leak")]
    assert {s.status for s in verdict.steps if s.stage == "load"} == {Status.SKIPPED}


def test_a_tray_of_another_rack_is_named(story: Story) -> None:
    story.skip["load"] = "not loaded: t03 says chassis C2, the rack is C1"
    story.log = [LogLine("t03", 12.0, "interlock", "bad", "rack_identity: t03 says chassis C2, the rack is C1", "controller")]
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert named(verdict) == {"t03": "HOLD", "rack": "HOLD"}


def kept_off(story: Story, run: str, line: LogLine | None) -> set[tuple[str, str]]:
    """(part, signature) of what holds when t03 stays at rest in the load, after this line."""
    for i in range(4):
        story.readings[f"t03.g{i}", "gpu.power"] = (190.0, 190.0)
    story.run, story.log = run, [line] if line else []
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    return {(f.part, f.signature) for f in verdict.findings if f.severity is Severity.HOLD}


@pytest.mark.parametrize("state", ["unread", "bad"])
def test_what_an_interlock_kept_off_is_said_instead_of_a_gpu_without_power(story: Story, state: str) -> None:
    gpus = {(f"t03.g{i}", "load.not_attained") for i in range(4)}
    assert kept_off(story, "r0", None) >= gpus
    assert kept_off(story, "r1", LogLine("t03", 12.0, "interlock", state, "leak: no answer", "load")) == {
        ("t03", "interlock.leak")
    }
    went_on = kept_off(story, "r2", LogLine("t03", 12.0, "interlock", state, "leak: no answer", "controller"))
    assert went_on >= gpus, "it burned already, or an older burnin said so"
    assert (("t03", "interlock.leak") in went_on) == (state == "bad")


def test_an_interlock_is_over_when_a_later_session_did_its_stage_again_on_that_tray() -> None:
    def row(t0_s: float, status: Status = Status.COMPLETE, trays: tuple[str, ...] | None = None, name: str = "load") -> Stage:
        return Stage(2, name, "load", 10.0, 0.0, t0_s, t0_s + 10.0, status, "", trays)

    def session(number: int, t0_s: float) -> Session:
        return Session("c", "b", 1, "1", "ann", "2026-11-21T10:00:00Z", 0.0, t0_s, number=number)

    lines = [LogLine(part, 12.0, "interlock", "bad", "x: y", "load") for part in ("rack", "t01", "t03.g2")]
    both = [session(1, 0.0), session(2, 100.0)]
    assert went.kept_off(lines, [row(13.0)], both[:1]) == lines, "the stage that it was in went through, on the others"
    assert went.kept_off(lines, [row(13.0), row(110.0, Status.ABORTED), row(120.0, name="load-2")], both) == lines
    assert went.kept_off(lines, [row(13.0), row(110.0, trays=("t03",))], both) == [lines[1]]
    assert went.kept_off(lines, [row(13.0), row(110.0)], both) == []
    assert went.kept_off([LogLine("t01", 12.0, "interlock", "waived", "x: y", "load")], [], both) == []


def test_a_run_whose_controller_died_holds(story: Story) -> None:
    story.until, story.end = "load", None
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert "its controller ended without finishing it" in " ".join(h.why for h in verdict.holds)
    assert {s.status for s in verdict.steps if s.stage == "load"} == {Status.ABORTED}
    assert {s.result for s in verdict.steps if s.stage == "idle"} == {Result.PASS}, "what was proved stays proved"


def test_a_stopped_run_holds_even_if_all_it_did_was_good(story: Story) -> None:
    story.end = "STOPPED"
    verdict = story.tell()
    assert (verdict.word, [h.kind for h in verdict.holds]) == (Word.HOLD, ["aborted"])


def test_a_step_that_could_not_measure_holds_and_is_not_fail(story: Story) -> None:
    story.errors.add(("audit", "inventory", "t03"))
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert set(named(verdict)) == {"t03"}
    assert [hold.next for hold in verdict.holds] == ["run this stage again on t03"]


@pytest.mark.parametrize("source", ["xid", "kmsg"])
def test_a_log_that_could_not_be_read_holds(story: Story, source: str) -> None:
    story.log = [LogLine("t03", 0.1, "source", source, "no_permission", "agent")]
    verdict = story.tell()
    assert (verdict.word, named(verdict)) == (Word.HOLD, {"t03": "HOLD"})
    assert verdict.holds[0].next.startswith("give the login this right"), "again without it is no better"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (["", "let go by order"], Word.PASS),
        (["", "let go by order", "lost"], Word.HOLD),
        (["", "lost", "let go by order"], Word.HOLD),
        (["let go by order"], Word.PASS),
    ],
)
def test_events_that_were_let_go_by_order_hold_nothing_and_hide_nothing(story: Story, said: list[str], word: Word) -> None:
    story.log = [LogLine("t03", 0.1 + 3 * i, "source", "xid", text, "agent") for i, text in enumerate(said)]
    assert story.tell().word is word


def test_a_log_that_was_lost_for_a_while_holds_although_it_came_back(story: Story) -> None:
    story.log = [LogLine("t03", t, "source", "xid", text, "agent") for t, text in ((0.1, ""), (9.0, "lost"), (12.0, ""))]
    assert story.tell().word is Word.HOLD


def test_a_hung_gpu_is_a_finding_and_explains_what_it_did_not_say(story: Story) -> None:
    for metric in METRICS:
        story.readings["t03.g2", metric] = lambda phase, second, metric=metric: None if phase == "load" else (METRICS[metric][0])
        story.absent["t03.g2", metric] = "hung"
    for link in range(18):  # its links are read through the same driver: they hang with it, and are no cables
        story.absent[f"t03.g2.l{link}", "nvlink.state"] = "hung"
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert named(verdict) == {"t03.g2": "HOLD"}
    assert [f.signature for f in verdict.findings] == ["gpu.hung"]
    assert [h.part for h in verdict.holds] == ["t03.g2"]


def test_thermal_outliers_are_suspects_during_the_run_and_findings_at_its_end(story: Story) -> None:
    story.readings["t03.g2", "gpu.temp"] = (35.0, 35.0 + 30.0 * 1.5)
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert [(f.part, f.signature, str(f.severity)) for f in verdict.findings] == [("t03.g2", "thermal.rth", "HOLD")]
    assert suspects(story.store, "r1") == ["t03.g2"]


def test_a_hot_tray_is_seen_to_before_its_boards_are_blamed(story: Story) -> None:
    for i in range(4):
        story.readings[f"t03.g{i}", "gpu.temp"] = (35.0, 35.0 + 30.0 * 1.4)
    story.readings["t03.g3", "gpu.tlimit"] = (50.0, 1.0)
    verdict = story.tell()
    board = next(f for f in verdict.findings if f.signature == "gpu.tlimit.load")
    assert (board.part, board.severity, board.fru) == ("t03.g3", "FAIL", "hose")
    assert board.action.startswith("see to t03 first")


def test_a_hot_gpu_is_not_told_to_see_to_itself(story: Story) -> None:
    story.readings["t03.g3", "gpu.temp"] = (35.0, 35.0 + 30.0 * 1.6)
    story.readings["t03.g3", "gpu.tlimit"] = (50.0, 1.0)
    found = {f.signature: f for f in story.tell().findings if f.part == "t03.g3"}
    assert found["gpu.tlimit.load"].action == found["thermal.rth"].action != ""


def test_null_limits_end_unknown_never_pass(story: Story) -> None:
    rows = build.limits(gpu__tlimit__load={"min": None, "unit": "Cel"})
    story.profile = build.profile(TRAYS, limits={k: v.model_dump(exclude_unset=True) for k, v in rows.items()})
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert {s.result for s in verdict.steps if s.name == "thermal-margin"} == {Result.UNKNOWN}
    (hold,) = verdict.holds
    assert (hold.part, hold.next) == ("rack", "set the limits that are missing in the profile or the suite, then run again"), (
        "again is no better"
    )


def test_a_step_that_measured_nothing_holds(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that a profile leaves nothing to look at."""
    monkeypatch.setitem(CHECKS, "ecc", replace(CHECKS["ecc"], judge=lambda context, evidence: []))
    verdict = story.tell()
    assert verdict.word is Word.HOLD
    assert any("ecc in load measured nothing" in one.why for one in verdict.holds)


def test_evidence_only_words_are_still_words(story: Story) -> None:
    story.whole = False
    verdict = story.tell()
    assert (verdict.word, verdict.whole) == (Word.PASS, False), "the gate, not the verdict, refuses it"


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue that is shipped, with all its signatures, instead of the small one."""
    monkeypatch.setattr(build, "catalogue", load_catalogue)


@pytest.mark.usefixtures("shipped")
def test_a_healthy_run_passes_all_signatures_that_are_shipped(story: Story) -> None:
    verdict = story.tell()
    assert (verdict.word, verdict.findings) == (Word.PASS, ())


@pytest.mark.usefixtures("shipped")
def test_a_run_says_whether_its_hours_were_enough_and_what_the_number_is_worth(story: Story) -> None:
    said = story.tell().versions["soak"]
    assert said.startswith("extend; ") and "of at least 24 h under load" in said
    assert "% that a weak part is undetected (simulated, twin " in said and "validated on 0 real racks)" in said


@pytest.mark.usefixtures("shipped")
def test_copies_reach_the_signatures_and_the_slow_gpu_is_named(story: Story) -> None:
    """Copies of all trays as the agents answer them: 769 GB/s between any two of a tray, t03.g2 5 % less both ways."""
    story.tell()
    case = gather(story.store, "r1")
    suite = build.suite(stages=[{"stage": "copies", "steps": ["copies"]}])
    rng = np.random.default_rng(8)
    attempts, answers = [], {}
    for tray in case.compute:
        body = {}
        for i in range(4):
            speeds = {
                j: 769 * (1 + 0.002 * rng.standard_normal()) * (0.95 if tray == "t03" and 2 in (i, j) else 1.0) for j in range(4)
            }
            body[f"g{i}"] = {"peers": {f"g{j}": {"gbps": speed} for j, speed in speeds.items() if j != i}}
        attempts.append(Attempt("copies", "copies", tray, 1, Status.COMPLETE, Result.PASS, 1.0, 2.0))
        answers["copies", "copies", tray, 1] = ((Answer(Order(tray, "work"), True, body),),)
    case = replace(case, suite=suite, attempts=tuple(attempts), answers=answers)
    (one,) = exchanges.measured(case)
    assert one.gbps.shape == (24, 24) and np.count_nonzero(~np.isnan(one.gbps)) == TRAYS * 12
    assert {f.part for f in exchanges.find(case, same=True)} == {"t03.g2"}
    cut = replace(case, answers=dict.fromkeys(answers, ()))
    assert exchanges.find(cut, same=True) == [], "what was not answered is nobody's fault here: coverage holds it"


@pytest.mark.usefixtures("shipped")
def test_a_rule_asks_for_no_second_look(story: Story) -> None:
    """An uncorrectable error is FAIL at once; the suite's re-test is for statistical suspicion, and loads nobody for this."""
    story.readings["t03.g2", "ecc.dram_ue"] = lambda phase, second: float(phase == "load" and second > 12)
    verdict = story.tell()
    assert verdict.word is Word.FAIL and "memory.uncorrected" in {f.signature for f in verdict.findings}
    assert suspects(story.store, "r1") == []
