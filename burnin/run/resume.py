"""Going on with a run: what it was, what it proved, what is owed of it. Reads the database; decides nothing by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from burnin.assess.case import gather
from burnin.assess.coverage import holes
from burnin.assess.went import cut_off, kept_off
from burnin.checks import CHECKS
from burnin.checks.base import RACK, Answer, Order
from burnin.errors import InputError
from burnin.rack.load import RackFile
from burnin.rack.parts import tray_of
from burnin.rack.schema import SUPPLY, Catalogue, Profile, Rack
from burnin.run.job import Left
from burnin.run.keep import ARRIVE
from burnin.run.lock import Process
from burnin.run.owed import Owed, Proof, owed
from burnin.run.plan import Plan, make
from burnin.run.replaced import announced, since
from burnin.run.tray import TIED
from burnin.run.undo import pending
from burnin.store import Place, Run, Session, Store, Voided
from burnin.store.records import Stage as Went
from burnin.suites.schema import Suite

SHOWN = 4
LEFT = "this run goes on with what it began with; a new run takes the new one"
TAKEN = "that protects the rack, and this run goes on under it as it is now"
PROTECTS = ("gpu.tlimit.start", "gpu.tlimit.cutoff", *SUPPLY)
"""Limits that no check judges by."""
_JUMP_S = 1.0
"""At least so long after the last thing kept a new session begins, whatever clocks say."""


@dataclass(frozen=True, slots=True)
class Before:
    """What earlier sessions of a run left: see the fields of the Job that it becomes."""

    run: Run
    file: RackFile
    """The rack as it is now, with the profile that the run began with."""
    suite: Suite
    changed: tuple[str, ...]
    """What the run does not take over of suite and profile as they are now, a sentence each."""
    plan: Plan
    only: tuple[str, ...]
    catalogue: Catalogue
    sessions: tuple[Session, ...]
    last_s: float
    tested: Mapping[str, Mapping[str, Any]]
    replaced: Mapping[str, str]
    places: Mapping[str, Place]
    tried: Mapping[tuple[str, str, str], int]
    as_found: Mapping[str, Answer]
    left: Left | None = None
    undo: Mapping[str, Order] = field(default_factory=dict)
    agent: str = ""
    """The beginning of the hash of the agent that it had on its trays."""
    tied: Mapping[str, float] = field(default_factory=dict)
    """Tray -> run seconds less its monotonic clock, as known when it was attached to last."""
    ours_s: float | None = None
    """Run seconds less this machine's monotonic clock, as trays tell it (burnin.run.reclock)."""

    def elapsed_s(self, here: Process, mono_s: float, now: dt.datetime) -> float:
        """The run second that it is now.

        By the monotonic clock on the same boot of the same controller; elsewhere by the trays' own, and where none of their
        agents is left, by the wall clocks. Never before what was kept last: a clock that jumped may shorten a gap, it cannot
        put new readings before old ones.
        """
        last = self.sessions[-1]
        if (last.host, last.boot) == (here.host, here.boot) and here.boot:
            now_s = mono_s - last.mono_s + last.t0_s
        elif self.ours_s is not None:
            now_s = mono_s + self.ours_s
        else:
            now_s = (now - dt.datetime.fromisoformat(last.started)).total_seconds() + last.t0_s
        return max(now_s, self.last_s + _JUMP_S)


