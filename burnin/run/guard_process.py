"""The guard: a process beside the run, with an event loop, SSH connections and Redfish clients of its own.

    run -> guard, on stdin     {configuration}, {"beat"}, {"there": [trays]}, {"detached": seconds}, {"bye"}
    guard -> run, on stdout    {"beat"}, {"state": {watching, why, blind}}, {"trip": ...}, {"outcome": ...}, {"relieved"}

It ends load when something it watches is bad or unread, when the run is silent for longer than its lease, when the run ends
without a word, and when somebody asks for it on its socket. It outlives a frozen run. It never renews a lease.

While a stage is detached the run may be silent or gone for that long; the guard watches on alone, until the load or that time is
over, or until the guard of the run's next session relieves it on its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from burnin.errors import InputError, NotReady, TrayError
from burnin.rack.load import RackFile
from burnin.rack.parts import tray_of
from burnin.rack.schema import Profile, Rack
from burnin.run import ahead, sockets
from burnin.run.guard_redfish import Leaks, sources
from burnin.run.guard_rules import ACTIONS, Seen, Trip, Watch
from burnin.run.guard_trays import GuardedTray, halt_all, outcome
from burnin.transport.agent import GuardLink
from burnin.transport.package import build
from burnin.transport.rack import dialer

TICK_S = 0.1
BEAT_S = 0.5
BLOCKED_S = 1.0
"""A turn that takes so long was no turn: nothing could be heard meanwhile."""
RELIEVE_S, ANSWER_S = 5.0, 1.0
"""How long an earlier session's guard may take to make way, and to answer."""
OVERLAP_S = 30.0
"""How long it watches on beside the one that relieved it, which has to connect first."""
CONFIRM_S = 5.0
"""How long it is watched whether load really ended, before what is left is named."""


