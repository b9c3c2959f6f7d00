"""What is still owed: suite x rack x evidence -> the steps that must be done, on which parts, and why. Pure.

Resuming a run that was cut, going on with one that could not measure something, and testing again after a repair are the same
question. What was proved stays proved, a FAIL too: it is measured. Owed is

    what was never done, or could not be measured (ERROR), or was refused or stopped
    a stage that was cut: whole, or its rest where the suite says so (`cut: rest`), on every tray that was in it
    a stage in which a tray was not read often enough, that an interlock kept it from being loaded in, or in which its agent
        ended the load because the controller was not heard, or no margin was read
    what was shown of a part that has been replaced since (burnin.assess.domain)
    and what only means something after it: load after an idle baseline that is owed, the cool-down after load that is owed

A ramp that leads up to owed load is done with it. Stages that only a suspicion calls for are asked about again, unless they
went through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from burnin.assess import went
from burnin.assess.domain import beside, since
from burnin.checks.base import RACK, Check
from burnin.events import Status
from burnin.run.plan import Leg, Plan
from burnin.store.records import Attempt, Voided
from burnin.store.records import Stage as Went
from burnin.suites.schema import Stage, Suite


@dataclass(frozen=True, slots=True)
class Owed:
    """One step that must be done. `stage` is its number in the suite."""

    stage: int
    check: str
    part: str
    why: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What there is. `holes`: (stage, tray or rack) -> what was not read often enough there, or why it says nothing of load."""

    stages: Sequence[Went] = ()
    attempts: Sequence[Attempt] = ()
    voided: Sequence[Voided] = ()
    holes: Mapping[tuple[str, str], str] = field(default_factory=dict)


def owed(plan: Plan, suite: Suite, checks: Mapping[str, Check], proof: Proof) -> list[Owed]:
    """Every owed step of the whole plan, in its order."""
    found: dict[tuple[int, str, str], Owed] = {}
    for leg in plan.legs:
        if not _unasked(leg.stage, proof):
            for step in leg.steps:
                for part in checks[step.check].parts((*plan.trays, *plan.switches)):
                    if why := _why(leg.stage, checks[step.check], part, proof):
                        found[leg.index, step.check, part] = Owed(leg.index, step.check, part, why)
    for one in _after(plan, checks, list(found.values())):
        found.setdefault((one.stage, one.check, one.part), one)
    order = {leg.index: [step.check for step in leg.steps] for leg in plan.legs}
    return sorted(found.values(), key=lambda one: (one.stage, order[one.stage].index(one.check), one.part))


def rest(plan: Plan, many: Sequence[Owed], proof: Proof) -> Plan:
    """The plan of what is owed: the legs that are left, each on the parts that owe it, and ramps up to owed load."""
    legs: list[Leg] = []
    for leg in reversed(plan.legs):
        mine = [one for one in many if one.stage == leg.index]
        parts = {check: tuple(o.part for o in mine if o.check == check) for check in dict.fromkeys(o.check for o in mine)}
        if mine:
            trays = _trays(plan, (one.part for one in mine))
            steps = tuple(step for step in leg.steps if step.check in parts)
            legs.insert(0, Leg(leg.index, _left(leg.stage, trays or plan.trays, proof), steps, trays, parts, leg.own_s))
        elif legs and _leads_up(leg, legs[0]):
            trays = legs[0].trays
            legs.insert(0, Leg(leg.index, leg.stage, leg.steps, trays, None))
    return Plan(tuple(legs), plan.trays, plan.switches, plan.whole)


# ---------------------------------------------------------------- one step


def _why(stage: Stage, check: Check, part: str, proof: Proof) -> str:
    """Why this is owed; empty when it is proved."""
    from_s = since(check, part, proof.voided)
    tries = [one for one in proof.attempts if (one.stage, one.name, one.part) == (stage.stage, check.name, part)]
    valid = [one for one in tries if one.t0_s >= from_s]
    if not valid:
        new = [one.why for one in proof.voided if one.t_s == from_s] if tries or from_s > 0 else []
        return new[-1] if new else "it was not done"
    if valid[-1].status is not Status.COMPLETE:
        return valid[-1].why or f"it ended as {valid[-1].status}"
    if stage.phase is None:
        return proof.holes.get((stage.stage, part), "") if check.heats else ""
    row = went.judged(proof.stages, stage.stage, part, proof.voided) if part != RACK else went.last(proof.stages, stage.stage)
    if row is None or row.status is not Status.COMPLETE or row.t0_s < from_s:
        return (row.why if row else "") or "the stage was cut"
    return proof.holes.get((stage.stage, part), "")


def _unasked(stage: Stage, proof: Proof) -> bool:
    """A stage for suspicions that nobody raised: it was asked about, and nothing has changed since."""
    row = went.last(proof.stages, stage.stage)
    return stage.when == "suspect" and row is not None and row.status is Status.SKIPPED and not row.why.startswith("not loaded")


def _after(plan: Plan, checks: Mapping[str, Check], many: Sequence[Owed]) -> Iterator[Owed]:
    """What must be done again because what it is compared with, or comes from, is."""
    idle: set[str] = set()
    load: set[str] = set()
    for leg in plan.legs:
        if leg.stage.when == "suspect" and any(one.stage < leg.index and one.part in plan.trays for one in many):
            for step in leg.steps:
                for part in checks[step.check].parts((*plan.trays, *plan.switches)):
                    yield Owed(leg.index, step.check, part, "what it would be asked about is owed")
        phase = (leg.stage.phase or "").split("-")[0].split("@")[0]
        mine = {one.part for one in many if one.stage == leg.index and not beside(checks[one.check])}
        follows, why = set[str](), ""
        if phase == "idle":
            idle, load = mine, set()
        elif phase == "load":
            follows, why = idle, "the idle baseline before it is owed"
            load = load | mine | idle
        elif phase == "cool":
            follows, why = load, "the load before it is owed"
        if phase in ("idle", "load", "cool"):
            for step in leg.steps:
                for part in checks[step.check].parts(sorted(follows)) if follows else ():
                    yield Owed(leg.index, step.check, part, why)
        if phase == "cool":
            load = set()


# ---------------------------------------------------------------- legs


def _trays(plan: Plan, parts: Collection[str] | Iterator[str]) -> tuple[str, ...] | None:
    """The compute trays that a stage is done on; None: on all."""
    named = set(parts)
    if RACK in named or named >= set(plan.trays):
        return None
    return tuple(tray for tray in plan.trays if tray in named)


def _left(stage: Stage, trays: Collection[str], proof: Proof) -> Stage:
    """The stage with the time that is left of it, by the tray that has least."""
    if stage.cut != "rest" or stage.phase is None:
        return stage
    judged = stage.duration - stage.settle
    unread = [tray for tray in trays if (stage.stage, tray) in proof.holes]
    proven = 0.0 if unread else min(went.proven_s(proof.stages, stage, tray, proof.voided) for tray in trays)
    return stage.model_copy(update={"duration": stage.settle + max(judged / 2, judged - proven)})


def _leads_up(leg: Leg, later: Leg) -> bool:
    ramp = leg.stage.load is not None and not (leg.stage.phase or "").startswith("load")
    return ramp and later.stage.load is not None and later.index == leg.index + 1
