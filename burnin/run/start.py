"""From files to a verdict: sets a run up, runs it, judges it, and keeps what was said."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import burnin
from burnin.assess.case import gather
from burnin.assess.judge import judge
from burnin.checks import CHECKS
from burnin.events import Verdict
from burnin.rack.load import RackFile
from burnin.rack.schema import Catalogue
from burnin.run.job import Event, Job, Kept
from burnin.run.keep import Keep
from burnin.run.lock import Process
from burnin.run.loop import Run
from burnin.run.owed import owed, rest
from burnin.run.plan import Plan
from burnin.run.resume import Before, proof
from burnin.run.tray import TraySession
from burnin.store import RunStart, Session, Store, Voided
from burnin.suites.schema import Suite
from burnin.transport.agent import AgentLink
from burnin.transport.bmcs import Bmcs, services
from burnin.transport.known import fingerprint
from burnin.transport.package import build
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.transport.ssh import Dialer, closing
from burnin.verdict.document import canonical

COMPLETE, STOPPED = "COMPLETE", "STOPPED"


class _Clock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Request:
    """What somebody asked to be run."""

    file: RackFile
    suite: Suite
    catalogue: Catalogue
    plan: Plan
    only: tuple[str, ...]
    operator: str


def new_id(now: dt.datetime) -> str:
    """A run's name: the moment it began, UTC, and four letters against coincidence."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def config(request: Request) -> dict[str, Any]:
    """The run's own copy of everything judging needs. Secrets are named in rack files, never written, so none is here."""
    rack = request.file.rack
    return {
        "rack": rack.model_dump(mode="json", by_alias=True),
        "rack_file": os.path.abspath(request.file.path),
        "profile": request.file.profile.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "suite": request.suite.model_dump(mode="json", by_alias=True),
        "catalogue": request.catalogue.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "plan": {"trays": [*request.plan.trays, *request.plan.switches], "only": list(request.only)},
        "versions": {"burnin": burnin.__version__, "agent": build().sha256[:16], "python": platform.python_version()},
    }


async def execute(
    request: Request,
    store: Store,
    run_id: str,
    watch: Sequence[Callable[[Event | Kept], None]],
    begun: dt.datetime,
    before: Before | None = None,
) -> tuple[Verdict, bool]:
    """Run and judge: the verdict, and whether the run went through (False: it was interrupted).

    `before`: go on with a run that earlier sessions left.
    SIGINT and SIGTERM end it in order: load off, trays left, evidence kept. Raises StoreError when evidence cannot be kept,
    InputError before anything was begun when a secret cannot be read.
    """
    rack, bmcs = request.file.rack, Bmcs(services(request.file))
    here, mono_s = Process.me(), time.monotonic()
    session = Session(
        here.host, here.boot, here.pid, here.started, request.operator, _iso(begun), mono_s,
        before.elapsed_s(here, mono_s, begun) if before else 0.0, rack.model_dump(mode="json", by_alias=True),
        before.sessions[-1].number + 1 if before else 1,
    )  # fmt: skip
    if before is not None:
        store.continue_run(run_id, session, config(request))
        store.void(Voided(part, session.t0_s, why) for part, why in before.replaced.items())
    else:
        _begin(request, store, run_id, session)
    through = await _run(request, store, run_id, watch, begun.date(), mono_s - session.t0_s, before, bmcs)
    store.end_run(run_id, _iso(dt.datetime.now(dt.UTC)), COMPLETE if through else STOPPED)
    verdict = await asyncio.to_thread(lambda: judge(gather(store, run_id)))
    store.keep_verdict(verdict, canonical(verdict))
    return verdict, through


def _begin(request: Request, store: Store, run_id: str, session: Session) -> None:
    rack, plan = request.file.rack, request.plan
    used = {w.interlock: w for w in rack.waive if w.interlock in request.file.profile.interlocks}
    store.begin_run(
        RunStart(
            id=run_id,
            rack=rack.rack,
            profile=request.file.profile.profile,
            suite=request.suite.suite,
            ships=request.suite.ships,
            whole=plan.whole,
            operator=request.operator,
            started=session.started,
            config=config(request),
            waivers=tuple({k: str(v) for k, v in w.model_dump(mode="json").items()} for w in used.values()),
            host=session.host,
            pid=session.pid,
        ),
        session,
    )


async def _run(
    request: Request,
    store: Store,
    run_id: str,
    watch: Sequence[Callable[[Event | Kept], None]],
    today: dt.date,
    start_s: float,
    before: Before | None,
    bmcs: Bmcs,
) -> bool:
    dial = dialer(request.file)
    clock, agent, stop = _Clock(), build(), asyncio.Event()
    keys = {part: dial.known.keys(at.host, at.port) for part, at in dial.endpoints.items()}
    addresses = {
        part: (f"{at.host}:{at.port}", fingerprint(keys[part][0]) if keys[part] else None) for part, at in dial.endpoints.items()
    }
    keep = Keep(store, run_id, addresses, stop, watch, before.tested if before else {}, lambda: clock.now() - start_s)
    places = before.places if before else {}
    suite = request.suite

    def session(tray: str) -> TraySession:
        return TraySession(
            tray,
            lambda on_records: AgentLink(dial, tray, agent, run_id, on_records),
            keep.event,
            clock,
            start_s,
            suite.lease,
            {"fast_s": suite.sample, "slow_s": suite.sample_slow, "links_s": suite.sample_links},
            astuple(places[tray]) if tray in places else ("", -1, -1),
        )

    def replan() -> Plan:
        known = proof(store, run_id, {}, 0.0)
        return rest(request.plan, owed(request.plan, suite, CHECKS, known), known)

    job = Job(
        plan=request.plan,
        rack=request.file.rack,
        profile=request.file.profile,
        suite=suite,
        catalogue=request.catalogue,
        sessions={tray: session(tray) for tray in request.plan.trays},
        knock=lambda part: _knock(dial, part),
        keeper=keep,
        clock=clock,
        start_s=start_s,
        today=today,
        doors={"shell": Shell(dial).order, "redfish": bmcs.order},
        stop=stop,
        tried=before.tried if before else {},
        as_found=before.as_found if before else {},
        replan=replan if before else None,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        return await Run(job).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await bmcs.close()
        await dial.close()
        await keep.close()


async def _knock(dial: Dialer, part: str) -> None:
    async with closing(await dial.connect(part)):
        return


def _iso(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
