"""From files to a verdict: sets a run up, runs it, judges it, and keeps what was said."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import platform
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import burnin
from burnin.assess.baseline import of_site
from burnin.assess.case import gather
from burnin.assess.judge import judge
from burnin.checks import CHECKS
from burnin.events import LogLine, Verdict
from burnin.rack.load import RackFile
from burnin.rack.parts import tray_of
from burnin.rack.schema import WHERE_READ, Catalogue
from burnin.run.beside import drop_ways, keep_ways
from burnin.run.ending import Stop
from burnin.run.facility import Facility
from burnin.run.guard import Guardian, configuration
from burnin.run.job import Event, Job, Kept
from burnin.run.keep import Keep
from burnin.run.leases import UNNAMED, Leases
from burnin.run.live import Live
from burnin.run.lock import Process
from burnin.run.loop import Run
from burnin.run.owed import owed, rest
from burnin.run.person import Person
from burnin.run.plan import Plan
from burnin.run.pytests import Pytests
from burnin.run.resume import Before, proof
from burnin.run.straight import ways_of
from burnin.run.tray import TraySession
from burnin.store import REFUSED, RunStart, Session, Store, Voided
from burnin.suites.schema import Suite
from burnin.transport.agent import AgentLink, Claim
from burnin.transport.bmcs import Bmcs, services
from burnin.transport.known import fingerprint
from burnin.transport.package import build
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.transport.ssh import Dialer, closing
from burnin.verdict.document import canonical

FLUSH_S = 3.0
"""How long a controller that is told to end waits for its disk."""
COMPLETE, STOPPED = "COMPLETE", "STOPPED"
"""How a run may end, unless it was REFUSED."""


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
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Questions' names -> what a person answered beforehand."""
    ask: Callable[[str], str] | None = None
    """Asks somebody at the terminal; None where nobody sits there."""


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
        "baseline": of_site(),
        "versions": {"burnin": burnin.__version__, "agent": build().sha256[:16], "python": platform.python_version()},
    }


def _config(request: Request, store: Store) -> dict[str, Any]:
    """And how many parts of this rack were enrolled by now: those that come later replace what was tested."""
    return {**config(request), "enrolled": len(store.enrollments(request.file.rack.rack))}


async def execute(
    request: Request,
    store: Store,
    run_id: str,
    watch: Sequence[Callable[[Event | Kept], None]],
    begun: dt.datetime,
    before: Before | None = None,
) -> tuple[Verdict, bool]:
    """Run and judge: the verdict, and False when it was interrupted (a run that is stopped in other ways has a verdict too).

    `before`: go on with a run that earlier sessions left.
    SIGINT and SIGTERM end it in order: load off, trays left, evidence kept; but SIGTERM leaves a detached stage as it is (the
    machine is rebooted, say), and ends this process at once. Raises StoreError when evidence cannot be kept,
    InputError before anything was begun when a secret cannot be read, NotReady when another run uses this database.
    """
    stop, verdict = Stop(), None
    live = Live(store.path, {"run": run_id, "pid": os.getpid(), **_head(request)}, stop.planned)
    await live.open()
    try:
        verdict = await _kept(request, store, run_id, [*watch, live.see], begun, before, stop)
        return verdict, not stop.interrupted
    finally:
        await live.close(verdict.word if verdict is not None else None)


def _head(request: Request) -> dict[str, Any]:
    """What a second screen needs to draw this run."""
    dumped, legs = config(request), [leg.index for leg in request.plan.legs]
    parts = {"profile": dumped["profile"], "suite": dumped["suite"], "trays": dumped["plan"]["trays"]}
    return {**parts, "rack": request.file.rack.rack, "legs": legs, "start_s": time.monotonic()}


async def _kept(
    request: Request,
    store: Store,
    run_id: str,
    watch: Sequence[Callable[[Event | Kept], None]],
    begun: dt.datetime,
    before: Before | None,
    stop: Stop,
) -> Verdict:
    rack, bmcs = request.file.rack, Bmcs(services(request.file))
    here, mono_s = Process.me(), time.monotonic()
    session = Session(
        here.host, here.boot, here.pid, here.started, request.operator, _iso(begun), mono_s,
        before.elapsed_s(here, mono_s, begun) if before else 0.0, rack.model_dump(mode="json", by_alias=True),
        before.sessions[-1].number + 1 if before else 1,
    )  # fmt: skip
    if before is not None:
        store.continue_run(run_id, session, _config(request, store), before.left.stage if before.left else None)
        store.void(Voided(part, session.t0_s, why) for part, why in before.replaced.items())
    else:
        _begin(request, store, run_id, session)
    status = await _run(request, store, run_id, watch, begun.date(), session, before, bmcs, stop)
    store.end_run(run_id, _iso(dt.datetime.now(dt.UTC)), status)
    verdict = await asyncio.to_thread(lambda: judge(gather(store, run_id)))
    store.keep_verdict(verdict, canonical(verdict))
    return verdict


