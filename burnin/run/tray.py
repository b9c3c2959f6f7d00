"""One tray during a run: connected, lost, found again; its records turned into events.

A tray that stops answering is LOST and says why; the run goes on with the others, and this keeps trying until the run
ends. What a tray recorded while the link was down comes after it, by sequence number, so a short cut leaves no gap.
Readings are placed in the run's time by the tray's own monotonic clock; its wall clock may say what it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from burnin import wire
from burnin.errors import AgentBusy, HostKeyError, LoginRefused, TrayError, TrayUnfit
from burnin.events import Attached, LogLine, Tick, TrayState
from burnin.run.placing import Placing
from burnin.wire import HELD_BACK, LET_GO

CATCH_UP_S = 0.1
BEAT_LOST_S = 5.0
"""A beat comes every second; a channel that is silent for so long leads nowhere, whatever TCP thinks."""
RETRY_S = (1.0, 2.0, 4.0, 8.0)
ASK_S, ASK_AGAIN_S = 1.0, (5.0, 60.0)
"""How long a tray's clock is asked for before its records are placed; how often later, while it is known poorly and well."""
WELL_S, POORLY_S = 0.01, 0.25
"""Placed within so much, a clock is known well; beyond the other, what was recorded meanwhile says so."""
_ASKS = 9
ORDER_S = 0.001
"""Between readings of a table whose clock was found to be earlier than thought: they keep their order."""
_HOPELESS = (HostKeyError, LoginRefused, TrayUnfit, AgentBusy)

TIED = "tied"
"""Kind of the log lines that say how a tray's clock stands."""
CONNECTING, READY, LOST, REFUSED, DONE = "connecting", "ready", "LOST", "refused", "done"

Event = Attached | Tick | LogLine | TrayState


class Link(Protocol):
    """What a session needs of `burnin.transport.agent.AgentLink`."""

    gone: asyncio.Future[str]
    heard_s: float

    async def open(self, holder: str = ..., seq: int = ...) -> wire.Record:
        """Connect and attach from record `seq` of `holder`: the hello record."""
        ...

    async def order(self, verb: str, *, timeout_s: float = ..., ident: str | None = None, **args: Any) -> Any:
        """Give an order, wait for its answer."""
        ...

    def lease(self, seconds: float, stored_seq: int, stage: str = ...) -> None:
        """Renew the lease."""
        ...

    async def close(self) -> None:
        """Drop the link."""
        ...


