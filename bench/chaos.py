"""A controller is killed at random moments of a run, and the run goes on: is the verdict that of the undisturbed run?

    python -m bench.chaos [--kills 50] [--seed 1]

One twin of two trays with two planted faults that stay as they are. First a run that nobody disturbs, twice (the faults begin
with the first load); then, as often as asked, a run whose controller gets SIGKILL at a random moment, and that is resumed. Held
against the undisturbed run: the word, and the set of (part, signature, severity). Looked for in the database: records twice,
records lost (a reading gap while the agent was the same one), attempts twice, damage.

`load_fraction` is below the usual 0.95: a load process of the twin that waits for one of two cores for a second takes a window of
ten seconds below that, with or without a kill. A stage that begins four seconds late, or the planted GPU, is still seen. The
lease is 15 s because a virtual machine may stand still for five. A run during which the machine stood still (STILL_S) is
repeated, whatever it said, the undisturbed one too; how often, and what it had said, is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnin.store import care, open_store
from burnin.twin.faults import parse
from burnin.twin.up import Twin, running

SUITE = """
suite: chaos
about: a short run to be killed
lease: 15 s
load_fraction: 0.6
sample_slow: 1 s
sample_links: 1 s
coverage: {metrics: [gpu.temp, gpu.power, ecc.dram_ue]}
stages:
  - {stage: audit, steps: [inventory]}
  - {stage: idle, phase: idle, for: 4 s, settle: 1 s, steps: [idle-baseline, links, xid]}
  - {stage: load, phase: load, for: 18 s, settle: 8 s, load: {}, steps: [gpu-load, thermal-margin, ecc, links, xid]}
  - {stage: cool, phase: cool, for: 4 s, steps: [ecc, xid]}
