"""Every step that was owed, judged: the check's own judge on the evidence of its last attempt. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from burnin.assess.case import Case, last_state, row_of
from burnin.assess.went import cut, last, stretch
from burnin.checks import ALWAYS, CHECKS
from burnin.checks.base import RACK, Context, Evidence
from burnin.checks.gpu_load import attained, not_reached
from burnin.events import Measurement, Result, Status, Step
from burnin.rack.parts import tray_of
from burnin.store.records import Attempt
from burnin.store.records import Stage as Went
from burnin.suites.schema import Stage
from burnin.suites.schema import Step as Asked
from burnin.wire import LET_GO

LEAVE = "leave"
_LEAVE_STAGE = Stage.model_validate({"stage": LEAVE, "steps": list(ALWAYS)})


def steps(case: Case) -> list[Step]:
    """All steps in the order of the suite, then what every run does at its end."""
    out: list[Step] = []
    for stage in case.suite.stages:
        for asked in stage.steps:
            if case.only and asked.check not in case.only:
                continue
            if owed(stage, last(case.stages, stage.stage)):
                parts = CHECKS[asked.check].parts(case.trays)
                out += [_step(case, stage, row_of(case, stage.stage, part), asked, part) for part in parts]
    for name in ALWAYS:
        out += [_step(case, _LEAVE_STAGE, None, Asked.model_validate({"check": name}), tray) for tray in case.compute]
    return out


def owed(stage: Stage, went: Went | None) -> bool:
    """A stage that only a suspicion calls for is owed once it began; all others always."""
    return stage.when == "always" or (went is not None and went.phase is not None)


def unloaded(case: Case) -> dict[str, frozenset[str]]:
    """Stage -> GPUs whose load was not reached, or not known to be reached, in it (design rule 3)."""
    out = {}
    for one in case.telemetry.stretches:
        stage = next(s for s in case.suite.stages if s.stage == one.stage)
        if stage.load is not None:
            evidence = Evidence(telemetry=case.telemetry, stretch=one, log=case.log)
            loaded = {gpu for gpu in case.gpus() if attained(evidence, gpu, stage, case.suite)}
            out[stage.stage] = frozenset(case.gpus()) - loaded
    return out


def _step(case: Case, stage: Stage, went: Went | None, asked: Asked, part: str) -> Step:
    tries = [a for a in case.attempts if (a.stage, a.name, a.part) == (stage.stage, asked.check, part)]
    if not tries:
        why = "the run ended before it" if went is None or went.t1_s is None else went.why or "it was not run"
        return Step(asked.check, stage.stage, part, Status.ABORTED, Result.UNKNOWN, 0, (), why)
    last = tries[-1]
    if last.status is Status.SKIPPED:
        return Step(asked.check, stage.stage, part, last.status, Result.UNKNOWN, len(tries), (), last.why)
    measurements = tuple(_measure(case, stage, went, asked, part, last))
    bad = {(one.name, one.part) for one in measurements if one.result is Result.FAIL}
    before = [*_in_cuts(case, stage, asked, part, last), *_in_earlier(case, stage, went, asked, part, tries[:-1])]
    measurements += tuple({(one.name, one.part): one for one in reversed(before) if (one.name, one.part) not in bad}.values())
    results = {m.result for m in measurements if not _waits(case, asked.check, m)}
    if Result.FAIL in results:
        result = Result.FAIL
    elif last.status is not Status.COMPLETE or Result.UNKNOWN in results or not measurements:
        result = Result.UNKNOWN
    else:
        result = Result.PASS
    return Step(asked.check, stage.stage, part, last.status, result, len(tries), measurements, last.why)


def _waits(case: Case, check: str, one: Measurement) -> bool:
    """An identity that the build record does not state: unknown, but only a suite that ships a rack must know it."""
    advisory = {q.name for q in CHECKS[check].quantities if q.advisory}
    return one.result is Result.UNKNOWN and one.name in advisory and not case.suite.ships


def given(case: Case, stage: Stage, went: Went | None, asked: Asked, part: str, attempt: int) -> tuple[Context, Evidence]:
    """What a check's judge is given of one attempt at a step."""
    end = went.t1_s if went is not None and went.t1_s is not None else float("inf")
    trays = case.compute if part == RACK else (part,)
    states = [last_state(case, tray, end) for tray in trays]
    evidence = Evidence(
        answers=case.answers.get((stage.stage, asked.check, part, attempt), ()),
        telemetry=case.telemetry,
        stretch=stretch(stage, went),
        log=[line for line in case.log if tray_of(line.part) in trays and line.t_s <= end],
        sources=_sources(case, part),
        lost=any(state is None or state.state != "ready" for state in states),
    )
    rack_wide = trays if part == RACK else ()
    return Context(part, case.rack, case.profile, case.suite, stage, case.catalogue, asked.args, rack_wide), evidence


