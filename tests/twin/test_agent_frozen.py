"""An agent is frozen, another one is killed, under load: neither load waits for its lease."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from burnin.twin.tray import descendants
from burnin.twin.up import running
from tests.twin.runs import _word, alive, start, wait_for, workers

pytestmark = [pytest.mark.live, pytest.mark.long]


def test_load_ends_without_its_agent_long_before_the_lease(tmp_path: Path) -> None:
    with running("gb300-nvl72", 14, [], where=tmp_path, trays=2, switches=0) as twin:
        run = start(twin, tmp_path, lease_s=60, load_s=20)  # the twin's leak policy is waived: 15 s of it are given
        pids = {tray: twin.trays[tray].pid for tray in ("t00", "t01")}
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in pids.values()), 60, "the load never came up")
        time.sleep(2)  # real time: let every worker burn
        load = {tray: workers(pid) for tray, pid in pids.items()}
        (frozen,), (killed,) = ([pid for pid in descendants(root) if _word(pid, b"hold")] for root in pids.values())
        os.kill(frozen, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        took = wait_for(lambda: not any(map(alive, load["t01"])), 3, "load outlived its agent")
        assert took < 1.5
        took += wait_for(lambda: not any(map(alive, load["t00"])), 9, "load went on behind a frozen agent")
        assert took < 5 + 1.5, "5 s after the agent's last turn, and a second"
        code, out = run.end()
        assert code == 3, out
        held = {f["part"] for f in run.verdict()["findings"] if f["severity"] == "HOLD"}
        assert {part[:3] for part in held} >= {"t00", "t01"}
