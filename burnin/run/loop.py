"""The one place that waits: takes a plan through its stages, on every tray at once, and keeps what comes back.

Order of a run: connect all trays; ask each who it is and how it is set; stage after stage (interlocks before any load,
load brought up, wait, ask what the checks want to know); unload; ask again how it is set; leave. Whatever happens,
the load ends: by order when we can give one, by the agents' leases when we cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from burnin.checks import ALWAYS, CHECKS
from burnin.checks.base import Answer
from burnin.errors import TrayError
from burnin.events import LogLine, StageBegan, StageEnded, Status, TrayState
from burnin.rack.parts import within
from burnin.run import interlocks, network
from burnin.run.detached import Detaching
from burnin.run.heat import Heat
from burnin.run.job import Job, Kept
from burnin.run.left import snapshot
from burnin.run.plan import Leg
from burnin.run.steps import Steps, heats, parts
from burnin.run.tray import CONNECTING
from burnin.run.undo import Undo

CUTOFF = "gpu.tlimit.cutoff"
LEAVE = "leave"
"""Stage name under which the checks of every run's end are kept."""
FIRST_S = 2.0
"""How long trays have the controller for themselves when they are attached to."""
SETTLE_S = 45.0
"""How long trays may take to connect before the run goes on without those that have not."""
FIRST_READINGS_S = 15.0
"""How long a tray may take to be read for the first time, where load comes at once."""
FIRST_FACILITY_S = 120.0
"""The same for BMCs, shelves and the CDU: a real BMC answers some requests a second."""
KNOCK_S = 60.0
"""How old the last look at the switch trays may be before load."""
FLUSH_S = 10.0
UNLOADED_S = 30.0
"""A stage goes on for so long when all of its load has ended (leases, cut-offs): what is left of two days is not waited for."""
LOAD_SPARE_S = 120.0
"""Beyond the planned end of a load, before the agent ends it by itself."""


