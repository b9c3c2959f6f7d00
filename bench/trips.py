"""Trips of the guard on a twin of 18 trays under full load: `python -m bench.trips` prints the table of docs/safety.md.

The guard is the product's process with its own SSH and Redfish connections, the agents are real, and each trip begins with all
72 GPUs at their power limit. What is bad is written over the twin's own values (a wet leak detector, a flow of 5 L/min), which
its BMCs and CDU then tell. "At rest" and "cold" are the twin's truth: no GPU has work, every GPU is below its idle power and a
tenth. A die that is hot leaks more than that by itself, for seconds: see --soak.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from burnin.events import TrayState
from burnin.rack.load import RackFile, load_rack
from burnin.run.beside import keep_ways
from burnin.run.guard import Guardian, configuration
from burnin.run.straight import ways_of
from burnin.store import RunStart, open_store
from burnin.transport.agent import AgentLink
from burnin.transport.package import build
from burnin.transport.rack import dialer
from burnin.twin.rackstate import RackState
from burnin.twin.state import State
from burnin.twin.up import Twin, running
from burnin.wire import Record

RUN = "bench-1"
LOADED_W, UNLOADED = 1300.0, 1.1
TRAY = "t07"
HEAD = """| | n | detected | last answer | last load process gone | last GPU at rest | cold |
|---|---|---|---|---|---|---|"""


@dataclass
class Trip:
    """Seconds: the reading bad -> seen by the guard; seen -> last answer, last load process gone, last GPU at rest, cold."""

    detected: float
    answered: float
    gone: float
    rest: float
    cold: float


class NotBegun(RuntimeError):
    """Nothing was under load to be tripped."""


class Recording(Guardian):
    """A guardian that keeps what its guard said, as it was."""

    said: list[dict[str, Any]]

    def _hear(self, said: dict[str, Any]) -> None:
        self.__dict__.setdefault("said", []).append(said)
        super()._hear(said)

    def of(self, kind: str) -> dict[str, Any] | None:
        """The first message of this kind."""
        return next((one[kind] for one in self.__dict__.get("said", []) if kind in one), None)


@dataclass
class Bench:
    """The rack, its agents and its truth."""

    twin: Twin
    file: RackFile
    place: Path
    soak_s: float = 0.0
    links: dict[str, AgentLink] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    """Number of each agent's last record: what it need not keep."""
    states: dict[str, State] = field(default_factory=dict)
    idle_w: dict[tuple[str, int], float] = field(default_factory=dict)

    async def open(self) -> None:
        """Agents on every tray, sampled once a second and leased."""
        dial = dialer(self.file)
        for tray in self.file.rack.compute():
            self.links[tray] = AgentLink(dial, tray, build(), RUN, partial(self._hear, tray))
            self.states[tray] = State.open(str(self.twin.trays[tray].dir / "state"))
        await asyncio.gather(*(link.open() for link in self.links.values()))
        await asyncio.gather(*(self._sample(link) for link in self.links.values()))
        self._leasing = asyncio.ensure_future(self._lease())
        await asyncio.sleep(3)
        self.idle_w = dict(self.power())

    def _hear(self, tray: str, records: list[Record]) -> None:
        self.heard[tray] = records[-1].seq

    async def _sample(self, link: AgentLink) -> None:
        link.lease(60, -1)
        await link.order("sample", fast_s=1.0, slow_s=5.0, links_s=60.0)

    async def _lease(self) -> None:
        while True:
            for link in self.links.values():
                link.lease(60, self.heard.get(link.part, -1))
            await asyncio.sleep(2)

    def power(self) -> Iterator[tuple[tuple[str, int], float]]:
        """(tray, GPU) -> W, as the twin's own physics has it."""
        for tray, state in self.states.items():
            for i, row in enumerate(state.gpus):
                yield (tray, i), row["power_mw"] / 1000

    def cold(self) -> bool:
        """Every GPU at its idle power and no more than a tenth above."""
        return all(watts <= UNLOADED * self.idle_w[key] for key, watts in self.power())

    def rest(self) -> bool:
        """No GPU has work."""
        return not any(row["util_pct"] for state in self.states.values() for row in state.gpus)

    async def load(self, guard: Recording | None) -> None:
        """All GPUs to their power limit, and for `soak_s` there. Raises NotBegun when they do not get there, or the guard ends it
        before anything was done to it; then it is closed."""

        async def one(link: AgentLink) -> None:
            await link.order("clear")
            await link.order("load", gpus=["g0", "g1", "g2", "g3"], kernel="tensor_burn", cutoff_margin_c=0.0, max_s=600.0)

        await asyncio.gather(*(one(link) for link in self.links.values()))
        missing = set(self.idle_w)  # each once: where cores are scarce, hardly ever all of them in one moment

        def up() -> bool:
            missing.difference_update(key for key, watts in self.power() if watts >= LOADED_W)
            return not missing

        why = ""
        try:
            await until(lambda: up() or (guard is not None and guard.of("trip") is not None), 60, "no load")
        except RuntimeError:
            why = f"no load on {', '.join(f'{tray}.g{gpu}' for tray, gpu in sorted(missing))} within a minute"
        await asyncio.sleep(0 if why else self.soak_s)
        if guard is not None and (early := guard.of("trip")) is not None:
            why = f"the guard tripped by itself: {early['why']}"
        if why:
            if guard is not None:
                await guard.close(clean=True)
            raise NotBegun(why)

    async def guarded(self) -> Recording:
        """A fresh guard that watches everything."""
        told = configuration(self.file, RUN, self.place / "b.db", list(self.links), 60.0, [])
        guard = Recording(told, lambda _: None, lambda: None, time.monotonic, 0.0)
        await guard.start()
        for tray in self.links:
            guard.see(TrayState(tray, 0.0, "ready"))
        await guard.ready()
        missing = guard.interlocks(list(self.links))
        if missing:
            raise RuntimeError(f"not guarded: {missing}")
        return guard

    async def close(self) -> None:
        """Leave."""
        self._leasing.cancel()
        for link in self.links.values():
            with contextlib.suppress(Exception):
                await link.order("bye")
            await link.close()


