"""Going on with a run: what it was, what it proved, what is owed of it. Reads the database; decides nothing by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnin.assess.case import gather
from burnin.assess.coverage import holes
from burnin.checks import CHECKS
from burnin.checks.base import Answer, Order
from burnin.errors import InputError
from burnin.rack.load import RackFile
from burnin.rack.schema import Catalogue, Rack
from burnin.run.job import Left
from burnin.run.keep import ARRIVE
from burnin.run.lock import Process
from burnin.run.owed import Owed, Proof, owed
from burnin.run.plan import Plan, make
from burnin.run.replaced import announced
from burnin.run.undo import pending
from burnin.store import Place, Run, Session, Store, Voided
from burnin.store.records import Stage as Went
from burnin.suites.schema import Suite

_JUMP_S = 1.0
"""At least so long after the last thing kept a new session begins, whatever clocks say."""


@dataclass(frozen=True, slots=True)
class Before:
    """What earlier sessions of a run left: see the fields of the Job that it becomes."""

    run: Run
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

    def elapsed_s(self, here: Process, mono_s: float, now: dt.datetime) -> float:
        """The run second that it is now.

        By the monotonic clock on the same boot of the same controller; elsewhere by the wall clocks, and never before what
        was kept last: a clock that jumped may shorten a gap, it cannot put new readings before old ones.
        """
        last = self.sessions[-1]
        if (last.host, last.boot) == (here.host, here.boot) and here.boot:
            now_s = mono_s - last.mono_s + last.t0_s
        else:
            now_s = (now - dt.datetime.fromisoformat(last.started)).total_seconds() + last.t0_s
        return max(now_s, self.last_s + _JUMP_S)


def look(store: Store, name: str, suite: Suite, file: RackFile) -> Before:
    """What is there of run `name`. Raises InputError when it is not a run of this suite, rack and profile."""
    run = store.run(name)
    config = store.config(run.id)
    for what, then, now in (
        ("rack", run.rack, file.rack.rack),
        ("suite", Suite.model_validate(config["suite"]), suite),
        ("profile", config["profile"], file.profile.model_dump(mode="json", by_alias=True, exclude_unset=True)),
    ):
        if then != now:
            how = f"of {what} {then}, not {now}" if what == "rack" else f"of another {what}, or this {what} was changed since"
            raise InputError(f"run {run.id} is {how}: a run goes on with what it began with; start a new one")
    trays, only = config["plan"]["trays"], tuple(config["plan"]["only"])
    sessions = store.sessions(run.id)
    since = sessions[-1].started if sessions else run.started
    tested = {tray.part: tray.identity for tray in store.trays(run.id) if tray.identity}
    enrolled = [one for one in store.enrollments(run.rack) if one.time > since]
    tried: dict[tuple[str, str, str], int] = {}
    for one in store.attempts(run.id):
        tried[one.stage, one.name, one.part] = max(one.attempt, tried.get((one.stage, one.name, one.part), 0))
    found = [one for one in store.evidence(run.id) if one.stage == ARRIVE]
    last_s = store.last_moment(run.id)
    return Before(
        run=run,
        plan=make(suite, file.rack, file.profile, CHECKS, only, [] if run.whole else trays),
        only=only,
        catalogue=Catalogue.model_validate(config["catalogue"]),
        sessions=tuple(sessions) or (Session(run.host, "", run.pid, "", run.operator, run.started, 0.0, 0.0),),
        last_s=last_s,
        tested=tested,
        replaced=announced(tested, Rack.model_validate(config["rack"]).expect, file.rack.expect, enrolled),
        places=store.places(run.id),
        tried=tried,
        as_found={one.part: Answer(Order(one.part, one.kind), True, one.body["body"]) for one in reversed(found)},
        left=left_in(suite, store.stages(run.id), last_s),
        undo=pending(store.log(run.id)),
    )


def left_in(suite: Suite, rows: Sequence[Went], last_s: float) -> Left | None:
    """The stage that was under way, if it is one that may go on by itself."""
    row = rows[-1] if rows else None
    if row is None or row.t1_s is not None or suite.stages[row.position].detach is None:
        return None
    return Left(row.position, row.name, row.t0_s, row.planned_s, row.trays, last_s)


def proof(store: Store, run: str, replaced: Mapping[str, str], now_s: float) -> Proof:
    """What the run has proved so far; `replaced`: parts that are known to be others from `now_s` on."""
    voided = [*store.voided(run), *(Voided(part, now_s, why) for part, why in replaced.items())]
    return Proof(store.stages(run), store.attempts(run), voided, holes(gather(store, run)))


def what_is_owed(store: Store, before: Before, suite: Suite) -> list[Owed]:
    """As far as the database and the rack file know, without asking the trays."""
    return owed(before.plan, suite, CHECKS, proof(store, before.run.id, before.replaced, before.last_s + _JUMP_S))