class GuardProcess:
    """See the module. `told`: what the run sent first; `say` writes one message to the run."""

    def __init__(self, told: Mapping[str, Any], out: asyncio.StreamWriter) -> None:
        self._run_id, self._lease_s, self._db = told["run"], float(told["lease_s"]), Path(told["db"])
        self._profile = Profile.model_validate(told["profile"])
        self._file = RackFile(Path(told["rack_file"]), Rack.model_validate(told["rack"]), self._profile)
        waived = set(told["waived"])
        self.watch = Watch({name: rule for name, rule in self._profile.guard.items() if name not in waived})
        if not {"coolant_flow", "coolant_supply"} & set(self.watch.rules):  # a rise is made of what was waived by name
            self.watch.rules = {name: rule for name, rule in self.watch.rules.items() if name != "coolant_rise"}
        self._sources, self._unheard = sources(
            self._file, self.watch.rules, told["trays"], self.see, self._tell_state, self._drawn
        )
        self._dial = dialer(self._file)
        self.trays = {tray: self._tray(tray) for tray in told["trays"]}
        self._out = out
        self._heard_s = time.monotonic()
        self._over = asyncio.Event()
        self._clean = False
        self._gone = asyncio.Event()
        """The run is gone, and a stage of its is detached."""
        self._begun = asyncio.Event()
        """It listens at its socket, or knows that it cannot."""
        self._detached_s = 0.0
        self._relief = asyncio.Event()
        self._halting: set[asyncio.Task[None]] = set()
        self._asked: list[asyncio.StreamWriter] = []

    def _tray(self, tray: str) -> GuardedTray:
        return GuardedTray(
            tray,
            lambda heard: GuardLink(self._dial, tray, build(), self._run_id, heard),
            self.see,
            self._tell_state,
        )

    # ---- what comes in

    def see(self, one: Seen) -> None:
        """A reading, from wherever."""
        for trip in self.watch.see(one):
            self.trip(trip)

    def _drawn(self, tray: str) -> float | None:
        """Mean power of a tray's GPUs, as its agent told last; None where it was not all told just now."""
        guarded = self.trays.get(tray)
        return guarded.drawn(self._profile.topology.gpus(tray)) if guarded is not None else None

    def _hear(self, line: bytes) -> None:
        self._heard_s = time.monotonic()
        said = orjson.loads(line)
        if "there" in said:
            for tray, guarded in self.trays.items():
                guarded.expect(tray in said["there"])
        self._detached_s = float(said.get("detached", self._detached_s))
        if "bye" in said:
            self._clean = True
            self._over.set()

    async def _listen_to_run(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self._hear(line)
        if self._detached_s > 0 and not self._clean:
            self._gone.set()
            return
        if not self._clean:
            self._own_trip("controller", "the run's process ended without a word")
        self._over.set()

    def _own_trip(self, name: str, why: str) -> None:
        if (name, "rack") not in self.watch.tripped:
            trip = Trip(name, "rack", "rack", why, ACTIONS[name], time.monotonic(), 0.0)
            self.watch.tripped[name, "rack"] = trip
            self.trip(trip)

    async def _tick(self) -> None:
        beat_s = 0.0
        while True:
            begin_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if now - begin_s > BLOCKED_S:  # a guard that was frozen has not listened
                self._heard_s += now - begin_s
            self._look(now)
            if now - beat_s >= BEAT_S:
                beat_s = now
                self._say({"beat": now})
                if self.blind:
                    self._tell_state()

    def _look(self, now: float) -> None:
        silent_s, gone = now - self._heard_s, self._gone.is_set()
        if silent_s > max(self._lease_s, self._detached_s) and not self._relief.is_set():
            self._own_trip("controller", f"the run was silent for {silent_s:.1f} s: {'gone' if gone else 'frozen'}")
            if gone:
                self._over.set()
        if gone and silent_s > self._lease_s and not any(tray.loaded for tray in self.trays.values()):
            self._over.set()
        loaded = [gpu for tray in self.trays.values() if tray.watching for gpu in tray.loaded]
        self.watch.expect("gpu_margin", loaded, now)
        for name in {name for source in self._sources for name in source.names}:
            read = [source.part for source in self._sources if name in source.names and source.first_s is not None]
            self.watch.expect(name, read, now)
        for tray in self.trays.values():
            if tray.there.is_set() or tray.loaded:
                self.see(Seen("tray_lost", tray.tray, now - tray.heard_s, now, now))
        for trip in self.watch.tick(now):
            self.trip(trip)

    # ---- what goes out

    def _say(self, body: dict[str, Any]) -> None:
        if self._gone.is_set():
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._out.write(orjson.dumps(body) + b"\n")

    @property
    def blind(self) -> dict[str, str]:
        """What must be watched and cannot be, or has not been read yet, and why."""
        out = dict(self._unheard)
        for source in self._sources:
            if source.first_s is None:
                out |= {f"{name} of {source.part}": source.why for name in source.names if name in self.watch.rules}
        return out

    def _tell_state(self) -> None:
        why = {name: tray.why for name, tray in self.trays.items() if not tray.watching}
        self._say({"state": {"watching": [n for n, t in self.trays.items() if t.watching], "why": why, "blind": self.blind}})

    def trip(self, trip: Trip) -> None:
        """End load where this trip says, at once; then say so, then see that it is so."""
        target, everywhere = trip.target, trip.ends == "rack"
        trays = self.trays if everywhere else {t: g for t, g in self.trays.items() if t == tray_of(target)}
        ordered = asyncio.ensure_future(halt_all(trays, trip.why, [target] if trip.ends == "gpu" else None))
        self._say({"trip": asdict(trip)})
        task = asyncio.ensure_future(self._confirm(trip, trays, ordered))
        self._halting.add(task)
        task.add_done_callback(self._halting.discard)

    async def _confirm(self, trip: Trip, trays: Mapping[str, GuardedTray], ordered: asyncio.Future[dict[str, Any]]) -> None:
        answers = await ordered
        await self._power_off(trip)
        end, cold_s = time.monotonic() + CONFIRM_S, None
        limit = self._profile.limits.get("gpu.idle_power")
        idle_w = limit.max if limit is not None else None
        reached = {name: tray for name, tray in trays.items() if isinstance(answers[name], float)}
        while time.monotonic() < end and cold_s is None:
            await asyncio.sleep(0.02)
            parts = {name: self._profile.topology.gpus(name) if trip.ends != "gpu" else [trip.part] for name in reached}
            if all(tray.cold(parts[name], idle_w) for name, tray in reached.items()):
                cold_s = time.monotonic()
        if len(reached) < len(trays):  # of those that did not answer nothing is known
            cold_s = None
        told = outcome(trays, answers, trip.seen_s)
        told |= {"name": trip.name, "part": trip.part, "cold_s": None if cold_s is None else cold_s - trip.seen_s}
        self._say({"outcome": told})
        for writer in self._asked:
            writer.write(orjson.dumps({"outcome": told}) + b"\n")

    async def _power_off(self, trip: Trip) -> None:
        """The leaking tray itself, where the site enabled it, when its load is ordered off. Its BMC's own policy is its own."""
        wet = [one for one in self._sources if isinstance(one, Leaks) and one.part == trip.part]
        if trip.name != "leak" or "power_off_on_leak" not in self._file.rack.allow or not wet or trip.unread:
            return
        try:
            text = await wet[0].power_off()
        except TrayError as error:
            text = f"{trip.part} could not be switched off: {error}"
        self._say({"note": {"part": trip.part, "text": text}})

    # ---- its socket

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(orjson.dumps({"run": self._run_id, "pid": os.getpid()}) + b"\n")
        self._asked.append(writer)
        try:
            while line := await reader.readline():
                said = orjson.loads(line)
                do = said.get("do") if isinstance(said, dict) and said.get("run") == self._run_id else None
                if do == "emergency":
                    self._own_trip("emergency", f"emergency stop by {said.get('by') or 'somebody'}")
                    writer.write(b'{"said":"ordered"}\n')
                elif do == "relieve" and self._gone.is_set():
                    writer.write(b'{"said":"relieved"}\n')
                    self._relief.set()
        finally:
            self._asked.remove(writer)

    # ---- life

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Until the run says bye, or is gone and its load with it."""
        listening = await self._listen()
        self._begun.set()
        ends = [asyncio.ensure_future(job) for job in (self._listen_to_run(reader), self._make_way(listening))]
        tasks = [asyncio.ensure_future(self._tick())]
        tasks += [asyncio.ensure_future(tray.live()) for tray in self.trays.values()]
        tasks += [asyncio.ensure_future(source.live()) for source in self._sources]
        self._tell_state()
        over = asyncio.ensure_future(self._over.wait())
        done, _ = await asyncio.wait((over, *tasks), return_when=asyncio.FIRST_COMPLETED)
        if over not in done:  # a defect of the guard's: what it cannot watch must not heat
            self._own_trip("guard", f"the guard failed: {next(iter(done)).exception()!r}")
        while self._halting:
            await asyncio.wait(list(self._halting), timeout=CONFIRM_S)
        for task in (over, *ends, *tasks):
            task.cancel()
        await asyncio.gather(*ends, *tasks, return_exceptions=True)
        if listening is not None and not self._relief.is_set():
            await listening.close()
        await asyncio.gather(*(source.close() for source in self._sources), return_exceptions=True)
        await self._dial.close()

    async def _listen(self) -> sockets.Listening | None:
        """At the guard's socket, relieving an earlier session's guard that is still there."""
        end, asked = time.monotonic() + RELIEVE_S, False
        while True:
            try:
                return await sockets.listen(sockets.guard(self._db), self._serve, f"run {self._run_id}'s guard")
            except NotReady as error:
                if time.monotonic() > end:
                    self._unheard["emergency stop"] = str(error)
                    return None
                asked = asked or await self._relieve()
                await asyncio.sleep(TICK_S)

    async def _relieve(self) -> bool:
        """Ask the guard that listens there to make way; False where it does not."""
        said = b""
        try:
            reader, writer = await sockets.connect(sockets.guard(self._db), f"run {self._run_id}")
        except (InputError, NotReady):
            return False
        with contextlib.closing(writer), contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(ANSWER_S):
                writer.write(orjson.dumps({"do": "relieve", "run": self._run_id}) + b"\n")
                await reader.readline()
                said = await reader.readline()
        if b"relieved" in said:
            self._say({"relieved": 1})
        return b"relieved" in said

    async def _make_way(self, listening: sockets.Listening | None) -> None:
        await self._relief.wait()
        if listening is not None:
            await listening.close()
        await asyncio.sleep(OVERLAP_S)
        self._over.set()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    out = asyncio.StreamWriter(transport, protocol, None, loop)
    first = await reader.readline()
    if first:
        await GuardProcess(orjson.loads(first), out).run(reader)


def main() -> None:
    """Entry point of the process. Where it may, it goes before everything else on this machine."""
    ahead.for_long()
    asyncio.run(_main())


if __name__ == "__main__":
    main()