async def until(what: Callable[[], bool], seconds: float, why: str) -> float:
    """Poll every 5 ms; the moment it was so."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(why)
        await asyncio.sleep(0.005)
    return time.monotonic()


@contextlib.contextmanager
def held(row: Any, name: str, value: float) -> Iterator[None]:
    """Write a value over the twin's, again and again, until the block is left."""
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.002):
            row[name] = value

    row[name] = value
    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def series(trip: Callable[[], Awaitable[Trip]], count: int) -> list[Trip]:
    """So many of them. One that never began (no load, or the guard tripped by itself beforehand) is told, and made again."""
    made: list[Trip] = []
    for _ in range(2 * count):
        try:
            made.append(await trip())
            print(made[-1], file=sys.stderr, flush=True)
        except NotBegun as why:
            print(f"not begun, made again: {why}", file=sys.stderr, flush=True)
        if len(made) == count:
            break
    return made


async def by_reading(bench: Bench, row: Any, name: str, value: float) -> Trip:
    """One trip by a reading."""
    guard = await bench.guarded()
    await bench.load(guard)
    begin = time.monotonic()
    with held(row, name, value):
        rest = await until(bench.rest, 20, "not unloaded")
        cold = await until(bench.cold, 20, "not cold")
        await until(lambda: guard.of("outcome") is not None, 20, "no outcome")
    trip, outcome = guard.of("trip"), guard.of("outcome")
    assert trip is not None and outcome is not None
    await guard.close(clean=True)
    seen = trip["seen_s"]
    return Trip(seen - begin, outcome["last_answer_s"], outcome["last_gone_s"], rest - seen, cold - seen)


async def by_command(bench: Bench, guarded: bool) -> Trip:
    """One emergency stop: seconds count from the start of the command (detected: until the guard had it)."""
    guard = await bench.guarded() if guarded else None
    await bench.load(guard)
    begin = time.monotonic()
    words = [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(bench.place / "b.db")]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    rest = await until(bench.rest, 30, "not unloaded")
    cold = await until(bench.cold, 30, "not cold")
    await process.communicate()
    trip, outcome = (guard.of("trip"), guard.of("outcome")) if guard is not None else (None, None)
    if guard is not None:
        await guard.close(clean=True)
    if trip is None or outcome is None:
        return Trip(float("nan"), float("nan"), float("nan"), rest - begin, cold - begin)
    lead = trip["seen_s"] - begin
    return Trip(lead, lead + outcome["last_answer_s"], lead + outcome["last_gone_s"], rest - begin, cold - begin)


def keep_run(bench: Bench) -> None:
    """A database with a run that nobody keeps any more, for the way straight over SSH."""
    told = configuration(bench.file, RUN, bench.place / "b.db", list(bench.links), 60.0, [])
    plan = {"trays": list(bench.links), "only": []}
    config = {**{key: told[key] for key in ("rack", "rack_file", "profile")}, "plan": plan, "suite": None}
    config["versions"] = {"agent": build().sha256[:16]}
    store = open_store(bench.place / "b.db")
    store.begin_run(
        RunStart(RUN, bench.file.rack.rack, "gb300-nvl72", None, False, False, "bench", "2026-01-01T00:00:00Z", config)
    )
    store.close()
    dial = dialer(bench.file)
    keep_ways(bench.place / "b.db", RUN, ways_of(dial, tuple(bench.links), build()))


def show(what: str, trips: list[Trip]) -> str:
    """One row of the table."""
    cells = []
    for name in ("detected", "answered", "gone", "rest", "cold"):
        values = [value for one in trips if (value := getattr(one, name)) == value]
        cells.append(f"{statistics.median(values):.2f} / {max(values):.2f}" if values else "-")
    return f"| {what} | {len(trips)} | {' | '.join(cells)} |"


async def main(count: int, trays: int, only: str, soak_s: float) -> int:
    """All of them; prints as it goes."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with running("gb300-nvl72", 31, [], where=place, trays=trays, switches=0) as twin:
            text = re.sub(r"waive:\n(  - .*\n)+", "", twin.rack_file.read_text())
            twin.rack_file.write_text(text)
            bench = Bench(twin, load_rack(twin.rack_file), place, soak_s)
            await bench.open()
            keep_run(bench)
            rack = RackState.open(str(twin.private / "rack"))
            wet = rack.tray(TRAY if trays > 7 else "t01")
            kinds: dict[str, Callable[[], Any]] = {
                "leak": lambda: by_reading(bench, wet, "leak0_v", 0.5),
                "flow lost": lambda: by_reading(bench, rack.cdu, "says_flow_lpm", 5.0),
                "`stop --emergency`, by the guard": lambda: by_command(bench, True),
                "`stop --emergency`, straight over SSH": lambda: by_command(bench, False),
            }
            print(f"{trays} trays, {os.cpu_count()} cores; seconds, p50 / max")
            print(HEAD)
            for what, trip in ((what, trip) for what, trip in kinds.items() if only in what):
                print(show(what, await series(trip, count)), flush=True)
            await bench.close()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--count", type=int, default=100, help="trips of each row")
    parser.add_argument("--trays", type=int, default=18)
    parser.add_argument("--only", help="a word of the rows wanted: leak, flow, guard, SSH")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds at full load before each: how hot the dies are")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.count, given.trays, given.only or "", given.soak)))