def _begin(request: Request, store: Store, run_id: str, session: Session) -> None:
    rack, plan = request.file.rack, request.plan
    in_force = (*request.file.profile.interlocks, *request.file.profile.guard, *WHERE_READ)
    used = {w.interlock: w for w in rack.waive if w.interlock in in_force}
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
            config=_config(request, store),
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
    session: Session,
    before: Before | None,
    bmcs: Bmcs,
    stop: Stop,
) -> str:
    dial = dialer(request.file)
    clock, agent = _Clock(), build()
    keys = {part: dial.known.keys(at.host, at.port) for part, at in dial.endpoints.items()}
    addresses = {
        part: (f"{at.host}:{at.port}", fingerprint(keys[part][0]) if keys[part] else None) for part, at in dial.endpoints.items()
    }
    watch = [*watch, lambda event: guard.see(event)]
    keep = Keep(store, run_id, addresses, stop.asked, watch, before.tested if before else {}, session.t0_s)
    start_s = session.mono_s - session.t0_s
    here = Process.me()
    claim = Claim({**here.as_who(), "since": _iso(dt.datetime.now(dt.UTC)), "run": run_id}, Process.who_is_gone)
    places = before.places if before else {}
    suite = request.suite
    waived = [w.interlock for w in request.file.rack.waive if w.until >= today]
    told = configuration(request.file, run_id, store.path, request.plan.trays, suite.lease, waived)
    now_s: Callable[[], float] = lambda: clock.now() - start_s  # noqa: E731
    guard = Guardian(told, keep.event, stop.hard, now_s, start_s)
    stop.say = lambda by: keep.event(
        LogLine("rack", now_s(), "stop", "planned", f"a planned stop was asked for by {by or 'somebody'}", "live")
    )

    def tray_session(tray: str) -> TraySession:
        session = TraySession(
            tray,
            lambda on_records: AgentLink(dial, tray, agent, run_id, on_records, claim, keep.full),
            keep.event,
            clock,
            start_s,
            suite.lease,
            {"fast_s": suite.sample, "slow_s": suite.sample_slow, "links_s": suite.sample_links},
            astuple(places[tray]) if tray in places else ("", -1, -1),
        )
        session.lease_s, session.stage = lambda: leases.of(tray), lambda: leases.stage(tray)
        return session

    def replan() -> Plan:
        known = proof(store, run_id, {}, 0.0)
        return rest(request.plan, owed(request.plan, suite, CHECKS, known), known)

    watched = "leak_policy" in request.file.profile.interlocks and "leak_policy" not in waived
    leases = Leases(suite.lease, watched, lambda tray: job.facility.now(tray) if job.facility else UNNAMED, keep.event, now_s)
    sessions = {tray: tray_session(tray) for tray in request.plan.trays}

    def spoken(part: str, metric: str) -> bool:
        agent_says = sessions.get(tray_of(part))
        return agent_says is not None and agent_says.latest.get((part, metric), (0.0, None))[1] is not None

    asked = [part for part in bmcs.parts if part not in request.file.rack.trays or part in (*sessions, *request.plan.switches)]
    job = Job(
        plan=request.plan,
        rack=request.file.rack,
        profile=request.file.profile,
        suite=suite,
        catalogue=request.catalogue,
        sessions=sessions,
        knock=lambda part: _knock(dial, part),
        keeper=keep,
        clock=clock,
        start_s=start_s,
        today=today,
        doors={
            "shell": Shell(dial).order,
            "redfish": bmcs.order,
            "person": Person(request.answers, request.operator, request.ask).order,
            "pytest": Pytests(request.file.path).order,
        },
        facility=Facility(bmcs.order, asked, request.file.rack, keep.event, clock, start_s, suite.sample_slow, spoken)
        if asked
        else None,
        stop=stop.asked,
        gently=lambda: stop.gentle,
        guard=guard,
        leases=leases,
        left=before.left if before else None,
        undo=before.undo if before else {},
        tried=before.tried if before else {},
        as_found=before.as_found if before else {},
        replan=replan if before else None,
        commands=lambda: keep_ways(store.path, run_id, ways_of(dial, request.plan.trays, agent)),
    )
    leaving: list[asyncio.Task[None]] = []

    def terminated() -> None:
        if leases.detached is None:
            stop.interrupt()
        elif not leaving:
            leaving.append(asyncio.create_task(_leave_detached(keep, leases.detached.stage, now_s())))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.interrupt)
    loop.add_signal_handler(signal.SIGTERM, terminated)
    left = False
    try:
        run = Run(job)
        through = await run.run()
        left = True
        return REFUSED if run.refused else COMPLETE if through else STOPPED
    finally:
        await guard.close(clean=left)
        if left:
            drop_ways(store.path, run_id)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await bmcs.close()
        await dial.close()
        await keep.close()


async def _leave_detached(keep: Keep, stage: str, now_s: float) -> None:
    """Nothing is ended but this process, when what it knows is kept."""
    text = f"the controller was told to end and leaves stage {stage} detached"
    keep.event(LogLine("rack", now_s, "detached", "left", text, "controller"))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_S):
            await keep.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


async def _knock(dial: Dialer, part: str) -> None:
    async with closing(await dial.connect(part)):
        return


def _iso(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
