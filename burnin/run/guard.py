"""The run's side of its guard: starts the process, tells it that the run lives, and does what it says.

A trip that ends the whole rack stops the run; one of a GPU or tray is kept, and the others go on. A guard that dies or is
silent stops the run: nothing heats unguarded. Only where a stage is detached may load go on when run and guard are gone together;
a guard that outlives its run watches on, and makes way for the guard of the next session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import orjson

from burnin.events import LogLine, TrayState
from burnin.rack.load import RackFile
from burnin.run.interlocks import Interlock

BEAT_S = 0.5
GRACE_S = 1.0
"""A guard that ends in a detached stage may have been told to, as its run will be: a reboot. So long load is left on."""
SILENT_S = 5.0
"""A guard that said nothing for so long is taken for dead."""
READY_S = 30.0
"""How long load waits for the guard to watch every tray that is there."""
PROVED_S = 12.0
"""How long a run waits at its end for what became of a halt: the guard's order, a power-off, and its look at what is left."""
_LEAVE_S = 8.0


class Guardian:
    """One guard. `event` keeps a log line, `stop` ends the run; `now_s` gives run seconds, `start_s` is their monotonic zero."""

    def __init__(
        self,
        told: Mapping[str, Any],
        event: Callable[[LogLine], None],
        stop: Callable[[], None],
        now_s: Callable[[], float],
        start_s: float,
    ) -> None:
        self._told, self._event, self._stop = dict(told), event, stop
        self._now_s, self._start_s = now_s, start_s
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._heard_s = 0.0
        self._state: dict[str, Any] = {"watching": [], "why": {}, "blind": {}}
        self._there: set[str] = set()
        self._proving: set[tuple[str, str]] = set()
        """Trips (name, part) of which it was not said yet what became of the load."""
        self._changed = asyncio.Event()
        self._leaving = self._begun = False
        self._detached_s = 0.0
        self.relieved = False
        """An earlier session's guard was still there, and made way for this one."""
        self.dead = ""
        """Why there is no guard any more."""

    async def start(self) -> None:
        """Start the process; it connects by itself. What was to be told before is told first."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "burnin.run.guard_process",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=4 << 20,
        )  # fmt: skip
        self._heard_s = self._now_s()
        self._say(self._told)
        self._say({"there": sorted(self._there), "detached": self._detached_s})
        self._tasks = [asyncio.ensure_future(job) for job in (self._listen(), self._beat())]

    def _say(self, body: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(orjson.dumps(body) + b"\n")

    async def _beat(self) -> None:
        while not self.dead:
            begin_s = self._now_s()
            self._say({"beat": begin_s})
            await asyncio.sleep(BEAT_S)
            self._heard_s += max(0.0, self._now_s() - begin_s - 2 * BEAT_S)  # a run that was blocked has not listened
            if self._now_s() - self._heard_s > (SILENT_S if self._begun else READY_S):  # imports take a while on a busy machine
                self._died(f"the guard was silent for {self._now_s() - self._heard_s:.1f} s")

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._heard_s = self._now_s()
            self._hear(orjson.loads(line))
        if self._detached_s > 0:
            await asyncio.sleep(GRACE_S)
        if not self._leaving:
            self._died(f"the guard's process ended with status {await self._process.wait()}")

    def _died(self, why: str) -> None:
        if not self.dead and not self._leaving:
            self.dead = why
            self._changed.set()
            self._event(LogLine("rack", self._now_s(), "guard", "lost", f"{why}; nothing heats unguarded", "controller"))
            self._stop()

    def _hear(self, said: dict[str, Any]) -> None:
        self._begun = True
        if "state" in said:
            self._state.update(said["state"])
            self._changed.set()
        elif "trip" in said:
            self._tripped(said["trip"])
        elif "relieved" in said:
            self.relieved = True
        elif "note" in said:
            self._event(LogLine(said["note"]["part"], self._now_s(), "note", "", said["note"]["text"], "guard"))
        elif "outcome" in said:
            self._proving.discard((said["outcome"]["name"], said["outcome"]["part"]))
            self._changed.set()
            self._event(LogLine(said["outcome"]["part"], self._now_s(), "guard", "outcome", told(said["outcome"]), "guard"))

    def _tripped(self, trip: Mapping[str, Any]) -> None:
        late = f" (so for at most {trip['latency_s']:.2f} s before it was seen)" if trip["latency_s"] else ""
        text = f"{trip['why']}{late}; to do: {trip['action']}"
        self._event(LogLine(trip["part"], trip["seen_s"] - self._start_s, "guard", trip["name"], text, trip["ends"]))
        self._proving.add((trip["name"], trip["part"]))
        if trip["ends"] == "rack":
            self._stop()

    # ---- for the run

    def see(self, event: object) -> None:
        """An event of the run's: which trays are there."""
        if isinstance(event, TrayState) and event.tray in self._told["trays"]:
            before = set(self._there)
            (self._there.add if event.state == "ready" else self._there.discard)(event.tray)
            if self._there != before:
                self._say({"there": sorted(self._there)})

    def detach(self, for_s: float) -> None:
        """For so long the guard is not to take this run's silence or death for a reason to end load; 0: at once, as ever."""
        self._detached_s = for_s
        self._say({"detached": for_s})

    async def ready(self) -> None:
        """Returns when every tray that is there is watched, or when it is known that not all will be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not self.dead and (self._state["blind"] or not self._there <= set(self._state["watching"])):
                    self._changed.clear()
                    await self._changed.wait()

    async def proved(self) -> None:
        """Returns when the guard has said what became of every halt: until then agents have to stay, who read the power."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROVED_S):
                while self._proving and not self.dead:
                    self._changed.clear()
                    await self._changed.wait()

    def interlocks(self, trays: Collection[str]) -> list[Interlock]:
        """What of these trays is not guarded: unread, so not good."""
        if self.dead:
            return [Interlock("guard", "rack", "unread", self.dead)]
        out = [
            Interlock("guard", "rack", "unread", f"{name} cannot be watched: {why}") for name, why in self._state["blind"].items()
        ]
        for tray in sorted(set(trays) - set(self._state["watching"])):
            why = self._state["why"].get(tray, "not reached yet")
            out.append(Interlock("guard", tray, "unread", f"the guard does not watch {tray}: {why}"))
        return out

    async def close(self, *, clean: bool) -> None:
        """Let it go. Not clean: load may still be on, and the guard ends it."""
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        process = self._process
        if process is None or process.stdin is None:
            return
        if clean:
            self._say({"bye": 1})
        process.stdin.close()
        try:
            async with asyncio.timeout(_LEAVE_S):
                if process.stdout is not None:
                    await process.stdout.read()
                await process.wait()
        except TimeoutError:
            if clean:
                process.kill()