def look(store: Store, name: str, suite: Suite, file: RackFile) -> Before:
    """What is there of run `name`. Raises InputError when it is not a run of a suite, rack and profile of these names.

    A run goes on with what it began with: limits that change halfway would be two runs' evidence under one verdict. But what
    protects the rack (guard, interlocks, cut-off, kW and kW/s) judges no part, and is taken as the site has it now.
    """
    run = store.run(name)
    config = store.config(run.id)
    for what, then, now in (
        ("rack", run.rack, file.rack.rack),
        ("suite", run.suite, suite.suite),
        ("profile", run.profile, file.profile.profile),
    ):
        if then != now:
            raise InputError(f"run {run.id} is of {what} {then}, not {now}: give what it began with, or start a new run")
    try:
        began = Suite.model_validate(config["suite"]), Profile.model_validate(config["profile"])
    except ValidationError:
        version = config["versions"]["burnin"]
        raise InputError(f"run {run.id} began with burnin {version}: this one cannot read its suite or profile") from None
    profile = _guarded_as(file.profile, began[1])
    changed = (
        *_changed("suite", began[0].suite, began[0], suite),
        *_changed("profile", run.profile, profile, file.profile),
        *_changed("profile", run.profile, began[1], profile, TAKEN),
    )
    suite, file = began[0], replace(file, profile=profile)
    trays, only = config["plan"]["trays"], tuple(config["plan"]["only"])
    sessions = store.sessions(run.id)
    tested = {tray.part: tray.identity for tray in store.trays(run.id) if tray.identity}
    enrolled = since(store.enrollments(run.rack), config, sessions[-1].started if sessions else run.started)
    tried: dict[tuple[str, str, str], int] = {}
    for one in store.attempts(run.id):
        tried[one.stage, one.name, one.part] = max(one.attempt, tried.get((one.stage, one.name, one.part), 0))
    found = [one for one in store.evidence(run.id) if one.stage == ARRIVE]
    replaced = announced(tested, Rack.model_validate(config["rack"]).expect, file.rack.expect, enrolled)
    last_s, log = store.last_moment(run.id), store.log(run.id)
    return Before(
        run=run,
        file=file,
        suite=suite,
        changed=changed,
        plan=make(suite, file.rack, file.profile, CHECKS, only, [] if run.whole else trays),
        only=only,
        catalogue=Catalogue.model_validate(config["catalogue"]),
        sessions=tuple(sessions) or (Session(run.host, "", run.pid, "", run.operator, run.started, 0.0, 0.0),),
        last_s=last_s,
        tested=tested,
        replaced=replaced,
        places=store.places(run.id),
        tried=tried,
        as_found={
            one.part: Answer(Order(one.part, one.kind), True, one.body["body"])
            for one in found  # of a tray that was replaced there are several, the last is its own
            if not any(tray_of(part) == one.part for part in replaced if part.count(".") == 0 or ".g" in part)
        },
        left=left_in(suite, store.stages(run.id), last_s),
        undo=pending(log),
        agent=str(config["versions"]["agent"]),
        tied={line.part: float(line.code) for line in log if line.kind == TIED},
    )


def _guarded_as(now: Profile, then: Profile) -> Profile:
    """What judges as it was then, what protects as it is now."""
    limits = {**then.limits, **{name: now.limits[name] for name in PROTECTS if name in now.limits}}
    return then.model_copy(update={"guard": now.guard, "interlocks": now.interlocks, "limits": limits})


def _changed(what: str, name: str, then: BaseModel, now: BaseModel, does: str = LEFT) -> Iterator[str]:
    places = list(_differ(then.model_dump(mode="json", by_alias=True), now.model_dump(mode="json", by_alias=True)))
    if places:
        where = ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
        yield f"{what} {name} was changed since ({where}): {does}"


def _differ(then: Any, now: Any, at: str = "") -> Iterator[str]:
    """Where two documents differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from _differ(then.get(key), now.get(key), f"{at}.{key}" if at else str(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differ(one, other, f"{at}[{index}]")
    elif then != now:
        yield at


def left_in(suite: Suite, rows: Sequence[Went], last_s: float) -> Left | None:
    """The stage that was under way, if it is one that may go on by itself."""
    row = rows[-1] if rows else None
    if row is None or row.t1_s is not None or suite.stages[row.position].detach is None:
        return None
    return Left(row.position, row.name, row.t0_s, row.planned_s, row.trays, last_s)


def proof(store: Store, run: str, replaced: Mapping[str, str], now_s: float) -> Proof:
    """What the run has proved so far; `replaced`: parts that are known to be others from `now_s` on."""
    voided = [*store.voided(run), *(Voided(part, now_s, why) for part, why in replaced.items())]
    case = gather(store, run)
    open_ = holes(case)
    for line in kept_off(case.log, case.stages, case.sessions):
        for part in (tray_of(line.part), RACK):
            open_.setdefault((line.source, part), f"{line.part} was not loaded: {line.text}")
    for (stage, gpu), line in cut_off(case.log, case.stages, voided).items():
        for part in (tray_of(gpu), RACK):
            open_.setdefault((stage, part), line.text)
    return Proof(case.stages, store.attempts(run), voided, open_)


def what_is_owed(store: Store, before: Before, suite: Suite) -> list[Owed]:
    """As far as the database and the rack file know, without asking the trays."""
    return owed(before.plan, suite, CHECKS, proof(store, before.run.id, before.replaced, before.last_s + _JUMP_S))
