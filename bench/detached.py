"""A stage is detached, run and guard are killed, the run comes back: how soon is every tray attached, and what is missing?

    python -m bench.detached [--trays 18] [--switches 9] [--away 60]

A twin gb300-nvl72 whose BMCs mind leaks, under full load. Times are seconds from the start of the process that resumes, and from
the beginning of its session (Python has started, files are read), until the last tray is ready: connected, its agent found, all
that it recorded fetched. Looked for in the database: readings missing, readings twice, records that were dropped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.faults import alive, burning, enable_policy, until
from bench.soak import named
from burnin.store import open_store
from burnin.twin.up import Twin, running

SUITE = """
suite: detached
about: load that is left alone
lease: 30 s
coverage: {metrics: [gpu.temp, gpu.power]}
stages:
  - {stage: load, phase: load, for: 20 min, settle: 6 s, detach: 10 min, load: {}, steps: [gpu-load]}
"""


def begin(twin: Twin, place: Path, *more: str) -> subprocess.Popen[bytes]:
    """`burnin run`, in a process of its own."""
    (place / "detached.yaml").write_text(SUITE)
    words = ["run", str(place / "detached.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain", *more]
    with (place / "out").open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "burnin", *words, "--operator", "bench"], stdout=out, stderr=out)


def asked(db: Path, query: str) -> list[Any]:
    """Rows; none while the database is being made."""
    try:
        with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def wait(what: Callable[[], object], process: subprocess.Popen[bytes], place: Path) -> None:
    """Until it is so, or say what the run said."""
    until(lambda: what() or process.poll() is not None, 600)
    if not what():
        raise SystemExit((place / "out").read_text()[-3000:])


def readings(db: Path) -> str:
    """What was read of every GPU, second by second, and what was not."""
    missing, twice, longest, counted = 0, 0, 0.0, 0
    ((away_s, back_s),) = asked(db, "SELECT a.t1_s, b.t0_s FROM session a, session b WHERE a.number = 1 AND b.number = 2")
    across = 0.0
    with closing(open_store(db, create=False)) as store:
        for one in store.telemetry(store.run("last").id, metrics=["gpu.temp"]).series.values():
            steps = [b - a for a, b in zip(one.t_s, one.t_s[1:], strict=False)]
            counted += len(one.t_s)
            missing += sum(round(step) - 1 for step in steps if step > 1.5)
            twice += sum(step < 0.05 for step in steps)
            longest = max(longest, *steps)
            across = max(
                across, *(b - a for a, b in zip(one.t_s, one.t_s[1:], strict=False) if b > away_s - 5 and a < back_s + 5)
            )
    lost = sum(int(text.split()[1]) for (text,) in asked(db, "SELECT text FROM log WHERE text LIKE '%records were lost%'"))
    late = f"{missing} late or missing (longest gap {longest:.1f} s, while nobody was there {across:.1f} s)"
    return f"{counted} readings of a GPU's temperature, {late}, {twice} twice; {lost} records lost by number"


def main() -> None:
    """One trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trays", type=int, default=18)
    parser.add_argument("--switches", type=int, default=9)
    parser.add_argument("--away", type=float, default=60.0, help="seconds without controller and guard")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="burnin-detached-") as folder:
        place, db = Path(folder), Path(folder) / "runs.db"
        with running("gb300-nvl72", 1, [], where=place, trays=given.trays, switches=given.switches) as twin:
            enable_policy(twin)
            process = begin(twin, place)
            wait(lambda: asked(db, "SELECT 1 FROM log WHERE kind = 'detached'"), process, place)
            time.sleep(5)
            (guard,) = named(process.pid, b"burnin.run.guard_process")
            for pid in (process.pid, guard):
                os.kill(pid, signal.SIGKILL)
            process.wait()
            load = [pid for pids in burning(twin, b"work").values() for pid in pids]
            time.sleep(given.away)
            print(f"{sum(map(alive, load))} of {len(load)} load processes live after {given.away:.0f} s alone", flush=True)
            before = time.monotonic()
            process = begin(twin, place, "--resume", "last")
            wait(lambda: asked(db, "SELECT 1 FROM log WHERE kind = 'detached' AND code = 'goes on'"), process, place)
            ((t0_s, mono_s),) = asked(db, "SELECT t0_s, mono_s FROM session WHERE number = 2")
            ready = asked(db, f"SELECT tray, min(t_s) FROM tray_state WHERE state = 'ready' AND t_s >= {t0_s} GROUP BY tray")
            last_s = max(t_s for _, t_s in ready) - t0_s
            taken_s = asked(db, "SELECT t_s FROM log WHERE kind = 'detached' AND code = 'goes on'")[0][0] - t0_s
            print(f"{len(ready)} of {given.trays + given.switches} trays ready again {last_s:.2f} s after the session began,")
            print(f"{mono_s - before + last_s:.2f} s after the process did; the stage taken up, guarded, after {taken_s:.2f} s")
            time.sleep(10)
            print(f"{sum(map(alive, load))} of {len(load)} load processes are the same", flush=True)
            words = [sys.executable, "-m", "burnin", "stop", "last", "--db", str(db)]
            subprocess.run(words, check=False, capture_output=True)
            process.wait(120)
            print(readings(db))
            for (text,) in asked(db, "SELECT text FROM log WHERE kind IN ('unguarded', 'link')"):
                print(text)
            print("load average", " ".join(f"{one:.1f}" for one in os.getloadavg()))


if __name__ == "__main__":
    main()
