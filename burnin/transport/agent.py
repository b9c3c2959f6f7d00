"""One tray's agent over one SSH connection: pushed once, verified at every start, attached to, spoken with.

The start command checks the zipapp's hash on the tray before it runs it, so nothing is executed that is not what this
controller built; a tray without it says so (status 97), gets it, and is asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from burnin import wire
from burnin.errors import AgentBusy, LinkLost, ProtocolError, Superseded, TrayError, TrayUnfit
from burnin.transport.halt import by_file, living
from burnin.transport.lean import asyncssh
from burnin.transport.package import Agent
from burnin.transport.payload import bring
from burnin.transport.ssh import Dialer, Endpoint, script, shell

_NOT_THERE, _BUSY, _NO_HOLDER = 97, 5, 6
OPEN_S = 40.0
"""From exec to hello: a cold tray starts python and the holder, and NVML may take 8 s."""
ORDER_S = 20.0
_CLOSE_S = 2.0
HOLD_S, HELD_S = 0.05, 60.0
"""How often it is looked whether a disk that is behind has caught up, and for how long."""
PUSH_S = 60.0


@dataclass
class Claim:
    """One controller, as trays know it: `who` is {id, host, pid, since, run}; `gone(who)` True when that one provably is."""

    who: Mapping[str, Any]
    gone: Callable[[Mapping[str, Any]], bool | None]
    tokens: dict[str, int] = field(default_factory=dict)
    """Tray -> the token that it gave."""

    def words(self, part: str, gone: str | None) -> str:
        """What is sent along to attach."""
        return json.dumps({"who": dict(self.who), "token": self.tokens.get(part), "gone": gone}, separators=(",", ":"))


def _start(at: Endpoint, agent: Agent, *words: str, check: bool = True) -> str:
    """`check` False: what lies there under the agent's name is run as it is; the directory is this user's own."""
    same = f'echo "{agent.sha256}  {agent.name}" | sha256sum -c --status 2>/dev/null || exit {_NOT_THERE}'
    become = "sudo -n " if at.become else ""
    same = same if check else f"[ -f {agent.name} ] || exit {_NOT_THERE}"
    command = f"{become}{shlex.quote(at.python)} -I -S {agent.name} {shlex.join(words)}"
    return f"cd {shlex.quote(at.dir)} 2>/dev/null || exit {_NOT_THERE}; {same}; exec {command}"


async def push(connection: asyncssh.SSHClientConnection, at: Endpoint, agent: Agent) -> None:
    """Put the zipapp into the private directory, whole or not at all. Raises TrayUnfit with the tray's own words."""
    place, part = shlex.quote(at.dir), f".{agent.name}.$$"
    text = f"""
umask 077
mkdir -p {place} && [ -O {place} ] && chmod 700 {place} && cd {place} || exit 1
trap 'rm -f {part}' EXIT
cat > {part} && echo "{agent.sha256}  {part}" | sha256sum -c --status && mv -f {part} {agent.name}
"""
    answer = await shell(connection, text, timeout_s=PUSH_S, stdin=agent.data)
    if answer.status:
        why = answer.err.strip().splitlines()[-1:] or ["it is not ours, or the copy arrived changed"]
        raise TrayUnfit(f"{at.part}: the agent cannot be put into {at.dir}: {why[0]}")


async def clean(connection: asyncssh.SSHClientConnection, at: Endpoint) -> None:
    """Remove the private directory with everything in it. The holder must be gone."""
    become = "sudo -n " if at.become else ""
    answer = await shell(connection, f"{become}rm -rf {shlex.quote(at.dir)}", timeout_s=ORDER_S)
    if answer.status:
        raise TrayUnfit(f"{at.part}: {at.dir} cannot be removed: {answer.err.strip()}")


def _holder(session: _Session) -> tuple[str, str, dict[str, Any]]:
    """(busy | fenced, run, who) as the channel said it."""
    said = session.err.decode("utf-8", "replace").strip().splitlines() or [""]
    word, run, who = [*said[-1].split(" ", 2), "", ""][:3]
    try:
        known = json.loads(who)
    except ValueError:
        known = {}
    return word, run, known if isinstance(known, dict) else {}


class _Session(asyncssh.SSHClientSession[bytes]):
    """The channel's bytes: records to `take`, stderr kept for a sentence, the end to `over`."""

    def __init__(self, take: Callable[[list[wire.Record]], None], over: asyncio.Future[str]) -> None:
        self.decoder = wire.Decoder(orjson.loads)
        self.err = bytearray()
        self.garbled = ""
        self.status: int | None = None
        self._take, self._over = take, over

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self.err += data[: 8192 - len(self.err)]
            return
        try:
            records = self.decoder.feed(data)
        except ProtocolError as error:
            self.garbled = str(error)
            self._end(self.garbled)
        else:
            self._take(records)

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "")

    def _end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)


