"""Plugs pulled in the middle of a run: trouble is said within ten seconds, the others finish, no load outlives its lease.

All on one twin at once, each on a tray of its own; what is left of the load is looked at from the tray's side. Bounds leave room
for a busy machine (bench/chaos.py measures); who ended the load is in the log.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from burnin.twin.faults import parse
from burnin.twin.up import running
from tests.twin.runs import LOADED_S, ROOM_S, alive, burnin, channels, kill, start, wait_for, workers

LEASE_S = 5.0
pytestmark = pytest.mark.live


def said_at(db: Path, table: str, where: str) -> list[tuple[float, str]]:
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        text = "why" if table == "tray_state" else "text"
        rows = connection.execute(f"select t_s, {text} from {table} where {where} order by t_s").fetchall()
    return [(float(t), str(why)) for t, why in rows]


@pytest.mark.long
def test_every_plug_at_once(tmp_path: Path) -> None:
    with running("gb300-nvl72", 11, [parse("nvml_hang:t03.g1:6")], where=tmp_path, trays=6, switches=1) as twin:
        run = start(twin, tmp_path, LEASE_S)
        pids = {tray: twin.trays[tray].pid for tray in twin.trays}
        wait_for(lambda: all(len(workers(pids[f"t{i:02}"])) == 4 for i in range(6)), LOADED_S, "the load never came up")
        time.sleep(1)  # real time: let every worker burn

        load = {tray: workers(pids[tray]) for tray in ("t00", "t01", "t02")}
        kill(pids["t00"], signal.SIGKILL)  # its SSH server is gone
        kill(pids["t01"], signal.SIGSTOP)  # its SSH server is frozen
        done = threading.Event()

        def keep_closed() -> None:  # its channel is closed for longer than the lease
            while not done.wait(0.05):
                for pid in channels(pids["t02"]):
                    kill(pid, signal.SIGKILL)

        closer = threading.Thread(target=keep_closed)
        closer.start()
        kill(workers(pids["t04"])[2], signal.SIGKILL)  # a load process dies

        def gone(tray: str) -> bool:
            return not any(map(alive, load[tray]))

        wait_for(lambda: all(map(gone, load)), LEASE_S + 1 + ROOM_S, "load without a controller outlived its lease")
        done.set()
        closer.join()
        code, out = run.end()
        kill(pids["t01"], signal.SIGCONT)

    assert code == 3, out
    document = run.verdict()
    assert document["verdict"] == "HOLD"
    assert [f for f in document["findings"] if f["severity"] == "FAIL"] == []
    held = {f["part"]: f["signature"] for f in document["findings"] if f["severity"] == "HOLD"}
    assert {"t00": "tray.lost", "t01": "tray.lost", "t03.g1": "gpu.hung"}.items() <= held.items()
    assert held["t04.g2"] == "load.not_attained" or "load.not_attained" in {s for p, s in held.items() if p.startswith("t04.")}
    assert {"t02.g0", "t02.g1", "t02.g2", "t02.g3"} <= held.keys(), "the lease ended its load: nothing is proved there"
    assert not any(part.startswith("t05") for part in held)
    others = [s for s in document["steps"] if s["part"] == "t05"]
    assert {s["result"] for s in others} == {"PASS"}, "the others finish and keep their results"

    begun = said_at(run.db, "log", "part = 't05.g0' and kind = 'load' and code = 'burning'")[0][0]
    for tray in ("t00", "t01", "t02"):
        lost = said_at(run.db, "tray_state", f"tray = '{tray}' and state = 'LOST'")
        assert lost, f"{tray} was never shown LOST"
        assert lost[0][0] <= begun + 1 + 10 + ROOM_S, f"{tray} was shown LOST only at {lost[0][0]:.1f} s"
        assert lost[0][1]
    assert said_at(run.db, "log", "part = 't03' and kind = 'note' and text like '%has not come back%'")
    assert said_at(run.db, "log", "part like 't04.%' and kind = 'load' and code = 'failed' and text like '%status -9%'")
    assert said_at(run.db, "log", "part like 't02.%' and kind = 'cut' and code = 'lease'")
    again = burnin("judge", "last", "--db", str(run.db), "--json", str(tmp_path / "again.json"))
    assert again.returncode == 3
    assert (tmp_path / "again.json").read_text() == (tmp_path / "verdict.json").read_text()


@pytest.mark.long
def test_the_controller_is_killed(tmp_path: Path) -> None:
    with running("gb300-nvl72", 12, [], where=tmp_path, trays=2, switches=0) as twin:
        run = start(twin, tmp_path, LEASE_S)
        pids = [twin.trays[tray].pid for tray in ("t00", "t01")]
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in pids), LOADED_S, "the load never came up")
        time.sleep(1)
        load = [worker for pid in pids for worker in workers(pid)]
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.communicate()
        wait_for(lambda: not any(map(alive, load)), LEASE_S + 1 + ROOM_S, "load outlived its lease")

        judged = burnin("judge", "last", "--db", str(run.db), "--json", "-")
        assert judged.returncode == 3, judged.stderr
        assert '"verdict": "HOLD"' in judged.stdout
        assert "its controller ended without finishing it" in judged.stdout
        assert "running, or cut off" not in burnin("runs", "--db", str(run.db)).stdout

        second = start(twin, tmp_path, LEASE_S, load_s=9)  # the agents that were left behind make way for the next run
        code, out = second.end()
        assert code == 0, out
        assert not [pid for root in pids for pid in workers(root)]


def test_interrupted_the_load_goes_at_once_and_the_run_holds(tmp_path: Path) -> None:
    with running("gb300-nvl72", 13, [], where=tmp_path, trays=2, switches=0) as twin:
        run = start(twin, tmp_path, lease_s=60)
        pids = [twin.trays[tray].pid for tray in ("t00", "t01")]
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in pids), LOADED_S, "the load never came up")
        time.sleep(1)
        load = [worker for pid in pids for worker in workers(pid)]
        run.process.send_signal(signal.SIGINT)
        wait_for(lambda: not any(map(alive, load)), 3 + ROOM_S, "load went on after ^C")  # the lease is 15 s
        code, out = run.end()
        assert code == 130, out
        assert run.verdict()["verdict"] == "HOLD"
        assert "stopped before its end" in (tmp_path / "verdict.json").read_text()
