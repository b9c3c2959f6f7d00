"""A stage that is detached: run and guard are killed, the load goes on, and the run that comes back says what it would have said.

Two trays over real SSH; what lives on them is looked at from the trays' side. Bounds leave room for a busy machine
(bench/detached.py measures).
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.faults import enable_policy
from bench.soak import named
from burnin.twin.faults import parse
from burnin.twin.up import Twin, running
from tests.twin.runs import LOADED_S, ROOM_S, alive, burnin, kill, wait_for, workers
from tests.twin.test_resume import nothing_twice, said

pytestmark = [pytest.mark.live, pytest.mark.long]

LEASE_S, DETACH_S, LOAD_S = 5.0, 120.0, 80.0
GAP_S = 3.5
"""Readings come every second; two cores bear two twins and two runs."""
SUITE = f"""
suite: left
about: load that is left alone for a while
lease: {LEASE_S} s
sample_slow: 1 s
coverage: {{metrics: [gpu.temp, gpu.power, ecc.dram_ue]}}
stages:
  - {{stage: audit, steps: [inventory]}}
  - {{stage: idle, phase: idle, for: 4 s, settle: 1 s, steps: [idle-baseline, xid]}}
  - {{stage: load, phase: load, for: {LOAD_S} s, settle: 6 s, detach: {DETACH_S} s, load: {{}},
     steps: [gpu-load, thermal-margin, ecc, xid]}}
  - {{stage: cool, phase: cool, for: 3 s, steps: [ecc, xid]}}
