"""The guard over real processes: whoever dies or freezes, the load goes, and it is said.

One twin of two trays for all; every run is brought under load, something is done to it, and the trays' own view is looked at.
Bounds tell who ended the load (the lease takes 15 s longer than any of them, or is said); they leave room for a busy machine, and
bench/chaos.py measures.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from burnin.run import beside, sockets
from burnin.twin.rackstate import RackState
from burnin.twin.tray import descendants
from burnin.twin.up import Twin, running
from tests.twin.runs import LOADED_S, ROOM_S, Running, alive, burnin, kill, wait_for, workers

SUITE = """
suite: guarded
about: load, until somebody ends it
lease: {lease} s
sample: 2 s
stages:
  - {{stage: load, phase: load, for: 10 min, settle: 1 s, load: {{}}, steps: [gpu-load]}}
"""
pytestmark = pytest.mark.live


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for it, whether or not a test has read what it said."""
    if process.stdout is not None and not process.stdout.closed:
        process.communicate()
    else:
        process.wait()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    with running("gb300-nvl72", 21, [], where=tmp_path_factory.mktemp("rack"), trays=2, switches=0) as made:
        yield made


class Loaded:
    """A run under load, its guard's pid, and the load processes on the trays."""

    def __init__(self, twin: Twin, place: Path, lease_s: float = 60) -> None:
        (place / "guarded.yaml").write_text(SUITE.format(lease=lease_s))
        words = ["run", str(place / "guarded.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain"]
        words += ["--json", str(place / "verdict.json"), "--operator", "test"]
        process = subprocess.Popen(
            [sys.executable, "-m", "burnin", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.run = Running(process, place)
        self.pids = [twin.trays[tray].pid for tray in ("t00", "t01")]
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in self.pids), LOADED_S, "the load never came up")
        time.sleep(1)  # real time: let every worker burn, and be read
        self.load = [worker for pid in self.pids for worker in workers(pid)]
        (self.guard,) = (pid for pid in descendants(process.pid) if b"burnin.run.guard_process" in cmdline(pid))

    def off(self, seconds: float) -> float:
        """Wait until no load process lives: how long it took."""
        return wait_for(lambda: not any(map(alive, self.load)), seconds, "load is still on")

    def said(self, code: str) -> str:
        """What was kept of the guard under this word."""
        with closing(sqlite3.connect(f"file:{self.run.db}?mode=ro", uri=True)) as connection:
            rows = connection.execute("select text from log where kind = 'guard' and code = ?", (code,)).fetchall()
        return "\n".join(text for (text,) in rows)


Make = Callable[..., Loaded]


@pytest.fixture
def loaded_run(twin: Twin, tmp_path: Path) -> Iterator[Make]:
    """Makes runs under load; whatever froze of them is ended with the test."""
    made: list[Loaded] = []

    def make(**how: float) -> Loaded:
        made.append(Loaded(twin, tmp_path, **how))
        return made[-1]

    yield make
    for one in made:
        for pid in (one.run.process.pid, one.guard):
            kill(pid, signal.SIGKILL)
        finish(one.run.process)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_emergency_stop_through_the_guard(loaded_run: Make, twin: Twin, tmp_path: Path) -> None:
    loaded = loaded_run()
    asked = subprocess.Popen(
        [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(loaded.run.db)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    loaded.off(14)  # the start of a Python among it
    out, _ = asked.communicate(timeout=60)
    assert asked.returncode == 0, "every GPU was read at rest, though the suite reads it less often"
    assert "2 answered" in out
    assert "every GPU was read at idle power" in out
    took = re.search(r"the last load process was gone ([\d.]+) s after the order", out)
    assert took is not None and float(took[1]) < 1 + ROOM_S
    code, text = loaded.run.end()
    assert code == 3, text
    document = loaded.run.verdict()
    assert document["verdict"] == "HOLD"
    assert document["holds"][0]["why"].startswith("emergency stop by "), "the cause first"
    assert {f["signature"]: f["severity"] for f in document["findings"]}.items() >= {"guard.emergency": "HOLD"}.items()
    assert "2 trays answered" in loaded.said("outcome")
    judged = burnin("judge", "last", "--db", str(loaded.run.db), "--json", str(tmp_path / "again.json"))
    assert judged.returncode == 3
    assert (tmp_path / "again.json").read_text() == (tmp_path / "verdict.json").read_text()
    assert not alive(loaded.guard)
    assert not list(tmp_path.glob("runs.db.*[!l]")) or not sockets.live(loaded.run.db).exists()
    assert not beside.ways(loaded.run.db).exists()
    gone = burnin("stop", "last", "--db", str(loaded.run.db))
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert "is not going on" in gone.stderr


def test_planned_stop_and_a_second_screen(loaded_run: Make, twin: Twin, tmp_path: Path) -> None:
    loaded = loaded_run()
    words = [sys.executable, "-m", "burnin", "watch", "--db", str(loaded.run.db)]
    heard, seen = tmp_path / "heard", tmp_path / "seen"  # files: a watcher whose pipe is full is let go
    with seen.open("wb") as drawn:
        lines = subprocess.Popen([*words, "--json", str(heard)])
        screen = subprocess.Popen([*words, "--plain"], stdout=drawn)
    wait_for(lambda: heard.exists() and b"\n" in heard.read_bytes() and seen.read_bytes(), 60, "the screens never connected")
    assert '"event":"run"' in heard.read_text().splitlines()[0]
    wrong = burnin("stop", "19990101", "--db", str(loaded.run.db))
    assert (wrong.returncode, "run 19990101 is not going on: with this database it is " in wrong.stderr) == (2, True)
    second = burnin("run", str(tmp_path / "guarded.yaml"), str(twin.rack_file), "--db", str(loaded.run.db), "--plain")
    assert second.returncode == 3
    assert "is held by run" in second.stderr
    asked = burnin("stop", "last", "--db", str(loaded.run.db))
    assert asked.returncode == 0, asked.stderr
    loaded.off(5 + ROOM_S)
    code, text = loaded.run.end()
    assert code == 3, text
    assert "stopped before its end" in (tmp_path / "verdict.json").read_text()
    assert (lines.wait(60), screen.wait(60)) == (0, 0)
    out, shown = heard.read_text(), seen.read_text()
    assert '"event":"ended"' in out and '"verdict":"HOLD"' in out and '"t00.g0 gpu.power"' in out
    assert "stage 1/1 load" in shown and "a planned stop was asked for by" in shown and "has ended" in shown


@pytest.mark.parametrize(("number", "seconds", "why"), [(signal.SIGKILL, 3, "status -9"), (signal.SIGSTOP, 8, "silent for")])
def test_without_its_guard_a_run_unloads_and_holds(loaded_run: Make, number: signal.Signals, seconds: float, why: str) -> None:
    loaded = loaded_run()
    os.kill(loaded.guard, number)
    loaded.off(seconds + ROOM_S)
    code, text = loaded.run.end()
    kill(loaded.guard, signal.SIGKILL)
    assert code == 3, text
    assert why in loaded.said("lost")
    assert loaded.run.verdict()["holds"][0]["why"].startswith("the guard")
    found = {f["signature"]: f["severity"] for f in loaded.run.verdict()["findings"]}
    assert found["guard.lost"] == "HOLD" and "FAIL" not in found.values()


def test_the_guard_outlives_a_killed_run_and_ends_its_load(loaded_run: Make, twin: Twin, tmp_path: Path) -> None:
    loaded = loaded_run()
    loaded.run.process.kill()
    loaded.off(2 + ROOM_S)  # long before the lease of 15 s
    finish(loaded.run.process)
    wait_for(lambda: not alive(loaded.guard), 20, "the guard stayed")
    again = burnin("stop", "last", "--emergency", "--db", str(loaded.run.db))
    assert (again.returncode, again.stderr) == (0, ""), "idempotent"
    assert "straight over SSH 2 trays are without load after" in again.stdout


def test_the_guard_outlives_a_frozen_run_which_then_says_why(loaded_run: Make, twin: Twin, tmp_path: Path) -> None:
    loaded = loaded_run(lease_s=4)
    loaded.run.process.send_signal(signal.SIGSTOP)
    loaded.off(4 + 1 + ROOM_S)
    plain = burnin("stop", "last", "--db", str(loaded.run.db))
    assert (plain.returncode, "--emergency" in plain.stderr) == (3, True), (
        "a frozen run does not answer, and the way out is named"
    )
    loaded.run.process.send_signal(signal.SIGCONT)
    code, text = loaded.run.end()
    assert code == 3, text
    assert "the run was silent for" in loaded.said("controller")
    assert "frozen" in loaded.run.verdict()["holds"][0]["why"]


def test_emergency_stop_without_any_controller(loaded_run: Make, twin: Twin, tmp_path: Path) -> None:
    loaded = loaded_run()
    os.kill(loaded.guard, signal.SIGSTOP)  # neither of them can do anything
    loaded.run.process.send_signal(signal.SIGSTOP)
    away = loaded.run.db.rename(tmp_path / "away.db")  # nor is the database needed
    asked = subprocess.Popen(
        [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(loaded.run.db)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    loaded.off(14)  # three seconds on a machine that does nothing else; bench/trips.py measures
    out, _ = asked.communicate(timeout=60)
    assert asked.returncode == 0, out
    assert "straight over SSH 2 trays are without load" in out
    away.rename(loaded.run.db)


@contextmanager
def wet(twin: Twin, tray: str) -> Iterator[None]:
    """A leak detector of this tray says that it is wet, whatever the twin's loop would have it say."""
    row, dry = RackState.open(str(twin.private / "rack")).tray(tray), threading.Event()

    def drip() -> None:
        while not dry.wait(0.01):
            row["leak0_v"] = 0.5

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        yield
    finally:
        dry.set()
        dripping.join()


def test_a_leak_under_load_ends_the_racks_load_and_tells_the_operator(tmp_path: Path) -> None:
    with running("gb300-nvl72", 22, [], where=tmp_path, trays=2, switches=0) as dripping:
        lines = dripping.rack_file.read_text().splitlines(keepends=True)
        dripping.rack_file.write_text("".join(line for line in lines if "interlock: leak," not in line))  # now it is watched
        loaded = Loaded(dripping, tmp_path)
        assert loaded.said("leak") == ""
        with wet(dripping, "t01"):
            loaded.off(3 + ROOM_S)
            code, out = loaded.run.end()
    assert code in (1, 3), out  # 1 where the run's own look met the wet detector, too, before it left
    said = loaded.said("leak")
    assert "leak of t01 is wet: " in said and "isolate power and liquid of this rack now" in said
    assert "to do: isolate power" in out
    document = loaded.run.verdict()
    assert document["holds"][0]["kind"] == "aborted" and "leak of t01" in document["holds"][0]["why"], "the cause first"
    assert {(f["part"], f["signature"]) for f in document["findings"]} >= {("t01", "guard.leak")}
    assert not [f for f in document["findings"] if f["signature"] == "left.as_found"], "no process is left on a GPU"
    took = re.search(r"the last load process gone ([\d.]+) s after the reading", loaded.said("outcome"))
    assert took is not None and float(took[1]) < 1 + ROOM_S