class Clock(Protocol):
    """Monotonic seconds; `sleep` may be a test's."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class TraySession:
    """See the module. `connect(on_records)` makes a fresh link; `emit` takes events in order; times are run seconds."""

    def __init__(
        self,
        tray: str,
        connect: Callable[[Callable[[list[wire.Record]], None]], Link],
        emit: Callable[[Event], None],
        clock: Clock,
        run_start_s: float,
        lease_s: float,
        sample: Mapping[str, float],
        heard: tuple[str, int, int] = ("", -1, -1),
    ) -> None:
        self.tray, self._connect, self._emit, self._clock = tray, connect, emit, clock
        self._run_start_s, self._sample = run_start_s, dict(sample)
        self.lease_s: Callable[[], float] = lambda: lease_s
        """How long the next lease is (see burnin.run.leases)."""
        self.stage: Callable[[], str] = lambda: ""
        """The detached stage that it covers."""
        self.goes_on = ""
        """The detached stage that this tray's agent said is loaded when it was attached to last."""
        self.unloaded_s: float | None = None
        """When its agent first said that no GPU is loaded any more."""
        self.state, self.why = CONNECTING, ""
        self.settled = asyncio.Event()
        """Set once the first attempt to connect has an outcome."""
        self.loaded: set[str] = set()
        """GPUs (t07.g2) that the agent last said are loaded."""
        self.latest: dict[tuple[str, str], tuple[float, float | None]] = {}
        """(part, metric) -> (run second, value) of the last reading."""
        self.sources: dict[str, str | None] = {"xid": "missing", "kmsg": "missing"}
        """Why XID events and kernel log could not be watched at some time; None where they always were."""
        self._holder, self.seen_seq, self._logged_seq = heard
        """An earlier session's agent, and how far its readings and its lines are on the disk."""
        self.stored_seq = self.read_seq = self.seen_seq
        """`read_seq`: the last record that was a reading. No more is forgotten than what the database knows that it has."""
        self._line_s = float("-inf")
        self._early: list[wire.Record] | None = None
        """What came before hello was understood: without it neither time nor columns of a record are known."""
        self.anothers = False
        """Another controller holds this tray."""
        self._link: Link | None = None
        self._tables: list[tuple[tuple[str, str], ...]] = []
        """(part, metric) of every column, one tuple a table: the store recognises it by identity."""
        self._absent: dict[int, dict[int, str]] = {}
        self._placing = Placing()
        self._asking: asyncio.Future[None] | None = None
        self._read_s: dict[int, float] = {}
        """Table -> run second of its last reading: a better clock moves none before an earlier one."""
        self._replay_until = -1
        self._stop = asyncio.Event()
        self._leaving = False
        self._said_hello = False
        self._transient: tuple[float, float] | None = None
        """Period in s, and until which run second it is wanted: an agent that starts anew is told again."""

    def now_s(self) -> float:
        """Seconds since the run began."""
        return self._clock.now() - self._run_start_s

    # ---- living: connect, keep the lease, notice silence, connect again

    async def live(self) -> None:
        """Until `stop`. One task per tray; it raises nothing that a tray can cause."""
        tries = 0
        while not self._stop.is_set():
            try:
                await self._attach()
                tries = 0
                await self._keep()
            except TrayError as error:
                hopeless = isinstance(error, AgentBusy) or (isinstance(error, _HOPELESS) and not self._said_hello)
                self.anothers = isinstance(error, AgentBusy)
                self._become(REFUSED if hopeless else LOST, str(error))
                if hopeless:
                    break
            finally:
                await self._drop()
            if not self._stop.is_set():
                pause = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                await self._pause(pause)
        if self.state not in (REFUSED, LOST):
            self._become(DONE, "")

    async def _pause(self, seconds: float) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        slept = asyncio.ensure_future(self._clock.sleep(seconds))
        _, pending = await asyncio.wait((stopped, slept), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()

    async def _attach(self) -> None:
        self._early = []
        self._link = self._connect(self._take)
        record = await self._link.open(self._holder or "-", self.seen_seq + 1)
        hello = record.body
        if self._holder and hello["holder"] != self._holder:
            self._note("the agent that was here is gone, with its load and what it had not told; a new one has started")
        if hello["holder"] != self._holder:
            self._holder, self.seen_seq, self._absent, self._read_s = hello["holder"], -1, {}, {}
            self._logged_seq = self.stored_seq = self.read_seq = -1
            self._placing = Placing()
        self._emit(Attached(self.tray, self.now_s(), self._holder))
        self._placing.heard(self._clock.now(), record.mono_ns / 1e9)
        self._link.lease(self.lease_s(), HELD_BACK, self.stage())
        self._replay_until = int(hello["next"]) - 1
        await self._ask_clock(self._link)
        if self._replay_until > self.seen_seq and not (within_s := self._placing.within_s(self._clock.now())) <= POORLY_S:
            known = f"within {within_s:.1f} s" if within_s < 60 else "by when its agent was heard: it did not tell its clock"
            self._note(f"what was recorded meanwhile is placed {known}")
        self._tell_tie()
        self._tables = self._columns(hello["tables"])
        self._watched(hello)
        self.goes_on = hello.get("stage", "")
        self.loaded = {f"{self.tray}.{gpu}" for gpu in hello.get("loaded", ())}
        self._renew(self._link)
        if self._tables:
            await self._catch_up(self._link)
        if hello.get("halted") and not self._said_hello:  # a run that somebody starts may load; one that was halted may not
            await self._link.order("clear")
            self._note(f"what a guard had halted here is cleared: {'; '.join(sorted(set(hello['halted'].values())))}")
        if hello["nvml"] != "hung" and not self._tables:  # without GPUs the host is read all the same
            done = await self._link.order("sample", ident=f"sample-{self._holder}", **self._sample)
            self._tables = self._columns(done["tables"])
            with contextlib.suppress(TrayError):
                await self._read_transients(self._link)
        self._take_early()
        self._said_hello = True
        self._become(READY, "" if hello["nvml"] is None else f"NVML: {hello['nvml']}")

    async def _ask_clock(self, link: Link) -> None:
        """Before anything is placed, and again later: one hello that a busy controller took late must not place an hour late."""
        end_s = self._clock.now() + ASK_S
        with contextlib.suppress(TrayError):
            for _ in range(_ASKS):
                sent_s = self._clock.now()
                said = await link.order("clock", timeout_s=ASK_S)
                got_s = self._clock.now()
                if not isinstance(said, dict) or type(said.get("mono_ns")) is not int:
                    return
                self._placing.asked(sent_s, got_s, said["mono_ns"] / 1e9)
                if self._placing.within_s(got_s) <= WELL_S or got_s >= end_s:
                    return

    def _tell_tie(self) -> None:
        """How the run's seconds stand to this tray's clock: for whoever goes on with the run elsewhere."""
        if self._placing.within_s(self._clock.now()) <= POORLY_S:
            tied_s = self._placing.ours_s(0.0) - self._run_start_s
            text = f"run seconds are its monotonic clock {tied_s:+.3f} s"
            self._emit(LogLine(self.tray, self.now_s(), TIED, f"{tied_s:.6f}", text, "controller"))

    def _ask_later(self, link: Link) -> None:
        """Beside the lease, which waits for no answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_clock(link))

    def _renew(self, link: Link) -> float:
        link.lease(lease_s := self.lease_s(), self.stored_seq, self.stage())
        return lease_s

    def _take_early(self) -> None:
        early, self._early = self._early or [], None
        self._take(early)

    async def _catch_up(self, link: Link) -> None:
        """What was recorded while nobody was attached comes before every answer: an hour of it takes its time."""
        self._take_early()
        seen, since_s = (self.seen_seq, link.heard_s), self._clock.now()
        while self.seen_seq < self._replay_until and not self._stop.is_set():
            self._renew(link)
            await self._pause_or_gone(link, CATCH_UP_S)
            if (self.seen_seq, link.heard_s) != seen:
                seen, since_s = (self.seen_seq, link.heard_s), self._clock.now()
            if link.gone.done() or self._clock.now() - since_s > BEAT_LOST_S:
                raise TrayError(f"{self.tray}: what its agent recorded did not come to its end")

    async def _keep(self) -> None:
        link = self._link
        assert link is not None
        heard_s, blocked_s, asked_s = link.heard_s, 0.0, self._clock.now()
        while not self._stop.is_set():
            lease_s = self._renew(link)
            if self._clock.now() - asked_s >= ASK_AGAIN_S[self._placing.within_s(self._clock.now()) <= 2 * WELL_S]:
                asked_s = self._clock.now()
                self._ask_later(link)
            begin_s, pause_s = self._clock.now(), min(1.0, lease_s / 4)
            await self._pause_or_gone(link, pause_s)
            blocked_s += max(0.0, self._clock.now() - begin_s - 2 * pause_s)
            if link.gone.done() and self._leaving:
                return
            if link.gone.done():
                why = link.gone.result()
                raise TrayError(f"{self.tray}: the link is gone{': ' + why if why else ''}")
            if link.heard_s != heard_s:
                heard_s, blocked_s = link.heard_s, 0.0
            silent = self._clock.now() - heard_s - blocked_s  # a run that was blocked has not listened
            if silent > BEAT_LOST_S:
                raise TrayError(f"{self.tray}: nothing was heard for {silent:.0f} s")

    async def _pause_or_gone(self, link: Link, seconds: float) -> None:
        slept = asyncio.ensure_future(self._clock.sleep(seconds))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((slept, stopped, link.gone), return_when=asyncio.FIRST_COMPLETED)
        slept.cancel()
        stopped.cancel()

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if self._asking is not None:
            self._asking.cancel()
        if link is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await link.close()

    async def leave(self) -> None:
        """Tell the agent to unload and go, as far as it can be told, and end `live`."""
        self._leaving = True
        with contextlib.suppress(TrayError):
            await self.order("bye", timeout_s=5.0)
        self._stop.set()

    def _become(self, state: str, why: str) -> None:
        if state != self.state or (state != LOST and why != self.why):  # a loss is said once, with its first reason
            self.state, self.why = state, why
            self._emit(TrayState(self.tray, self.now_s(), state, why))
        self.settled.set()

    # ---- orders

    @property
    def holder(self) -> str:
        """The agent whose records are counted."""
        return self._holder

    @property
    def ready(self) -> bool:
        """True while orders can be given."""
        return self.state == READY and self._link is not None

    async def order(self, verb: str, timeout_s: float = 20.0, **args: Any) -> Any:
        """Give an order and wait. Raises TrayError when the tray is not there, says no, or does not answer."""
        if self._link is None or self.state != READY:
            raise TrayError(self.why or f"{self.tray} is not connected")
        return await self._link.order(verb, timeout_s=timeout_s, **args)

    async def read_transients(self, period_s: float, until_s: float) -> None:
        """Have power and clock read so often until this run second. Raises TrayError when this tray does not."""
        self._transient = (period_s, until_s)
        if self._link is None or self.state != READY:
            raise TrayError(self.why or f"{self.tray} is not connected")
        await self._read_transients(self._link)

    async def _read_transients(self, link: Link) -> None:
        period_s, until_s = self._transient or (0.0, 0.0)
        if (left_s := until_s - self.now_s()) > 0:
            await link.order("transient", timeout_s=5.0, period_s=period_s, seconds=round(left_s, 3))

    # ---- records -> events

    def _take(self, records: list[wire.Record]) -> None:
        if self._early is not None:
            self._early += records
            return
        for record in records:
            if record.seq <= self.seen_seq:
                continue
            if record.seq > self.seen_seq + 1:
                self._lost(record.seq - self.seen_seq - 1)
            self.seen_seq = record.seq
            t_s = self._time(record)
            if record.kind == "sample":
                self._sampled(record, t_s)
                self.read_seq = record.seq
            elif record.kind == "absent":
                self._absent[int(record.body["c"])] = {int(i): str(why) for i, why in record.body["why"].items()}
            elif record.kind == "beat":
                if self.loaded and not record.body["load"] and self.unloaded_s is None:
                    self.unloaded_s = t_s
                self.loaded = {f"{self.tray}.{gpu}" for gpu in record.body["load"]}
                self._watched(record.body)
            else:
                self._logged(record, t_s)

    def _time(self, record: wire.Record) -> float:
        """Run second of a record, by the tray's monotonic clock."""
        mono_s = record.mono_ns / 1e9
        if record.seq > self._replay_until:
            self._placing.heard(self._clock.now(), mono_s)
        return self._placing.ours_s(mono_s) - self._run_start_s

    def _sampled(self, record: wire.Record, t_s: float) -> None:
        table = int(record.body["c"])
        if table >= len(self._tables):
            return
        t_s += (record.body["n"] - record.mono_ns) / 1e9  # when it was read, not when it was written down
        t_s = self._read_s[table] = max(t_s, self._read_s.get(table, float("-inf")) + ORDER_S)
        columns = self._tables[table]
        values = tuple(record.body["v"])
        for column, value in zip(columns, values, strict=True):
            self.latest[column] = (t_s, value)
        self._emit(Tick(self.tray, t_s, columns, values, self._absent.get(table, {}), record.seq))

    def _columns(self, tables: list[list[list[str]]]) -> list[tuple[tuple[str, str], ...]]:
        return [tuple((f"{self.tray}.{part}" if part else self.tray, metric) for part, metric in table) for table in tables]

    def _logged(self, record: wire.Record, t_s: float) -> None:
        if record.seq <= self._logged_seq:
            return  # an earlier session kept it; its readings wait for ten seconds, its lines do not
        body, seq = record.body, record.seq
        t_s = self._line_s = max(t_s, self._line_s)  # the agent's order holds, whatever a better clock offset says
        part = f"{self.tray}.{body['gpu']}" if body.get("gpu") else self.tray
        if record.kind == "event":
            what = "xid" if isinstance(body["code"], int) else "kernel"
            self._emit(LogLine(part, t_s, what, str(body["code"]), str(body.get("text", "")), str(body["source"]), seq))
        elif record.kind == "load":
            self._emit(LogLine(part, t_s, "load", str(body["state"]), str(body.get("why", "")), "agent", seq))
        elif record.kind == "cut":
            self._emit(
                LogLine(part, t_s, "cut", str(body["why"]), _cut(part, str(body["why"]), float(body["value"])), "agent", seq)
            )
        elif record.kind == "note":
            self._emit(LogLine(part, t_s, "note", "", str(body["text"]), "agent", seq))

    def _watched(self, body: Mapping[str, Any]) -> None:
        """A source that was once not watched stays so in the record: what it missed is gone. Let go by order is the least."""
        for source in ("xid", "kmsg"):
            if source in body:
                first = not self._said_hello and self.sources[source] == "missing"
                if first or (body[source] not in (None, self.sources[source]) and self.sources[source] in (None, LET_GO)):
                    self.sources[source] = body[source]
                    self._emit(LogLine(self.tray, self.now_s(), "source", source, body[source] or "", "agent"))

    def _lost(self, count: int) -> None:
        """Nobody knows what was in them: an XID, perhaps."""
        self._note(f"{count} records were lost before they could be fetched")
        for source in ("xid", "kmsg"):
            self._emit(LogLine(self.tray, self.now_s(), "source", source, "missing", "controller"))

    def _note(self, text: str) -> None:
        self._emit(LogLine(self.tray, self.now_s(), "link", "", f"{self.tray}: {text}", "controller"))


def _cut(part: str, why: str, value: float) -> str:
    texts = {
        "lease": f"the agent ended the load of {part}: the controller was not heard in time",
        "time": f"the agent ended the load of {part}: its time was over",
        "sensor": f"the agent ended the load of {part}: its T.Limit margin was not read for {value:.1f} s",
        "margin": f"the agent ended the load of {part}: T.Limit margin {value:g} Cel",
    }
    return texts.get(why, f"the agent ended the load of {part}: {why}")