class AgentLink:
    """An attached agent. `on_records` is called in the event loop with every batch but hello and replies.

    After `open`, `hello` holds the agent's hello body; `gone` resolves to a reason when the link is over.
    """

    def __init__(
        self,
        dialer: Dialer,
        part: str,
        agent: Agent,
        run: str,
        on_records: Callable[[list[wire.Record]], None],
        claim: Claim | None = None,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._full, self._held = full, False
        self._dialer, self.part, self._agent, self._run, self._on_records = dialer, part, agent, run, on_records
        self.at = dialer.endpoints[part]
        self._claim = claim
        self.hello: wire.Record | None = None
        self.lacks = ""
        """Why the site's NCCL library could not be put there; empty where it is, or none is wanted."""
        self.heard_s = 0.0
        """time.monotonic() of the last bytes."""
        self._ids = itertools.count()
        self._replies: dict[str, asyncio.Future[Any]] = {}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()

    async def open(self, holder: str = "-", seq: int = 0) -> wire.Record:
        """Connect, push if needed, attach from record `seq` of `holder`: the hello record. Raises TrayError."""
        self._connection = await self._dialer.connect(self.part)
        session = await self._exec(*self._words(holder, seq))
        if session.status == _NOT_THERE:
            await push(self._connection, self.at, self._agent)
            session = await self._exec(*self._words(holder, seq))
        if session.status == _BUSY and self._claim is not None and (gone := self._provably_gone(session)):
            session = await self._exec(*self._words(holder, seq, gone))
        hello = self._met(session)
        await self._bring()
        return hello

    async def _bring(self) -> None:
        """The site's own NCCL library for this machine, where it has one and a run is to use it; `lacks` says why it is not
        there. The tray is no worse for it in all else, so only a link that went is raised."""
        if self.at.nccl and self._claim is not None and self._connection is not None:
            try:
                async with self._dialer.pushing:
                    await bring(self._connection, self.at)
            except LinkLost:
                raise
            except TrayError as error:
                self.lacks = str(error)

    def _words(self, holder: str, seq: int, gone: str | None = None) -> tuple[str, ...]:
        claim = self._claim.words(self.part, gone) if self._claim is not None else "null"
        return ("channel", self._run, holder, str(seq), claim)

    def _met(self, session: _Session) -> wire.Record:
        if self.hello is None:
            raise self._unfit(session)
        if self.hello.body.get("protocol") != wire.PROTOCOL:
            raise ProtocolError(
                f"{self.part}: the agent speaks protocol {self.hello.body.get('protocol')}, we speak {wire.PROTOCOL}"
            )
        if self._claim is not None:
            self._claim.tokens[self.part] = int(self.hello.body["fence"])
        return self.hello

    def _provably_gone(self, session: _Session) -> str | None:
        """The id of the controller that holds the tray, when it is known here not to live any more."""
        word, _, who = _holder(session)
        return str(who["id"]) if self._claim and word == "busy" and who.get("id") and self._claim.gone(who) else None

    async def _exec(self, *words: str, check: bool = True) -> _Session:
        assert self._connection is not None
        self.gone = asyncio.get_running_loop().create_future()
        session = _Session(self._take, self.gone)
        command = script(_start(self.at, self._agent, *words, check=check))
        try:
            channel, _ = await self._connection.create_session(lambda: session, command, encoding=None)
            self._channel = channel
            async with asyncio.timeout(OPEN_S):
                await asyncio.wait((self.gone, self._greeted), return_when=asyncio.FIRST_COMPLETED)
            if self.gone.done():  # the exit status comes with the close; what only makes noise is not waited for
                self._channel.close()
                await asyncio.wait((asyncio.ensure_future(self._channel.wait_closed()),), timeout=_CLOSE_S)
        except TimeoutError:
            raise TrayError(f"{self.part}: the agent said nothing for {OPEN_S:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise LinkLost(f"{self.part}: link lost: {error}") from None
        return session

    def _unfit(self, session: _Session) -> TrayError:
        said = session.err.decode("utf-8", "replace").strip() or session.decoder.noise
        last = said.splitlines()[-1] if said else "it said nothing"
        if session.garbled:
            return TrayUnfit(f"{self.part}: what answers is not the agent: {session.garbled}")
        if session.status is None:
            return LinkLost(f"{self.part}: link lost while the agent started")
        if session.status == _BUSY:
            return self._others(session)
        if session.status in (126, 127):
            return TrayUnfit(f"{self.part}: no {self.at.python} there ({last}); name one with `python:` in the rack file")
        if session.status == _NO_HOLDER:
            return TrayUnfit(f"{self.part}: the agent does not start: {last}")
        return TrayUnfit(f"{self.part}: the agent ended with status {session.status}: {last}")

    def _others(self, session: _Session) -> AgentBusy:
        word, run, who = _holder(session)
        named = f"run {who.get('run', run)}"
        if who:
            named += f" (process {who.get('pid')} on {who.get('host')}, since {who.get('since')})"
        if word == "fenced":
            return Superseded(f"{self.part} was taken over by {named}: this controller commands it no more")
        if stage := who.get("stage"):
            ways = f"`--resume {run}` goes on with it"
            if run == self._run:  # as this one tries to, from where it cannot be proved that the other is gone
                ways = f"`--resume {run}` goes on with it on {who.get('host')}, and elsewhere when its lease is over"
            named += f", whose stage {stage} is detached"
            return AgentBusy(f"{self.part} is held by {named}: {ways}, `burnin stop {run} --emergency` ends it")
        return AgentBusy(f"{self.part} is held by {named}; wait for it, or `burnin stop` it")

    def _take(self, records: list[wire.Record]) -> None:
        self.heard_s = time.monotonic()
        rest = []
        for record in records:
            if record.kind == "hello":
                self.hello = record
                if not self._greeted.done():
                    self._greeted.set_result(None)
            elif record.kind == "reply":
                waiting = self._replies.pop(str(record.body.get("id")), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(record.body)
                rest.append(record)
            else:
                rest.append(record)
        if rest:
            self._on_records(rest)
        if self._full() and not self._held:
            self._held = True
            self._hold(self.heard_s + HELD_S)

    def _hold(self, until_s: float) -> None:
        """Take nothing more while whoever keeps it is behind: an hour that was recorded comes faster than a disk writes it.

        A disk that does not get on at all is not waited for.
        """
        if self._channel is None or self.gone.done():
            return
        self.heard_s = time.monotonic()
        if self._full() and self.heard_s < until_s:
            self._channel.pause_reading()
            asyncio.get_running_loop().call_later(HOLD_S, self._hold, until_s)
        else:
            self._held = False
            self._channel.resume_reading()

    async def order(self, verb: str, *, timeout_s: float = ORDER_S, ident: str | None = None, **args: Any) -> Any:
        """Give an order and wait for its answer. Raises TrayError with the agent's words, LinkLost when the link goes."""
        if self.lacks and verb == "work" and args.get("args", {}).get("payload"):
            raise TrayError(self.lacks)
        ident = ident or f"{self._run}-{time.time_ns():x}-{next(self._ids)}"
        waiting = self._replies[ident] = asyncio.get_running_loop().create_future()
        self._write(wire.Order(ident, verb, args))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait((waiting, self.gone), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise TrayError(f"{self.part}: no answer to `{verb}` within {timeout_s:g} s: the driver or the agent hangs") from None
        finally:
            self._replies.pop(ident, None)
        if not waiting.done():
            raise LinkLost(f"{self.part}: link lost before `{verb}` was answered")
        body = waiting.result()
        if not body.get("ok"):
            raise TrayError(f"{self.part}: {body.get('error')}")
        return body.get("result")

    def lease(self, seconds: float, stored_seq: int, stage: str = "") -> None:
        """Let load go on for `seconds`, and let the agent forget records up to `stored_seq`. `stage`: see `wire.Lease`."""
        self._write(wire.Lease(seconds, stored_seq, stage))

    def _write(self, item: wire.Order | wire.Lease) -> None:
        if self._channel is not None and not self.gone.done():
            try:
                self._channel.write(wire.encode(item))
            except (OSError, asyncssh.Error, BrokenPipeError):
                pass  # `gone` tells everyone

    def abort(self) -> None:
        """Drop the link at once; the agent's lease goes on."""
        if not self.gone.done():
            self.gone.set_result("dropped by us")
        if self._connection is not None:
            self._connection.abort()

    async def close(self) -> None:
        """Drop the link and wait until its socket is closed."""
        self.abort()
        if self._connection is not None:
            await self._connection.wait_closed()


class GuardLink(AgentLink):
    """A guard's channel to a holder that is there, on a connection that may have been opened long before."""

    async def connect(self) -> None:
        """Only the connection. Raises TrayError."""
        self._connection = await self._dialer.connect(self.part)

    async def halt_by_file(self, why: str) -> int | None:
        """See burnin.transport.halt."""
        if self._connection is None:
            await self.connect()
        assert self._connection is not None
        return await by_file(self._connection, self.at, self._run, why)

    async def living(self) -> list[int] | None:
        """See burnin.transport.halt."""
        assert self._connection is not None
        return await living(self._connection, self.at)

    async def watch(self, *, by_name: bool = False) -> wire.Record:
        """Attach: the hello record. Raises TrayError, NoHolder where there is none. Never starts or pushes anything.

        `by_name`: only the beginning of the agent's hash is known, as a run's versions tell it.
        """
        if self._connection is None:
            await self.connect()
        session = await self._exec("guard", self._run, check=not by_name)
        if session.status in (_NOT_THERE, _NO_HOLDER) and self.hello is None:
            raise NoHolder(f"{self.part}: no agent of run {self._run} is there")
        return self._met(session)


class NoHolder(TrayError):
    """Nothing of this run lives on the tray, so nothing of it heats there."""
