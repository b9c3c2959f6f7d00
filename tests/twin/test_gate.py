"""The ship gate, end to end: a shipping suite on a twin box, then the gate with its own parts, with others, and alone."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from burnin.twin.faults import parse
from burnin.twin.up import Twin, running

pytestmark = pytest.mark.live

SUITE = """
suite: ship
about: the shortest that ships, for a test
ships: true
lease: 10 s
sample_slow: 2 s
coverage: {metrics: [gpu.temp, gpu.power, ecc.dram_ue]}
stages:
  - {stage: audit, steps: [inventory]}
  - {stage: idle, phase: idle, for: 8 s, settle: 2 s, steps: [idle-baseline, ecc, xid]}
  - {stage: load, phase: load, for: 20 s, settle: 10 s, load: {}, steps: [gpu-load, thermal-margin, throttling, ecc, xid]}
  - {stage: cool, phase: cool, for: 6 s, steps: [ecc, xid]}
"""


def burnin(home: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and output of one command, with this site's policy."""
    said = home / "said.json"
    said.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "burnin", *words, "--db", "b.db", "--json", str(said)],
        capture_output=True, text=True, cwd=home, env={**os.environ, "BURNIN_HOME": str(home)}, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(said.read_text()) if said.exists() else {}, done.stdout + done.stderr


@dataclass
class Shipped:
    """A twin box whose whole shipping run passed, still up."""

    home: Path
    twin: Twin
    serial: str


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    home = tmp_path_factory.mktemp("site")
    for folder in ("test_suites", "inventory", "rack"):
        (home / folder).mkdir()
    (home / "test_suites/ship.yaml").write_text(SUITE)
    (home / "inventory/site.yaml").write_text("ships_after: ship\nmax_age_days: 1\n")
    with running("h200-1gpu", 31, [], where=home / "rack") as twin:
        code, document, out = burnin(home, "run", "ship", str(twin.rack_file), "--plain")
        assert code == 0, out
        assert (document["verdict"], document["ships"], document["whole"]) == ("PASS", True, True)
        yield Shipped(home, twin, document["rack"])


def test_the_gate_opens_for_the_parts_that_were_tested(shipped: Shipped) -> None:
    code, said, out = burnin(shipped.home, "gate", shipped.serial)
    assert (code, said["gate"], said["reasons"]) == (0, "PASS", []), out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--offline"], "nobody asked the rack which parts are in it now"),
        (["--suite", "smoke"], "the rack has no ended run of suite smoke"),
    ],
)
def test_the_gate_stays_shut_for_less(shipped: Shipped, words: list[str], reason: str) -> None:
    code, said, _ = burnin(shipped.home, "gate", shipped.serial, *words)
    assert (code, said["gate"], said["reasons"][0]) == (3, "HOLD", reason)


def test_a_rack_that_nobody_tested_does_not_ship(shipped: Shipped) -> None:
    code, said, _ = burnin(shipped.home, "gate", "ANOTHER")
    assert (code, said["reasons"]) == (3, ["the rack has no ended run of suite ship"])


def test_a_gpu_that_was_changed_after_the_run_does_not_ship(shipped: Shipped, tmp_path: Path) -> None:
    with running("h200-1gpu", 31, [parse("wrong_serial:t00.g0")], where=tmp_path) as other, leading_to(shipped, other.rack_file):
        code, said, out = burnin(shipped.home, "gate", shipped.serial)
    assert code == 3, out
    (reason,) = said["reasons"]
    assert reason.startswith("t00.g0 is GPU-")
    assert "the run tested GPU-" in reason


def test_a_rack_that_does_not_answer_does_not_ship(shipped: Shipped, tmp_path: Path) -> None:
    with running("h200-1gpu", 31, [], where=tmp_path) as gone:
        pass
    with leading_to(shipped, gone.rack_file):
        code, said, _ = burnin(shipped.home, "gate", shipped.serial)
    assert code == 3
    assert "does not say what is in it: t00 at" in said["reasons"][0]


def test_a_verdict_that_was_touched_does_not_ship(shipped: Shipped) -> None:
    with contextlib.closing(sqlite3.connect(shipped.home / "b.db", isolation_level=None)) as connection:
        (text,) = connection.execute("select canonical from verdict").fetchone()
        assert text.count('"measured": 6') == 1
        connection.execute("update verdict set canonical = ?", (text.replace('"measured": 6', '"measured": 5'),))
    code, said, _ = burnin(shipped.home, "gate", shipped.serial)
    with contextlib.closing(sqlite3.connect(shipped.home / "b.db", isolation_level=None)) as connection:
        connection.execute("update verdict set canonical = ?", (text,))
    assert code == 3
    assert "cannot be derived again" in said["reasons"][0]


@contextlib.contextmanager
def leading_to(shipped: Shipped, other: Path) -> Iterator[None]:
    """The run's rack file names another machine for a while, with its key and host key beside it."""
    rack = shipped.twin.rack_file
    kept = {path: path.read_bytes() for path in rack.parent.iterdir()}
    try:
        for path in other.parent.iterdir():
            if path.is_file():
                (rack.parent / path.name).write_bytes(path.read_bytes())
        yield
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