"""
PLANTED = ("clock_cap:t01.g2:0.6", "link_down:t00.g1.l3:0")
TWICE_S = 0.1
"""A record that is kept twice is placed twice, by two measurements of one clock; a late reading and the next one stand as near to
each other, but between them the energy counter grew."""
GAP_S = 3.5
"""Readings come every second; the twin shares two cores with whatever else runs."""


STILL_S, WINDOW_S = 3.0, 10.0
"""A machine stood still when somebody who wants to wake fifty times a second came late by so much in all, in so many seconds."""


class Watch(threading.Thread):
    """Sleeps, and notes by how much too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._late: list[tuple[float, float]] = []

    def run(self) -> None:
        """For as long as the bench lives."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -19)  # of this thread
        while True:
            begun = time.monotonic()
            time.sleep(0.02)
            if (late := time.monotonic() - begun - 0.02) > 0.1:
                self._late.append((begun, late))

    def worst(self, since: float) -> float:
        """The longest that the machine stood still within a window since then, seconds."""
        seen = [(at, late) for at, late in self._late if at >= since]
        return max((sum(late for at, late in seen if 0 <= at - first < WINDOW_S) for first, _ in seen), default=0.0)


@dataclass(frozen=True)
class Ended:
    """One run, told to its end."""

    code: int
    said: tuple[str, frozenset[tuple[str, str, str]]]
    wall_s: float


def begin(twin: Twin, place: Path, *more: str) -> subprocess.Popen[bytes]:
    """`burnin run`, in a process of its own."""
    (place / "chaos.yaml").write_text(SUITE)
    words = ["run", str(place / "chaos.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain", *more]
    words += ["--json", str(place / "verdict.json"), "--operator", "chaos"]
    with (place / "out").open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "burnin", *words], stdout=out, stderr=out)


def end(process: subprocess.Popen[bytes], place: Path) -> Ended:
    """Wait for it."""
    began = time.monotonic()
    code = process.wait(240)
    if code not in (0, 1, 3):
        raise SystemExit(f"a run ended with {code}: {(place / 'out').read_text()[-2000:]}")
    document: dict[str, Any] = json.loads((place / "verdict.json").read_text())
    found = frozenset((f["part"], f["signature"], f["severity"]) for f in document["findings"])
    return Ended(code, (document["verdict"], found), time.monotonic() - began)


def where(db: Path) -> str:
    """The stage that the run was in; empty before there was a run."""
    try:
        with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
            if connection.execute("SELECT 1 FROM run").fetchone() is None:
                return ""
            row = connection.execute("SELECT name FROM stage WHERE t1_s IS NULL ORDER BY id DESC").fetchone()
            return str(row[0]) if row else "between"
    except sqlite3.OperationalError:
        return ""


def wrong(db: Path) -> list[str]:
    """What is in the database twice, or is not, or is damaged."""
    out = list(care.check(db).damage)
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        twice = (
            "SELECT part, seq FROM log WHERE seq IS NOT NULL GROUP BY substr(part, 1, 3), seq, t_s HAVING count(*) > 1",
            "SELECT stage, step, part FROM evidence GROUP BY stage, step, part, attempt, round, kind, body HAVING count(*) > 1",
        )
        out += [f"twice: {row}" for query in twice for row in connection.execute(query)]
        said = "SELECT text FROM log WHERE text LIKE '%records were lost%'"
        out += [text for (text,) in connection.execute(said)]
        (changed,) = connection.execute("SELECT count(*) FROM log WHERE text LIKE '%agent that was here is gone%'").fetchone()
    with closing(open_store(db, create=False)) as store:
        run = store.run("last")
        for key, one in store.telemetry(run.id, metrics=["gpu.energy"]).series.items():
            steps = [b - a for a, b in zip(one.t_s, one.t_s[1:], strict=False)]
            grown = [b - a for a, b in zip(one.v, one.v[1:], strict=False)]
            if any(step < TWICE_S and not more for step, more in zip(steps, grown, strict=True)):
                out.append(f"{key} was kept twice")
            if not changed and max(steps) > GAP_S:
                out.append(f"{key} was not read for {max(steps):.1f} s although its agent lived")
    return out


def main() -> None:
    """Kills, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance, bad, stages = random.Random(given.seed), list[str](), dict[str, int]()
    resumed, repeated, watch = list[float](), 0, Watch()
    with tempfile.TemporaryDirectory(prefix="burnin-chaos-") as folder:
        planted = [parse(one) for one in PLANTED]
        with running("gb300-nvl72", given.seed, planted, where=Path(folder), trays=2, switches=0) as twin:
            watch.start()
            for name in ("first", *(f"undisturbed-{number}" for number in range(10))):
                (place := Path(folder) / name).mkdir()
                since = time.monotonic()
                undisturbed = end(begin(twin, place), place)
                if name != "first" and watch.worst(since) < STILL_S:
                    break
            print(f"undisturbed: {undisturbed.said[0]}, {sorted(undisturbed.said[1])}, {undisturbed.wall_s:.0f} s", flush=True)
            number = 0
            while number < given.kills:
                (place := Path(folder) / f"{number}-{repeated}").mkdir()
                since = time.monotonic()
                process = begin(twin, place)
                time.sleep(chance.uniform(0, undisturbed.wall_s))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                stage = where(place / "runs.db")
                found = end(begin(twin, place, *(["--resume", "last"] if stage else [])), place)
                trouble = wrong(place / "runs.db")
                if found.said != undisturbed.said:
                    trouble.append(f"{found.said[0]}, differing in {sorted(found.said[1] ^ undisturbed.said[1])}")
                if (still := watch.worst(since)) >= STILL_S:
                    repeated += 1
                    print(f"    the machine stood still for {still:.1f} s: again ({'; '.join(trouble) or 'same'})", flush=True)
                    continue
                number += 1
                stages[stage or "before it began"] = stages.get(stage or "before it began", 0) + 1
                resumed.append(found.wall_s)
                bad += [f"kill {number} in {stage or 'no stage'}: {one}" for one in trouble]
                print(f"{number:3} killed in {stage or 'no stage':10} {'; '.join(trouble) or 'same'}", flush=True)
    print(f"\n{given.kills} kills, at random moments ({', '.join(f'{n} in {name}' for name, n in stages.items())})")
    print(f"resumed to the end in {statistics.median(resumed):.0f} s (median); not as undisturbed: {len(bad)}")
    print(f"repeated because the machine stood still: {repeated}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
