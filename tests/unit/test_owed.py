"""What is owed of a run: what was proved stays proved, and what depends on a part goes with it, no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.checks import CHECKS
from burnin.checks.base import RACK, Check
from burnin.events import Result, Status
from burnin.rack.schema import Expected
from burnin.run import plan
from burnin.run.owed import Owed, Proof, owed, rest
from burnin.run.replaced import announced
from burnin.store.records import Attempt, Stage, Voided
from burnin.suites.schema import Suite
from tests import build

TRAYS = ("t00", "t01", "t02")
STAGES: list[dict[str, Any]] = [
    {"stage": "audit", "steps": ["inventory", "collective"]},
    {"stage": "idle", "phase": "idle", "for": "10 s", "settle": "2 s", "steps": ["idle-baseline", "nvme", "links"]},
    {"stage": "ramp", "phase": "ramp", "for": "5 s", "load": {"stagger": True}, "steps": ["thermal-margin"]},
    {"stage": "load", "phase": "load", "for": "30 s", "settle": "12 s", "load": {}, "steps": ["gpu-load", "nvme", "links"]},
    {"stage": "cool", "phase": "cool", "for": "5 s", "steps": ["ecc"]},
    {"stage": "load-again", "when": "suspect", "phase": "load-2", "for": "30 s", "settle": "12 s", "load": {}, "steps": ["ecc"]},
]


def suite(**of_load: str) -> Suite:
    stages = [{**one, **of_load} if one["stage"] == "load" else one for one in STAGES]
    return build.suite(stages=stages)


SUITE = suite()
RACK_FILE, PROFILE = build.rack(3), build.profile(3)


def make(of: Suite = SUITE) -> plan.Plan:
    return plan.make(of, RACK_FILE, PROFILE, CHECKS)


def went(upto: int, cut_s: float | None = None, t0_s: float = 0.0, trays: tuple[str, ...] | None = None) -> Proof:
    """The first `upto` stages went through on all trays; the next was cut after so many seconds."""
    stages, attempts, now = [], [], t0_s
    for index, stage in enumerate(SUITE.stages[: upto + (cut_s is not None)]):
        cut = index == upto
        if stage.when == "suspect":
            row = Stage(index, stage.stage, None, 0, 0, now, now, Status.SKIPPED, "no suspicion to confirm")
        else:
            end = now + (cut_s or 0.0 if cut else stage.duration)
            status, why = (Status.ABORTED, "its controller was gone") if cut else (Status.COMPLETE, "")
            row = Stage(index, stage.stage, stage.phase, stage.duration, stage.settle, now, end, status, why, trays)
            for step in stage.steps if not cut else ():
                for part in CHECKS[step.check].parts(trays or TRAYS):
                    one = Attempt(stage.stage, step.check, part, 1, Status.COMPLETE, Result.UNKNOWN, end, end + 0.5)
                    attempts.append(one)
            now = end + 1
        stages.append(row)
    return Proof(stages, attempts)


def names(many: Iterable[Owed]) -> set[tuple[str, str, str]]:
    return {(SUITE.stages[one.stage].stage, one.check, one.part) for one in many}


def everything() -> set[tuple[str, str, str]]:
    return names(owed(make(), SUITE, CHECKS, Proof()))


WHOLE = len(SUITE.stages)


# ---------------------------------------------------------------- a run that was cut


def test_nothing_done_owes_everything_and_everything_done_owes_nothing() -> None:
    assert {stage for stage, _, _ in everything()} == {stage.stage for stage in SUITE.stages}
    assert ("audit", "collective", RACK) in everything()
    assert owed(make(), SUITE, CHECKS, went(WHOLE)) == []


def test_a_cut_stage_is_owed_whole_with_the_ramp_that_leads_up_to_it() -> None:
    proof = went(3, cut_s=17.0)
    many = owed(make(), SUITE, CHECKS, proof)
    assert {stage for stage, _, _ in names(many)} == {"load", "cool", "load-again"}
    legs = rest(make(), many, proof).legs
    assert [leg.stage.stage for leg in legs] == ["ramp", "load", "cool", "load-again"]
    assert [leg.stage.duration for leg in legs] == [5, 30, 5, 30]
    assert all(leg.trays is None for leg in legs)


@pytest.mark.parametrize(("cut_s", "left_s"), [(5.0, 30.0), (12.0, 30.0), (15.0, 27.0), (21.0, 21.0), (29.0, 21.0)])
def test_a_stage_that_may_be_pieced_together_owes_its_rest(cut_s: float, left_s: float) -> None:
    """30 s of which 12 settle: what came after settling is had; at least half of the 18 judged seconds come in one piece."""
    pieced = suite(cut="rest")
    proof = went(3, cut_s=cut_s)
    legs = {leg.stage.stage: leg for leg in rest(make(pieced), owed(make(pieced), pieced, CHECKS, proof), proof).legs}
    assert legs["load"].stage.duration == left_s


def test_an_attempt_without_an_answer_is_owed_and_a_fail_is_not() -> None:
    proof = went(WHOLE)
    dark = [("nvme", "t01"), ("links", "t01")]
    lost = [replace(a, status=Status.ERROR, why="it is dark") if (a.name, a.part) in dark else a for a in proof.attempts]
    many = owed(make(), SUITE, CHECKS, replace(proof, attempts=lost))
    assert {(o.stage, o.check) for o in many if o.why == "it is dark"} == {(s, c) for s in (1, 3) for c in ("nvme", "links")}
    assert {one.part for one in many if one.stage < 5} == {"t01"}


def test_a_tray_that_was_not_read_often_enough_owes_that_stage() -> None:
    proof = replace(went(WHOLE), holes={("load", "t02"): "t02.g1 gpu.power was not read often enough"})
    many = [one for one in owed(make(), SUITE, CHECKS, proof) if one.stage < 5]
    assert names(many) == {("load", c, "t02") for c in ("gpu-load", "nvme", "links")} | {("cool", "ecc", "t02")}
    legs = rest(make(), many, proof).legs
    assert [(leg.stage.stage, leg.trays) for leg in legs] == [("ramp", ("t02",)), ("load", ("t02",)), ("cool", ("t02",))]
    assert legs[1].on("nvme", list(TRAYS)) == ["t02"]


def test_load_is_compared_with_the_idle_before_it() -> None:
    proof = replace(went(WHOLE), holes={("idle", "t02"): "not read"})
    assert ("load", "gpu-load", "t02") in names(owed(make(), SUITE, CHECKS, proof))


def test_a_suspicion_is_asked_about_again_when_what_raises_it_is_owed() -> None:
    assert ("load-again", "ecc", "t00") in names(owed(make(), SUITE, CHECKS, went(3, cut_s=1.0)))
    proof = replace(went(WHOLE), holes={("load", "t02"): "not read"})
    again = {part for stage, _, part in names(owed(make(), SUITE, CHECKS, proof)) if stage == "load-again"}
    assert again == set(TRAYS), "a suspicion is raised against the others"


# ---------------------------------------------------------------- a part that was replaced


def test_a_switch_tray_that_says_no_serial_is_known_by_the_build_record() -> None:
    def record(serial: str) -> dict[str, Expected]:
        return {"s0": Expected(serial=serial)}

    assert announced({}, record("A"), record("A"), ()) == {}
    assert announced({}, {}, record("B"), ()) == {}, "it was not known which one it was"
    assert announced({}, record("A"), record("B"), ()) == {"s0": "s0 was A, the build record now says B"}
    assert announced({"s0": {"host": {"serial": "B"}}}, record("A"), record("B"), ()) == {}, "only the record was wrong"


def owed_after(part: str) -> set[tuple[str, str, str]]:
    proof = replace(went(WHOLE), voided=[Voided(part, 1000.0, "replaced")])
    return {one for one in names(owed(make(), SUITE, CHECKS, proof)) if one[0] != "load-again"}


def test_a_tray_takes_its_own_evidence_along_and_that_of_the_rack() -> None:
    of_t01 = {one for one in everything() if one[2] in ("t01", RACK) and one[0] != "load-again"}
    assert owed_after("t01") == owed_after("t01.g2") == of_t01


def test_a_drive_takes_along_what_reads_drives() -> None:
    assert owed_after("t01.d0") == {("audit", "inventory", "t01"), ("idle", "nvme", "t01"), ("load", "nvme", "t01")}


def test_a_switch_takes_along_every_link() -> None:
    found = owed_after("s3")
    assert {(stage, check) for stage, check, _ in found if check == "links"} == {("idle", "links"), ("load", "links")}
    assert ("audit", "collective", RACK) in found
    assert {part for stage, check, part in found if check == "links"} == set(TRAYS)
    assert not {check for stage, check, _ in found if stage == "idle"} - {"links"}


def test_what_was_tested_after_the_repair_is_proved() -> None:
    first, again = went(WHOLE), went(WHOLE, t0_s=2000.0, trays=("t01",))
    both = Proof([*first.stages, *again.stages], [*first.attempts, *again.attempts], [Voided("t01", 1000.0, "replaced")])
    assert names(owed(make(), SUITE, CHECKS, both)) == set()


# ---------------------------------------------------------------- properties

PARTS = st.sampled_from(["t00", "t01.g2", "t02.c1", "t01.n0", "t02.d1", "s3", "x1", "p2", "cdu"])
PROOFS = st.builds(
    lambda upto, cut, part, t_s: replace(
        went(min(upto, WHOLE - 1), cut), voided=[Voided(part, t_s, "replaced")] if part else []
    ),
    st.integers(0, WHOLE), st.none() | st.floats(0, 30), st.none() | PARTS, st.floats(0, 100),
)  # fmt: skip


def doing(proof: Proof, of: plan.Plan, t0_s: float) -> Proof:
    """The evidence after these legs went through."""
    stages, attempts, now = list(proof.stages), list(proof.attempts), t0_s
    for leg in of.legs:
        end = now + leg.stage.duration
        of_stage = (leg.stage.phase, leg.stage.duration, leg.stage.settle, now, end, Status.COMPLETE, "", leg.trays)
        stages.append(Stage(leg.index, leg.stage.stage, *of_stage))
        for step in leg.steps:
            parts = leg.on(step.check, CHECKS[step.check].parts((*of.trays, *of.switches)))
            done = (9, Status.COMPLETE, Result.UNKNOWN, end, end)
            attempts += [Attempt(leg.stage.stage, step.check, part, *done) for part in parts]
        now = end
    return replace(proof, stages=stages, attempts=attempts)


@given(PROOFS)
def test_what_is_owed_once_done_is_owed_no_more(proof: Proof) -> None:
    many = owed(make(), SUITE, CHECKS, proof)
    after = doing(proof, rest(make(), many, proof), 10_000.0)
    assert owed(make(), SUITE, CHECKS, after) == []


@given(PROOFS)
def test_nothing_is_owed_that_the_plan_does_not_ask_for_and_nothing_twice(proof: Proof) -> None:
    many = owed(make(), SUITE, CHECKS, proof)
    assert names(many) <= everything()
    assert len(names(many)) == len(many)
    assert all(one.why for one in many)


@given(PROOFS, PARTS)
def test_replacing_a_part_never_proves_anything(proof: Proof, part: str) -> None:
    before = names(owed(make(), SUITE, CHECKS, proof))
    after = replace(proof, voided=[*proof.voided, Voided(part, 9_000.0, "replaced")])
    assert before <= names(owed(make(), SUITE, CHECKS, after))


def test_a_check_of_the_rack_goes_with_any_gpu() -> None:
    rack_wide: list[Check] = [check for check in CHECKS.values() if check.scope == "rack"]
    assert rack_wide
    for part in ("t00", "t02.g1", "s0"):
        assert ("audit", "collective", RACK) in owed_after(part)
