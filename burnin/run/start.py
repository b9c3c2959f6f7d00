"""From files to a verdict: sets a run up, runs it, judges it, and keeps what was said."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import burnin
from burnin.assess.baseline import of_site
from burnin.assess.case import gather
from burnin.assess.judge import judge
from burnin.events import Verdict
from burnin.rack.load import RackFile
from burnin.rack.schema import Catalogue
from burnin.run.job import Event, Job, Kept
from burnin.run.keep import Keep
from burnin.run.loop import Run
from burnin.run.plan import Plan
from burnin.run.tray import TraySession
from burnin.store import RunStart, Store
from burnin.suites.schema import Suite
from burnin.transport.agent import AgentLink
from burnin.transport.known import fingerprint
from burnin.transport.package import build
from burnin.transport.rack import dialer
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
        "baseline": of_site(),
        "versions": {"burnin": burnin.__version__, "agent": build().sha256[:16], "python": platform.python_version()},
    }


async def execute(
    request: Request, store: Store, run_id: str, watch: Sequence[Callable[[Event | Kept], None]], begun: dt.datetime
) -> tuple[Verdict, bool]:
    """Run and judge: the verdict, and whether the run went through (False: it was interrupted).

    SIGINT and SIGTERM end it in order: load off, trays left, evidence kept. Raises StoreError when evidence cannot be kept.
    """
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
            started=_iso(begun),
            config=config(request),
            waivers=tuple({k: str(v) for k, v in w.model_dump(mode="json").items()} for w in used.values()),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
    )
    through = await _run(request, store, run_id, watch, begun.date())
    store.end_run(run_id, _iso(dt.datetime.now(dt.UTC)), COMPLETE if through else STOPPED)
    verdict = await asyncio.to_thread(lambda: judge(gather(store, run_id)))
    store.keep_verdict(verdict, canonical(verdict))
    return verdict, through


async def _run(
    request: Request, store: Store, run_id: str, watch: Sequence[Callable[[Event | Kept], None]], today: dt.date
) -> bool:
    dial = dialer(request.file)
    clock, agent, stop = _Clock(), build(), asyncio.Event()
    keys = {part: dial.known.keys(at.host, at.port) for part, at in dial.endpoints.items()}
    addresses = {
        part: (f"{at.host}:{at.port}", fingerprint(keys[part][0]) if keys[part] else None) for part, at in dial.endpoints.items()
    }
    keep = Keep(store, run_id, addresses, stop, watch)
    start_s = clock.now()
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
        )

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
        stop=stop,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        return await Run(job).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await dial.close()
        await keep.close()


async def _knock(dial: Dialer, part: str) -> None:
    async with closing(await dial.connect(part)):
        return


def _iso(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