def configuration(
    file: RackFile, run: str, db: Path, trays: Collection[str], lease_s: float, waived: Collection[str]
) -> dict[str, Any]:
    """What a guard is told first. Secrets are named in it, never written."""
    return {
        "run": run,
        "db": os.path.abspath(db),
        "lease_s": lease_s,
        "rack_file": os.path.abspath(file.path),
        "rack": file.rack.model_dump(mode="json", by_alias=True),
        "profile": file.profile.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "trays": list(trays),
        "waived": sorted(waived),
    }


def told(outcome: Mapping[str, Any]) -> str:
    """What a halt came to, as a sentence."""
    said = [f"load ordered off for {outcome['name']}: {outcome['answered']} trays answered"]
    for key, what in (
        ("last_answer_s", "the last answer"),
        ("last_gone_s", "the last load process gone"),
        ("cold_s", "every GPU read at idle power"),
    ):
        if outcome[key] is not None:
            said.append(f"{what} {outcome[key]:.2f} s after the reading")
    if outcome["cold_s"] is None:
        still = ", ".join(outcome["still"])
        said.append(f"not all GPUs were read at idle power{f': {still} still loaded' if still else ''}")
    said += [f"{tray} did not answer: {why}" for tray, why in outcome["unanswered"].items()]
    return "; ".join(said)