class Run:
    """See the module. `run()` returns True when the plan was gone through, False when it was stopped."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._identities: dict[str, dict[str, Any]] = {}
        self._states: dict[str, list[Answer]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._heat = Heat(job, self._latest, self._wait_until)
        self._undo = Undo(job)
        self._steps = Steps(job, self._heat.delays, self._undo)
        self._detaching = Detaching(job)
        self._switches: dict[str, str] = {}
        """Switch tray -> why it was not reached, empty where it was."""
        self._knocked_s = -KNOCK_S
        self._looked_at: list[str] = []
        """GPUs that the last look at the interlocks saw: a tray that comes back later is not loaded on it."""
        self.refused = False
        """Another controller holds the rack."""

    def _now(self) -> float:
        return self.job.clock.now() - self.job.start_s

    async def run(self) -> bool:
        """The whole run."""
        async with asyncio.TaskGroup() as group:
            for session in self.job.sessions.values():
                self._tasks.append(group.create_task(session.live()))
            beside = [group.create_task(self._keep_stored()), group.create_task(self._beside())]
            try:
                await self._arrive()
                self.refused = any(session.anothers for session in self.job.sessions.values())
                if not self.refused:
                    self.job.commands()
                    await self._go_on()
                for leg in self.job.plan.legs:
                    if self.job.stop.is_set() or self.refused or not self._anyone():
                        break
                    await self._stage(leg)
            finally:
                await self._leave()
                for task in beside:
                    task.cancel()
        return not self.job.stop.is_set()

    async def _beside(self) -> None:
        """Guard and services: forty of them and a Python that starts must not keep the trays waiting, which may be under load."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await asyncio.gather(*(session.settled.wait() for session in self.job.sessions.values()))
        if self.job.guard is not None:
            await self.job.guard.start()
        if self.job.facility is not None:
            await self.job.facility.live()

    def _anyone(self) -> bool:
        """False when no tray is there, and none will be: then there is nothing to wait for."""
        return any(session.ready for session in self.job.sessions.values()) or bool(self._identities)

    # ---- arriving and leaving

    async def _arrive(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await asyncio.gather(*(s.settled.wait() for s in self.job.sessions.values()), self._knock())
        await asyncio.gather(*(self._meet(tray) for tray in self.job.sessions))

    async def _knock(self) -> None:
        async def one(part: str) -> None:
            try:
                await self.job.knock(part)
                why = ""
            except TrayError as error:
                why = str(error)
            if self._switches.get(part) != why:
                self.job.keeper.event(TrayState(part, self._now(), "LOST" if why else "ready", why))
            self._switches[part] = why

        self._knocked_s = self._now()
        await asyncio.gather(*(one(part) for part in self.job.plan.switches))

    async def _meet(self, tray: str) -> None:
        session = self.job.sessions[tray]
        if not session.ready:
            if session.state == CONNECTING:
                self.job.keeper.event(TrayState(tray, self._now(), "LOST", f"{tray}: not connected within {SETTLE_S:g} s"))
            return
        another = False
        with contextlib.suppress(TrayError):
            identity = await session.order("identify")
            self._identities[tray] = identity
            another = self.job.keeper.identity(tray, identity)
        if tray in self.job.as_found and not another:  # what was replaced is left as it was found itself
            self._states[tray] = [self.job.as_found[tray]]
        else:
            await self._snapshot(tray)
            self.job.keeper.found(tray, self._states[tray][0])

    async def _go_on(self) -> None:
        """A run that was cut goes on from rest, or in the detached stage it was left in, with what is owed by what its trays say
        they are now."""
        if self.job.replan is not None:
            goes_on = self._detaching.goes_on()
            if not goes_on:
                await self._unload(list(self.job.sessions))
            await self._undo.all()
            await self.job.keeper.flush()
            self.job.plan = await asyncio.to_thread(self.job.replan)
            if goes_on and not self._detaching.first():
                await self._unload(list(self.job.sessions))
            owed = ", ".join(leg.stage.stage for leg in self.job.plan.legs) or "nothing"
            self.job.keeper.event(LogLine("rack", self._now(), "note", "resumed", f"the run goes on; owed: {owed}", "controller"))

    async def _snapshot(self, tray: str) -> None:
        known = self._states.setdefault(tray, [])
        known.append(await snapshot(self.job, tray, known[0] if known else None))

    async def _leave(self) -> None:
        await self._unload(list(self.job.sessions))
        if self.job.guard is not None:
            await self.job.guard.proved()
        if not self.refused:
            await self._undo.all()
        t0 = self._now()
        await asyncio.gather(*(self._snapshot(tray) for tray in self.job.sessions))
        for name in ALWAYS:
            for tray, answers in sorted(self._states.items()):
                rounds = tuple((answer,) for answer in answers) if CHECKS[name].name == "as-found" else ()
                there = all(answer.ok for answer in answers)
                status = Status.COMPLETE if there or not rounds else Status.ERROR
                why = "" if status is Status.COMPLETE else str(next(a.body for a in answers if not a.ok))
                number = self.job.attempts(LEAVE, name, tray) + 1
                self.job.keeper.attempt(Kept(LEAVE, name, tray, number, status, t0, self._now(), why, rounds))
        await asyncio.gather(*(session.leave() for session in self.job.sessions.values()))

    async def _unload(self, trays: list[str], at_once: bool = False) -> None:
        """Order the load off: as slowly as load may change, or at once when the run was stopped other than as planned."""
        await self._heat.down(trays, at_once or (self.job.stop.is_set() and not self.job.gently()))

    async def _keep_stored(self) -> None:
        """Every few seconds: what is on the disk, the agents need not keep."""
        while True:
            await self.job.clock.sleep(FLUSH_S)
            seen = [(session, session.holder, session.read_seq) for session in self.job.sessions.values()]
            await self.job.keeper.flush()
            if any(session.anothers for session in self.job.sessions.values()):
                self.refused = True  # a newer controller has begun to take the trays over
                self.job.stop.set()
            for session, holder, seq in seen:
                if session.holder == holder:  # another one counts anew
                    session.stored_seq = max(session.stored_seq, seq)

    # ---- stages

    async def _stage(self, leg: Leg) -> None:
        stage, begin = leg.stage, self._now()
        if stage.when == "suspect" and not self._detaching.under_way(leg) and not await self._suspected():
            self.job.keeper.event(StageEnded(leg.index, stage.stage, begin, Status.SKIPPED, "no suspicion to confirm"))
            return
        refused, found = None, list[interlocks.Interlock]()
        if stage.load is not None or heats(leg):
            await self._first_readings()
            if self.job.guard is not None:
                await self.job.guard.ready()
            allow = self._heat.allowed()
            refused = interlocks.refusal(found := self._interlocks(stage.stage)) or (allow if isinstance(allow, str) else None)
            refused = refused or self._detaching.refusal(leg, self._loadable(leg, found))
        if refused is not None:
            self._detaching.end()
            await self._unload(list(self.job.sessions), at_once=True)
            self.job.keeper.event(StageEnded(leg.index, stage.stage, begin, Status.SKIPPED, f"not loaded: {refused}"))
            for step in leg.steps:
                for part in parts(leg, step, self.job.plan):
                    number = self.job.attempts(stage.stage, step.check, part) + 1
                    kept = Kept(stage.stage, step.check, part, number, Status.SKIPPED, begin, begin, f"not loaded: {refused}", ())
                    self.job.keeper.attempt(kept)
            return
        begin = self._now()  # what was waited for, as a guard that comes up late, is none of the stage's time
        goes_on = self._detaching.taken_up(leg)
        if goes_on is not None and stage.load is not None:
            begin = goes_on
            self._heat.goes_on(stage.load)
        elif self._heat.changes(stage.load):
            await self._unload([tray for tray, session in self.job.sessions.items() if session.loaded])
            begin = self._now()
        self.job.keeper.event(StageBegan(leg.index, stage.stage, stage.phase or "", stage.duration, begin, leg.trays))
        if stage.sample_power is not None:
            await self._read_transients(stage.sample_power, begin + stage.duration)
        if stage.load is not None and goes_on is None:
            await self._bring_up(leg, found, begin)
        self._detaching.begin(leg, begin)
        await (self._wait_until if stage.load is None else self._while_loaded)(begin + stage.duration)
        self._detaching.end()
        await self._heat.drift()
        if stage.locked_mhz is not None:
            await self._free_clocks()
        if self.job.stop.is_set():
            self.job.keeper.event(StageEnded(leg.index, stage.stage, self._now(), Status.ABORTED, "the run was stopped"))
            return
        await self._steps.run(leg, interlocks.loadable(found, self._looked_at) if heats(leg) else ())
        await self._unload([tray for tray, session in self.job.sessions.items() if session.loaded and stage.load is None])
        self.job.keeper.event(StageEnded(leg.index, stage.stage, self._now(), Status.COMPLETE))

    async def _ways(self, trays: list[str], cards: list[str]) -> dict[str, dict[str, Any]]:
        """Which card sends to which, by tray; of those that have nobody to send to, it is said why."""

        async def ports(tray: str) -> network.Ports | str:
            try:
                return dict(await self.job.sessions[tray].order("ports"))
            except TrayError as error:
                return str(error)

        asked = await asyncio.gather(*(ports(tray) for tray in trays)) if cards else ()
        ways, silent = network.ring(dict(zip(trays, asked, strict=False)), cards)
        for part, why in silent.items():
            self.job.keeper.event(LogLine(part, self._now(), "load", "refused", f"no traffic: {why}", "controller"))
        return network.args(ways)

    async def _hold_clocks(self, tray: str, mhz: int) -> None:
        """Hold the SM clocks of a tray, and say where that was refused; the stage is then not judged as loaded there."""
        try:
            gpus = [gpu.split(".")[1] for gpu in self.job.profile.topology.gpus(tray)]
            answer = await self.job.sessions[tray].order("clocks", mhz=dict.fromkeys(gpus, mhz))
            refused = {gpu: why for gpu, why in answer.items() if why != "held"}
        except TrayError as error:
            refused = {"": str(error)}
        for gpu, why in refused.items():
            part = f"{tray}.{gpu}" if gpu else tray
            text = f"the clock of {part} cannot be held at {mhz} MHz: {why}"
            self.job.keeper.event(LogLine(part, self._now(), "clock", "refused", text, "controller"))

    async def _free_clocks(self) -> None:
        async def one(tray: str) -> None:
            with contextlib.suppress(TrayError):
                await self.job.sessions[tray].order("clocks", mhz={})

        await asyncio.gather(*(one(tray) for tray in self.job.sessions))

    async def _read_transients(self, period_s: float, until_s: float) -> None:
        """Power and clock several times a second, where agents can; where not, it is said, and the readings are missing."""

        async def one(tray: str) -> None:
            try:
                await self.job.sessions[tray].read_transients(period_s, until_s)
            except TrayError as error:
                text = f"{tray}: power is not read every {period_s:g} s: {error}"
                self.job.keeper.event(LogLine(tray, self._now(), "note", "", text, "controller"))

        await asyncio.gather(*(one(tray) for tray in self.job.sessions))

    async def _suspected(self) -> bool:
        await self.job.keeper.flush()
        return bool(await self.job.keeper.suspects())

    async def _wait_until(self, end_s: float) -> None:
        stopped = asyncio.ensure_future(self.job.stop.wait())
        while (left := end_s - self._now()) > 0 and not stopped.done():
            slept = asyncio.ensure_future(self.job.clock.sleep(left))
            await asyncio.wait((stopped, slept), return_when=asyncio.FIRST_COMPLETED)
            slept.cancel()
        stopped.cancel()

    async def _while_loaded(self, end_s: float) -> None:
        """Until then, or until nothing has been loaded for so long that the stage can show nothing more."""
        since = self._now()
        while (now := self._now()) < end_s and not self.job.stop.is_set():
            sessions = self.job.sessions.values()
            if any(session.loaded for session in sessions) or not any(session.ready for session in sessions):
                since = now
            elif now - since >= UNLOADED_S:
                text = f"nothing is loaded any more: the stage ends {end_s - now:.0f} s early"
                self.job.keeper.event(LogLine("rack", now, "note", "unloaded", text, "controller"))
                return
            await self._wait_until(min(end_s, now + 1.0))

    # ---- load

    async def _first_readings(self) -> None:
        """A run that begins with load waits for the first readings of what interlocks want; what stays silent is unread."""
        begin, facility = self._now(), self.job.facility
        if self._now() - self._knocked_s >= KNOCK_S:
            await self._knock()
        while not self.job.stop.is_set() and (
            (self._now() < begin + FIRST_READINGS_S and any(self._silent(tray, begin) for tray in self.job.sessions))
            or (self._now() < begin + FIRST_FACILITY_S and facility is not None and not facility.settled)
        ):
            await self.job.clock.sleep(0.1)

    def _silent(self, tray: str, since_s: float) -> bool:
        """A tray that answers, but has not yet been read where interlocks look; what was not to be had before (a program had
        the GPUs for itself) may be there at the next reading."""
        session, gpus = self.job.sessions[tray], self.job.profile.topology.gpus(tray)
        last = (session.latest.get((gpu, metric), (-1e9, None)) for gpu in gpus for metric in interlocks.METRICS)
        return session.ready and any(value is None and t_s < since_s for t_s, value in last)

    def _interlocks(self, stage: str) -> list[interlocks.Interlock]:
        there = [tray for tray, session in self.job.sessions.items() if session.ready]
        readings = {
            gpu: {metric: self._latest(tray, gpu, metric) for metric in interlocks.METRICS}
            for tray in there
            for gpu in self.job.profile.topology.gpus(tray)
        }
        self._looked_at = list(readings)
        known = {tray: self._identities[tray] for tray in there if tray in self._identities}
        facility = self.job.facility
        said = {part: facility.now(part) for part in facility.parts} if facility is not None else {}
        loaded = set().union(*(self.job.sessions[tray].loaded for tray in there))
        job = self.job
        found = interlocks.evaluate(job.profile, job.rack, job.today, known, readings, said, self._switches, loaded)
        found += self.job.guard.interlocks(there) if self.job.guard is not None else []
        for one in found:
            if one.state != "good":
                # what burns already goes on under the guard: nothing is kept off by it
                burns = one.part != "rack" and {gpu for gpu in readings if within(gpu, one.part)}
                said_for = "controller" if burns and burns <= loaded else stage
                self.job.keeper.event(LogLine(one.part, self._now(), "interlock", one.state, f"{one.name}: {one.why}", said_for))
        return found

    def _latest(self, tray: str, part: str, metric: str) -> float | None:
        """The last reading, unless it is five of its periods old."""
        t_s, value = self.job.sessions[tray].latest.get((part, metric), (-1e9, None))
        period_s = self.job.suite.period(self.job.catalogue.metrics.get(metric))
        return value if t_s >= self._now() - 5 * period_s else None

    def _loadable_trays(self, leg: Leg) -> list[str]:
        trays = [tray for tray, session in self.job.sessions.items() if session.ready and tray in self._identities]
        return [tray for tray in trays if leg.trays is None or tray in leg.trays]

    def _loadable(self, leg: Leg, found: list[interlocks.Interlock]) -> list[str]:
        gpus = [gpu for tray in self._loadable_trays(leg) for gpu in self.job.profile.topology.gpus(tray)]
        return interlocks.loadable(found, gpus)

    async def _bring_up(self, leg: Leg, found: list[interlocks.Interlock], begin: float) -> None:
        stage = leg.stage
        assert stage.load is not None
        trays = self._loadable_trays(leg)
        limit = self.job.profile.limits.get(CUTOFF)
        cutoff = limit.min if limit is not None and limit.min is not None else 0.0
        args: dict[str, Any] = {
            "kernel": f"{stage.load.kernel}_burn",
            "cutoff_margin_c": cutoff,
            "max_s": self.job.plan.load_seconds(leg.index) + LOAD_SPARE_S,
            **({"nvlink": True} if stage.load.nvlink else {}),
            **({"cpu": True} if stage.load.cpu else {}),
        }
        if stage.locked_mhz is not None:
            await asyncio.gather(*(self._hold_clocks(tray, stage.locked_mhz) for tray in trays))
        self._heat.own = await self._ways(trays, network.cards(stage.load.nic, self.job.profile.topology.nics_per_tray))
        gpus = self._loadable(leg, found)
        over_s = stage.duration if stage.load.stagger else 0.0
        await self._heat.up(stage.load, gpus, begin, over_s, args)
