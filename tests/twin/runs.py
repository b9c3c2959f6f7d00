"""`burnin run` against a twin, as a process, for tests: what it says, what it keeps, and what lives on the trays meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnin.twin.tray import descendants
from burnin.twin.up import Twin

SUITE = """
suite: plug
about: a short run to be disturbed
lease: {lease} s
sample_slow: 1 s
coverage: {{metrics: [gpu.temp, gpu.power, ecc.dram_ue]}}
limits: {{ecc.dram_ce.growth: {{max: 6, unit: "1", source: a suite may set its own}}}}
stages:
  - {{stage: audit, steps: [inventory]}}
  - {{stage: idle, phase: idle, for: 4 s, settle: 1 s, steps: [idle-baseline, xid]}}
  - {{stage: load, phase: load, for: {load} s, settle: 6 s, load: {{}}, steps: [gpu-load, thermal-margin, throttling, ecc, xid]}}
  - {{stage: cool, phase: cool, for: 3 s, steps: [ecc, xid]}}
"""


LOADED_S = 150.0
"""What a machine that does other things, too, is given to bring two trays under load."""
ROOM_S = 4.0
"""Beyond what is promised, for a machine that does other things, too. bench/chaos.py and bench/trips.py measure."""


@dataclass
class Running:
    """A run in progress."""

    process: subprocess.Popen[str]
    place: Path

    @property
    def db(self) -> Path:
        """Its database."""
        return self.place / "runs.db"

    def end(self, timeout_s: float = 120) -> tuple[int, str]:
        """Wait for it: exit code and output."""
        out, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out

    def verdict(self) -> dict[str, Any]:
        """What it said."""
        document: dict[str, Any] = json.loads((self.place / "verdict.json").read_text())
        return document


def start(twin: Twin, place: Path, lease_s: float = 5, load_s: float = 24) -> Running:
    """Begin a run of the suite above."""
    (place / "plug.yaml").write_text(SUITE.format(lease=lease_s, load=load_s))
    words = ["run", str(place / "plug.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain"]
    words += ["--json", str(place / "verdict.json"), "--operator", "test"]
    process = subprocess.Popen(
        [sys.executable, "-m", "burnin", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Running(process, place)


def burnin(*words: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run([sys.executable, "-m", "burnin", *words], capture_output=True, text=True, timeout=220)


def workers(root: int) -> list[int]:
    """Load processes that live below this process: the tray's own view."""
    return [pid for pid in descendants(root) if _word(pid, b"work")]


def channels(root: int) -> list[int]:
    """Agent channels below this process."""
    return [pid for pid in descendants(root) if _word(pid, b"channel")]


def _word(pid: int, word: bytes) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def alive(pid: int) -> bool:
    """True while a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def wait_for(what: Callable[[], object], seconds: float, why: str) -> float:
    """Poll until it is so; how long it took."""
    begin = time.monotonic()
    while not what():
        took = time.monotonic() - begin
        assert took < seconds, why
        time.sleep(0.05)
    return time.monotonic() - begin


def kill(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