def _measure(case: Case, stage: Stage, went: Went | None, asked: Asked, part: str, last: Attempt) -> Iterator[Measurement]:
    check = CHECKS[asked.check]
    context, evidence = given(case, stage, went, asked, part, last.attempt)
    gap = (
        _not_attained(case, stage, evidence)
        if check.loaded and stage.load is not None and stage.phase and stage.phase.startswith("load")
        else {}
    )
    for one in check.judge(context, evidence):
        why = gap.get(one.part)
        if why is not None and one.result is Result.PASS:
            yield replace(one, result=Result.UNKNOWN, reason="not_attained", why=why)
        else:
            yield one


def _in_cuts(case: Case, stage: Stage, asked: Asked, part: str, last: Attempt) -> Iterator[Measurement]:
    """What was measured bad before the stage was cut and run again: a limit that was violated stays violated."""
    for row in cut(case.stages, stage.stage, part, case.voided) if part in case.compute else ():
        for one in _measure(case, stage, row, asked, part, replace(last, attempt=0)):
            if one.result is Result.FAIL:
                yield replace(one, why=f"{one.why or f'{one.name} was bad'} (before the stage was cut)")


def _in_earlier(
    case: Case, stage: Stage, went: Went | None, asked: Asked, part: str, tries: list[Attempt]
) -> Iterator[Measurement]:
    """What an attempt measured before it broke off, and was not good: a later attempt that sees nothing does not undo it."""
    for one in tries:
        answers = case.answers.get((stage.stage, asked.check, part, one.attempt), ())
        if any(answer.ok for given in answers for answer in given):
            for m in _measure(case, stage, went, asked, part, one):
                if m.result is Result.FAIL or (m.result is Result.UNKNOWN and m.value is not None):
                    yield replace(m, why=f"{m.why or f'{m.name} was {m.value}'} (in attempt {one.attempt}, which broke off)")


def _not_attained(case: Case, stage: Stage, evidence: Evidence) -> dict[str, str]:
    out = {}
    for gpu in case.gpus():
        for one in (evidence, *_rests(case, stage, gpu, evidence)):
            if not attained(one, gpu, stage, case.suite):
                out[gpu] = not_reached(one, gpu, stage)
    return out


def _rests(case: Case, stage: Stage, gpu: str, evidence: Evidence) -> Iterator[Evidence]:
    """Where a cut stage owes only its rest, the load must have been reached in what counts of it, too."""
    for row in cut(case.stages, stage.stage, tray_of(gpu), case.voided) if stage.cut == "rest" else ():
        one = stretch(stage, row)
        if one is not None and one.judged[0] < one.judged[1]:
            yield replace(evidence, stretch=one)


def _sources(case: Case, tray: str) -> dict[str, str | None]:
    """Why XID events and kernel log were not watched, as the agent said at some time; None where they always were."""
    out: dict[str, str | None] = {}
    for line in case.log:
        if line.kind == "source" and line.part == tray:
            known = out.setdefault(line.code, None)
            out[line.code] = (line.text or known) if known in (None, LET_GO) else known
    return {source: out.get(source, "missing") for source in ("xid", "kmsg")}
