"""A controller is killed, and its run goes on: the same verdict, nothing lost and nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from burnin.store import open_store
from burnin.twin.faults import parse
from burnin.twin.up import Twin, running
from tests.twin.runs import burnin, wait_for

pytestmark = pytest.mark.live


SUITE = """
suite: cut
about: a short run to be cut
lease: 5 s
sample_slow: 1 s
sample_links: 1 s
coverage: {{metrics: [gpu.temp, gpu.power, ecc.dram_ue]}}
stages:
  - {{stage: audit, steps: [inventory]}}
  - {{stage: idle, phase: idle, for: 4 s, settle: 1 s, steps: [idle-baseline, links, xid]}}
  - {{stage: load, phase: load, for: {load} s, settle: 6 s, load: {{}}, steps: [gpu-load, thermal-margin, ecc, links, xid]}}
  - {{stage: cool, phase: cool, for: 3 s, steps: [ecc, xid]}}
"""
PLANTED = ("clock_cap:t01.g2", "link_down:t00.g1.l3:1")


def begin(twin: Twin, place: Path, *more: str, load_s: int = 10) -> subprocess.Popen[str]:
    """`burnin run` of the suite above; `more`: further words."""
    (place / "cut.yaml").write_text(SUITE.format(load=load_s))
    words = ["run", str(place / "cut.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain"]
    words += ["--json", str(place / "verdict.json"), "--operator", "test", *more]
    return subprocess.Popen([sys.executable, "-m", "burnin", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], place: Path) -> tuple[int, dict[str, Any]]:
    """Wait for a run: its exit code, and what it said."""
    out, _ = process.communicate(timeout=200)
    assert process.returncode in (0, 1, 3), out
    document: dict[str, Any] = json.loads((place / "verdict.json").read_text())
    return process.returncode, document


def said(document: dict[str, Any]) -> tuple[str, set[tuple[str, str, str]]]:
    """The word, and what was found."""
    return document["verdict"], {(f["part"], f["signature"], f["severity"]) for f in document["findings"]}


def begun(db: Path, stage: str) -> bool:
    """True while this stage goes on."""
    if not db.exists():
        return False
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        try:
            found = connection.execute("SELECT 1 FROM stage WHERE name = ? AND t1_s IS NULL", (stage,)).fetchone()
        except sqlite3.OperationalError:
            return False  # it is being made
    return found is not None


def nothing_twice(db: Path) -> None:
    """No reading, line, attempt or piece of evidence is there twice."""
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        for what in (
            "SELECT substr(part, 1, 3), seq, count(*) FROM log WHERE seq IS NOT NULL GROUP BY 1, 2, t_s HAVING count(*) > 1",
            "SELECT stage, step, part, attempt, round, kind FROM evidence GROUP BY 1, 2, 3, 4, 5, 6, body HAVING count(*) > 1",
        ):
            assert connection.execute(what).fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(open_store(db, create=False)) as store:
        for key, series in store.telemetry(store.run("last").id).series.items():
            close = [a for a, b in zip(series.t_s, series.t_s[1:], strict=False) if b - a < 0.2]
            assert len(close) <= 1, f"{key} was kept twice at {close}"  # one may be late; what is fetched again is many


def test_a_killed_controller_costs_no_evidence(tmp_path: Path) -> None:
    planted = [parse(one) for one in PLANTED]
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    place, chance = tmp_path / "cut", random.Random(3)
    with (
        running("gb300-nvl72", 21, planted, where=tmp_path / "whole", trays=2, switches=0) as like,
        running("gb300-nvl72", 21, planted, where=place, trays=2, switches=0) as twin,
    ):
        whole = begin(like, tmp_path / "whole")  # beside the other: both mostly wait
        process = begin(twin, place)
        for stage in ("idle", "load"):
            wait_for(lambda stage=stage: begun(place / "runs.db", stage), 90, f"{stage} never began")  # type: ignore[misc]
            time.sleep(chance.uniform(0.5, 3))
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            listed = burnin("runs", "--db", str(place / "runs.db")).stdout
            assert "cut off" in listed
            assert "running" not in listed
            process = begin(twin, place, "--resume", "last")
        code, undisturbed = ended(whole, tmp_path / "whole")
        assert ended(process, place)[0] == code
        document = json.loads((place / "verdict.json").read_text())
        assert said(document)[0] == said(undisturbed)[0]
        assert said(document)[1] ^ said(undisturbed)[1] == set()
        assert len(said(document)[1]) >= 3
        assert len(document["sessions"]) == 3
        assert all(s["gap_s"] > 0 for s in document["sessions"][1:])
        assert all(s["status"] == "COMPLETE" for s in document["steps"])
        nothing_twice(place / "runs.db")
        again = burnin("judge", "last", "--db", str(place / "runs.db"), "--json", str(place / "again.json"))
        assert again.returncode == code
        assert (place / "again.json").read_text() == (place / "verdict.json").read_text()
        settled = begin(twin, place, "--resume", "last")  # nothing is owed: it says so, and what it said stands
        assert ended(settled, place) == (code, document)