"""
PLANTED = "clock_cap:t01.g2"


class Left:
    """A run of that suite, and what it has on the trays."""

    def __init__(self, twin: Twin, place: Path, *more: str) -> None:
        place.mkdir(exist_ok=True)
        (place / "left.yaml").write_text(SUITE)
        self.twin, self.place, self.db = twin, place, place / "runs.db"
        words = ["run", str(place / "left.yaml"), str(twin.rack_file), "--db", str(self.db), "--plain", "--operator", "test"]
        with (place / "out").open("wb") as out:  # a guard that outlives its run would keep a pipe open
            self.process = subprocess.Popen(
                [sys.executable, "-m", "burnin", *words, "--json", str(place / "verdict.json"), *more], stdout=out, stderr=out
            )

    def out(self, seconds: float = 280) -> str:
        """Wait for it: what it said."""
        self.process.wait(seconds)
        return (self.place / "out").read_text()

    def load(self) -> set[int]:
        return {pid for place in self.twin.trays.values() for pid in workers(place.pid)}

    def asked(self, query: str) -> list[Any]:
        if not self.db.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []  # it is being made

    def detached(self) -> bool:
        return bool(self.asked("SELECT 1 FROM log WHERE kind = 'detached' AND code = 'begins'"))

    def guard(self) -> int:
        (pid,) = named(self.process.pid, b"burnin.run.guard_process")
        return pid

    def kill(self, *signals: signal.Signals) -> set[int]:
        """Once it is detached: these signals to the run and, before, to its guard. The load that it leaves."""
        wait_for(self.detached, LOADED_S, "it was never detached")
        time.sleep(2)  # real time: a second's lease has gone out
        for pid, number in reversed(list(zip((self.process.pid, self.guard()), signals, strict=False))):
            kill(pid, number)
        assert self.process.wait(30) == -signals[0]
        return self.load()

    def ended(self) -> tuple[int, dict[str, Any]]:
        out = self.out()
        assert self.process.returncode in (0, 1, 3), out
        document: dict[str, Any] = json.loads((self.place / "verdict.json").read_text())
        return self.process.returncode, document


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    where = tmp_path_factory.mktemp("rack")
    with running("gb300-nvl72", 21, [parse(PLANTED)], where=where, trays=2, switches=0) as made:
        yield made


def test_it_is_refused_where_the_bmcs_do_not_mind_leaks_although_that_is_waived(twin: Twin, tmp_path: Path) -> None:
    assert "interlock: leak_policy" in twin.rack_file.read_text()
    run = Left(twin, tmp_path, "--only", "gpu-load")
    code, document = run.ended()
    assert (code, document["verdict"]) == (3, "HOLD")
    assert {s["status"] for s in document["steps"] if s["name"] == "gpu-load"} == {"SKIPPED"}
    text = (tmp_path / "verdict.json").read_text()
    assert "stage load may be left without controller and guard only where" in text
    assert "t[00-01]: LeakDetectionPolicy is disabled" in text
    assert run.asked("SELECT count(*) FROM log WHERE kind = 'load'") == [(0,)], "nothing was heated"
    enable_policy(twin)


def test_killed_with_its_guard_and_resumed_it_says_what_it_would_have_said(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    with running("gb300-nvl72", 21, [parse(PLANTED)], where=tmp_path / "like", trays=2, switches=0) as like:
        enable_policy(like)
        whole = Left(like, tmp_path / "whole")  # beside the other: both mostly wait
        run = Left(twin, tmp_path / "left")
        load = run.kill(signal.SIGKILL, signal.SIGKILL)
        assert len(load) == 8
        time.sleep(LEASE_S + 3)  # real time: the lease of an attached stage would be over, and load dead
        assert run.load() == load
        other = Left(twin, tmp_path / "other", "--only", "gpu-load")
        out = " ".join(other.out(120).split())
        assert (other.process.returncode, run.load()) == (3, load), out
        (first,) = (name for (name,) in run.asked("SELECT id FROM run"))
        assert f"held by run {first}" in out and "whose stage load is detached" in out
        again = Left(twin, tmp_path / "left", "--resume", "last")
        wait_for(lambda: run.asked("SELECT 1 FROM log WHERE kind = 'detached' AND code = 'goes on'"), LOADED_S, "never taken up")
        assert run.load() == load, "the very same processes"
        code, document = again.ended()
        expected_code, undisturbed = whole.ended()
    assert (code, said(document)) == (expected_code, said(undisturbed))
    assert said(document)[1]
    assert {s["status"] for s in document["steps"]} == {"COMPLETE"}
    _, second = document["sessions"]
    assert second["unguarded_s"] >= LEASE_S + 3
    assert run.asked("SELECT name, status FROM stage WHERE name = 'load'") == [("load", "COMPLETE")], "one stretch"
    assert not run.asked("SELECT text FROM log WHERE text LIKE '%records were lost%' OR text LIKE '%agent that was here%'")
    assert not run.asked("SELECT text FROM log WHERE kind = 'cut'")
    ((begin, end),) = run.asked("SELECT t0_s, t1_s FROM stage WHERE name = 'load'")
    assert end - begin == pytest.approx(LOAD_S, abs=5 + ROOM_S)
    nothing_twice(run.db)
    gaps(run.db)
    shown = burnin("show", "last", "--db", str(run.db)).stdout
    assert "without a guard" in " ".join(shown.split())
    judged = burnin("judge", "last", "--db", str(run.db), "--json", str(tmp_path / "again.json"))
    assert (judged.returncode, (tmp_path / "again.json").read_text()) == (code, (tmp_path / "left/verdict.json").read_text())


def gaps(db: Path) -> None:
    """No GPU was unread while nobody was there."""
    from burnin.store import open_store

    with closing(open_store(db, create=False)) as store:
        series = store.telemetry(store.run("last").id, metrics=["gpu.temp"]).series
        assert len(series) == 8
        for key, one in series.items():
            steps = [b - a for a, b in zip(one.t_s, one.t_s[1:], strict=False)]
            assert max(steps) < GAP_S, f"{key} was not read for {max(steps):.1f} s"


def test_its_guard_watches_on_alone_and_an_emergency_stop_needs_neither(twin: Twin, tmp_path: Path) -> None:
    run = Left(twin, tmp_path)
    wait_for(run.detached, LOADED_S, "it was never detached")
    watching = run.guard()
    load = run.kill(signal.SIGTERM)
    assert run.asked("SELECT 1 FROM log WHERE kind = 'detached' AND code = 'left'")
    assert len(load) == 8
    time.sleep(LEASE_S + 3)  # real time: as above
    assert run.load() == load
    assert alive(watching)
    begin = time.monotonic()
    stopped = burnin("stop", "last", "--emergency", "--db", str(run.db))
    took = time.monotonic() - begin
    assert stopped.returncode == 0, stopped.stderr
    assert "2 answered" in stopped.stdout
    assert not run.load()
    assert took < 3 + 2 * ROOM_S
    wait_for(lambda: not alive(watching), 30, "a guard without load stays")
    os.unlink(run.db)
    run = Left(twin, tmp_path)
    load = run.kill(signal.SIGTERM, signal.SIGTERM)  # a reboot, its guard first
    assert len(load) == 8
    begin = time.monotonic()
    stopped = burnin("stop", "last", "--emergency", "--db", str(run.db))
    assert stopped.returncode == 0, stopped.stderr
    assert "no guard answered; straight over SSH 2 trays are without load" in stopped.stdout
    assert time.monotonic() - begin < 3 + 2 * ROOM_S
    assert not any(map(alive, load))
    planned = burnin("stop", "last", "--db", str(run.db))
    assert (planned.returncode, "--emergency" in planned.stderr) == (2, True)
