"""The guard over real processes: whoever dies or freezes, the load goes, and it is said.

One twin of two trays for all; every run is brought under load, something is done to it, and the trays' own view is looked at.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from burnin.run import sockets
from burnin.twin.tray import descendants
from burnin.twin.up import Twin, running
from tests.twin.runs import Running, alive, burnin, kill, wait_for, workers

SUITE = """
suite: guarded
about: load, until somebody ends it
lease: {lease} s
sample: 500 ms
stages:
  - {{stage: load, phase: load, for: 60 s, settle: 1 s, load: {{}}, steps: [gpu-load]}}
"""
pytestmark = pytest.mark.live


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
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in self.pids), 60, "the load never came up")
        time.sleep(1.5)  # real time: let every worker burn, and be read
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


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_emergency_stop_through_the_guard(twin: Twin, tmp_path: Path) -> None:
    loaded = Loaded(twin, tmp_path)
    asked = subprocess.Popen(
        [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(loaded.run.db)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert loaded.off(5) < 2, "most of it is the start of a Python"
    out, _ = asked.communicate(timeout=20)
    assert asked.returncode == 0
    assert "2 answered" in out and "the last load process was gone 0." in out
    code, text = loaded.run.end()
    assert code == 3, text
    document = loaded.run.verdict()
    assert document["verdict"] == "HOLD"
    assert document["holds"][0]["why"].startswith("emergency stop by "), "the cause first"
    assert [f["signature"] for f in document["findings"]] == ["guard.emergency"]
    assert "2 trays answered" in loaded.said("outcome")
    judged = burnin("judge", "last", "--db", str(loaded.run.db), "--json", str(tmp_path / "again.json"))
    assert judged.returncode == 3
    assert (tmp_path / "again.json").read_text() == (tmp_path / "verdict.json").read_text()
    assert not alive(loaded.guard)
    assert not list(tmp_path.glob("runs.db.*[!l]")) or not sockets.live(loaded.run.db).exists()
    gone = burnin("stop", "last", "--db", str(loaded.run.db))
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert "is not going on" in gone.stderr


def test_planned_stop_and_a_second_screen(twin: Twin, tmp_path: Path) -> None:
    loaded = Loaded(twin, tmp_path)
    words = [sys.executable, "-m", "burnin", "watch", "--db", str(loaded.run.db)]
    lines = subprocess.Popen([*words, "--json", "-"], stdout=subprocess.PIPE, text=True)
    screen = subprocess.Popen([*words, "--plain"], stdout=subprocess.PIPE, text=True)
    assert lines.stdout is not None and '"event":"run"' in lines.stdout.readline()
    wrong = burnin("stop", "19990101", "--db", str(loaded.run.db))
    assert (wrong.returncode, "run 19990101 is not going on: with this database it is " in wrong.stderr) == (2, True)
    second = burnin("run", str(tmp_path / "guarded.yaml"), str(twin.rack_file), "--db", str(loaded.run.db), "--plain")
    assert second.returncode == 3
    assert "is held by run" in second.stderr
    time.sleep(1)  # the screens connect
    asked = burnin("stop", "last", "--db", str(loaded.run.db))
    assert asked.returncode == 0, asked.stderr
    loaded.off(5)
    code, text = loaded.run.end()
    assert code == 3, text
    assert "stopped before its end" in (tmp_path / "verdict.json").read_text()
    out = lines.communicate(timeout=20)[0]
    assert '"event":"ended"' in out and '"verdict":"HOLD"' in out and '"t00.g0 gpu.power"' in out
    shown = screen.communicate(timeout=20)[0]
    assert "stage 1/1 load" in shown and "a planned stop was asked for by" in shown and "has ended" in shown
    assert (lines.returncode, screen.returncode) == (0, 0)


@pytest.mark.parametrize(("number", "seconds", "why"), [(signal.SIGKILL, 3, "status -9"), (signal.SIGSTOP, 9, "silent for")])
def test_without_its_guard_a_run_unloads_and_holds(
    twin: Twin, tmp_path: Path, number: signal.Signals, seconds: float, why: str
) -> None:
    loaded = Loaded(twin, tmp_path)
    os.kill(loaded.guard, number)
    loaded.off(seconds)
    code, text = loaded.run.end()
    kill(loaded.guard, signal.SIGKILL)
    assert code == 3, text
    assert why in loaded.said("lost")
    assert loaded.run.verdict()["holds"][0]["why"].startswith("the guard")
    assert {f["signature"] for f in loaded.run.verdict()["findings"]} == {"guard.lost"}


def test_the_guard_outlives_a_killed_run_and_ends_its_load(twin: Twin, tmp_path: Path) -> None:
    loaded = Loaded(twin, tmp_path)
    loaded.run.process.kill()
    assert loaded.off(5) < 2, "long before the lease of a minute"
    loaded.run.process.communicate()
    wait_for(lambda: not alive(loaded.guard), 10, "the guard stayed")
    again = burnin("stop", "last", "--emergency", "--db", str(loaded.run.db))
    assert (again.returncode, again.stderr) == (0, ""), "idempotent"
    assert "straight over SSH 2 trays are without load after" in again.stdout


def test_the_guard_outlives_a_frozen_run_which_then_says_why(twin: Twin, tmp_path: Path) -> None:
    loaded = Loaded(twin, tmp_path, lease_s=4)
    begin = time.monotonic()
    loaded.run.process.send_signal(signal.SIGSTOP)
    loaded.off(8)
    assert time.monotonic() - begin < 4 + 1.5, "lease and a second"
    plain = burnin("stop", "last", "--db", str(loaded.run.db))
    assert (plain.returncode, "--emergency" in plain.stderr) == (3, True), (
        "a frozen run does not answer, and the way out is named"
    )
    loaded.run.process.send_signal(signal.SIGCONT)
    code, text = loaded.run.end()
    assert code == 3, text
    assert "the run was silent for" in loaded.said("controller")
    assert "frozen" in loaded.run.verdict()["holds"][0]["why"]


def test_emergency_stop_without_any_controller(twin: Twin, tmp_path: Path) -> None:
    loaded = Loaded(twin, tmp_path)
    os.kill(loaded.guard, signal.SIGSTOP)  # neither of them can do anything
    loaded.run.process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    asked = subprocess.Popen(
        [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(loaded.run.db)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    loaded.off(10)
    took = time.monotonic() - begin
    out, _ = asked.communicate(timeout=20)
    assert asked.returncode == 0, out
    assert "t00: 4 GPUs were loaded" in out
    assert took < 5, "three seconds, and room for a machine that does other things too (bench/trips.py measures)"
    for pid in (loaded.run.process.pid, loaded.guard):
        kill(pid, signal.SIGKILL)
    loaded.run.process.communicate()
