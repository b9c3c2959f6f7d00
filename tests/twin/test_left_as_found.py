"""However a run ends, its trays are as they were found: no process of ours, no clock held, no file but the agent's own.

A load at a locked clock on two trays, ended in each way there is; what is left is looked at from the trays' side.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.soak import named
from burnin.twin.state import State
from burnin.twin.up import Twin, running
from tests.twin.runs import LOADED_S, ROOM_S, burnin, kill, wait_for, workers

pytestmark = [pytest.mark.live, pytest.mark.long]

LEASE_S = 5.0
SUITE = f"""
suite: held
about: load at a locked clock
lease: {LEASE_S} s
stages:
  - {{{{stage: load, phase: load@1500, for: {{load}} s, settle: 1 s, load: {{{{}}}}, steps: [gpu-load]}}}}
"""
OURS = ("agent-*.pyz", "claim", "lock", "holder.lock", "holder.log")
"""What stays in the agent's directory, for the next run: what cost time to bring, and who was here last."""


class Held:
    """A run under load with all clocks held."""

    def __init__(self, twin: Twin, place: Path, load_s: float = 600) -> None:
        (place / "held.yaml").write_text(SUITE.format(load=load_s))
        self.twin, self.db = twin, place / "runs.db"
        self.words = ["run", str(place / "held.yaml"), str(twin.rack_file), "--db", str(self.db), "--plain", "--operator", "test"]
        self.process = self.start()
        self.pids = [place.pid for place in twin.trays.values()]
        wait_for(lambda: all(len(workers(pid)) == 4 for pid in self.pids), LOADED_S, "the load never came up")
        wait_for(lambda: self.clocks() == {1500}, 30, "no clock is held")
        self.load = [pid for tray in self.pids for pid in workers(tray)]
        (self.guard,) = named(self.process.pid, b"burnin.run.guard_process")

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        with self.db.with_name("out").open("ab") as out:
            return subprocess.Popen([sys.executable, "-m", "burnin", *self.words, *more], stdout=out, stderr=out)

    def clocks(self) -> set[int]:
        found = set[int]()
        for place in self.twin.trays.values():
            state = State.open(str(place.dir / "state"))
            found |= {gpu["locked_mhz"] for gpu in state.gpus}
            state.close()
        return found

    def files(self) -> set[str]:
        homes = [place.dir / "home" for place in self.twin.trays.values()]
        return {path.name for home in homes for path in home.rglob("*") if path.is_file()}

    def as_found(self) -> bool:
        return not any(workers(pid) for pid in self.pids) and self.clocks() == {0} and "clocks.json" not in self.files()

    def stop(self, *words: str) -> None:
        assert burnin("stop", "last", *words, "--db", str(self.db)).returncode == 0


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    with running("gb300-nvl72", 23, [], where=tmp_path_factory.mktemp("rack"), trays=2, switches=0) as made:
        yield made


def killed(run: Held) -> None:
    for pid in (run.process.pid, run.guard):
        kill(pid, signal.SIGKILL)
    run.process.wait()


def killed_and_resumed(run: Held) -> None:
    killed(run)
    wait_for(run.as_found, LEASE_S + 10 + ROOM_S, "the lease put nothing back")
    run.process = run.start("--resume", "last")
    wait_for(lambda: any(workers(pid) for pid in run.pids) and run.clocks() == {1500}, LOADED_S, "it never went on")
    run.stop()


def agents_killed(run: Held) -> None:
    for tray in run.pids:
        for pid in named(tray, b"hold"):
            kill(pid, signal.SIGKILL)


ENDS: dict[str, tuple[Callable[[Held], object], int]] = {
    "^C": (lambda run: run.process.send_signal(signal.SIGINT), 130),
    "stop": (lambda run: run.stop(), 3),
    "stop --emergency": (lambda run: run.stop("--emergency"), 3),
    "killed with its guard": (killed, -9),
    "killed and resumed": (killed_and_resumed, 3),
    "guard killed": (lambda run: kill(run.guard, signal.SIGKILL), 3),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_it_ends(twin: Twin, tmp_path: Path, end: str) -> None:
    how, code = ENDS[end]
    run = Held(twin, tmp_path)
    how(run)
    wait_for(run.as_found, 60 + LEASE_S + ROOM_S, "it is not as it was")
    assert run.process.wait(120) == code, (tmp_path / "out").read_text()
    left = {name for name in run.files() if not any(Path(name).match(ours) for ours in OURS)}
    assert left - {"holder.sock"} == set()  # a holder whose controller is gone stays for ten minutes, to be asked


def test_at_its_end_and_when_its_agents_were_killed_by_the_next_agents(twin: Twin, tmp_path: Path) -> None:
    run = Held(twin, tmp_path, 45)
    agents_killed(run)
    wait_for(run.as_found, 30 + ROOM_S, "fresh agents let go of what dead ones held")
    assert run.process.wait(200) == 3
    (tmp_path / "again").mkdir()
    run = Held(twin, tmp_path / "again", 10)
    assert run.process.wait(200) in (0, 3), (tmp_path / "again/out").read_text()
    assert run.as_found()
    wait_for(lambda: "holder.sock" not in run.files(), 10, "its agents left")
