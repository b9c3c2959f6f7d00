"""A program on a tray is leashed with all that it starts: real processes, the holder's side turned by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from burnin import wire
from burnin.agent.keeper import Ends
from burnin.agent.load import Loads
from burnin.agent.program import Programs, descendants

KEEPER = "import sys, time; from burnin.agent import keeper; sys.exit(keeper.main(*sys.argv[1:4], time.monotonic_ns))"
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(100)
    os._exit(0)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
print("started", flush=True)
time.sleep(float(sys.argv[2]))
"""


class Rig:
    """The holder's side of programs, with real keepers."""

    def __init__(self, where: Path) -> None:
        self.where, self.answers, self.told = where, dict[str, Any](), list[dict[str, Any]]()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.loads = Loads(["g0", "g1"], self._none, self._tell, time.monotonic_ns)
        self.margin_c = 30.0
        self.programs = Programs(self.loads, self._spawn, self._tell, self._answer, time.monotonic_ns, f"t{os.getpid()}")
        self.lease(100)

    def _none(self, *_: Any) -> Any:
        raise OSError("no load in this test")

    def _tell(self, kind: str, **body: Any) -> None:
        self.told.append({"kind": kind, **body})

    def _answer(self, ident: str, result: Any = None, error: str | None = None) -> None:
        self.answers[ident] = error if error is not None else result

    def _spawn(self, spec: dict[str, Any], fd: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", KEEPER, json.dumps(spec), str(fd), str(os.getpid())]
        one = subprocess.Popen(
            words, stdout=subprocess.PIPE, pass_fds=(fd,), cwd=self.where, env=ENVIRON
        )  # fmt: skip
        self.processes.append(one)
        return one

    def lease(self, seconds: float) -> None:
        self.loads.renew(time.monotonic_ns() + int(seconds * 1e9))
        self.programs.renew()

    def start(self, *argv: str, ident: str = "1", max_s: float = 60.0, **more: Any) -> None:
        args = {"env": {}, "logs": [], "gpus": ["g0", "g1"], **more}
        self.programs.start(ident, set(), job="a", argv=list(argv), max_s=max_s, cutoff_margin_c=0.0, **args)

    def until(self, so: Callable[[], Any], read: bool = True) -> Any:
        end = time.monotonic() + 20
        while not (found := so()):
            assert time.monotonic() < end, (self.told, self.answers)
            for gpu in ("g0", "g1") if read else ():
                self.loads.margin(gpu, self.margin_c, time.monotonic_ns())
            self.programs.tend(set())
            time.sleep(0.005)
        return found

    def answer(self, ident: str = "1") -> Any:
        return self.until(lambda: self.answers.get(ident))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    yield one
    for process in one.processes:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def daemon(rig: Rig, seconds: float = 100, **more: Any) -> int:
    """Start a program whose grandchild cut loose from it; that one's pid."""
    note = rig.where / "pid"
    rig.start(sys.executable, "-c", DAEMON, str(note), str(seconds), **more)
    rig.until(lambda: note.exists() and note.read_text())
    return int(note.read_text())


def test_exit_status_output_and_logs_come_back(rig: Rig) -> None:
    rig.start("sh", "-c", "echo out; echo err >&2; mkdir logs; echo kept > logs/a.log; exit 3", logs=["logs/*"])
    told = rig.answer()
    assert (told["exit"], told["signal"], told["stdout"], told["stderr"]) == (3, None, "out\n", "err\n")
    assert (told["cut"], told["ended"], told["left"]) == (False, "", 0)
    assert told["logs"]["logs/a.log"]["text"] == "kept\n"
    assert not list(rig.where.glob("program-*")), "its folder is gone"


def test_a_program_that_is_not_there_is_127_and_one_that_is_killed_has_a_signal_and_no_exit(rig: Rig) -> None:
    rig.start("no-such-diagnostic")
    assert (rig.answer()["exit"], "no-such-diagnostic" in rig.answer()["stderr"]) == (127, True)
    rig.start("sh", "-c", "kill -SEGV $$", ident="2")
    assert (rig.answer("2")["exit"], rig.answer("2")["signal"]) == (None, "SIGSEGV")


def test_long_output_keeps_its_beginning_and_its_end_and_says_so(rig: Rig) -> None:
    rig.start("sh", "-c", "echo first; seq 200000; echo last", output_max=4000)
    told = rig.answer()
    assert told["cut"]
    assert told["stdout"].startswith("first\n1\n2\n")
    assert told["stdout"].endswith("\n200000\nlast\n")
    assert len(told["stdout"]) <= 4000


def test_ten_minutes_of_progress_are_whole_and_the_most_there_can_be_is_one_record(rig: Rig) -> None:
    rig.start("sh", "-c", "yes '12.5% of it done: 4194 (61234 Gflop/s)   errors: 0   temps: 65 C' | head -c 300000")
    assert (len(rig.answer()["stdout"]), rig.answer()["cut"]) == (300_000, False)
    line = "a line of some program's output, which says nothing that JSON has to write otherwise, ten times over"
    much = f'mkdir l; for n in 1 2 3 4 5 6 7 8 9; do yes "{line}" | head -c 900000 > l/$n; done; cat l/*; cat l/* >&2'
    rig.start("sh", "-c", much, ident="2", logs=["l/*"])
    told = rig.answer("2")
    assert told["cut"]
    assert len(told["logs"]) == 8
    assert 900_000 < len(wire.encode(wire.Record("reply", "b", 1, 1, {"id": "2", "ok": True, "result": told}))) < wire.MAX_LINE


@pytest.mark.parametrize("data", [b"\xff" * 90_000, b"\0" * 90_000, "ü".encode() * 60_000, b"x" * 300_000, b"a\n" * 150_000])
def test_no_output_makes_a_record_too_long(data: bytes) -> None:
    ends = Ends(200_000)
    for at in range(0, len(data), 1000):
        ends.add(data[at : at + 1000])
    text, cut = ends.text()
    assert len(json.dumps(text)) <= 200_000
    assert cut


def test_short_output_is_whole() -> None:
    ends = Ends(1000)
    for line in range(100):
        ends.add(b"%d\n" % line)
    assert ends.text() == ("".join(f"{n}\n" for n in range(100)), False)


@pytest.mark.parametrize("why", ["lease", "time", "margin", "ended by order"])
def test_whatever_ends_it_ends_all_it_started(rig: Rig, why: str) -> None:
    pid = daemon(rig, max_s=1.5 if why == "time" else 60)
    if why == "lease":
        rig.lease(0.1)
    elif why == "margin":
        rig.margin_c = -1.0
    elif why == "ended by order":
        rig.programs.end(why)
    told = rig.answer()
    assert (told["ended"], told["exit"]) == (why, None)
    assert gone(pid)
    assert [body["why"] for body in rig.told if body["kind"] == "cut"] == ([] if "order" in why else [why])


def test_a_margin_that_is_not_read_ends_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnin.agent.load.SENSOR_LOST_NS", 300_000_000)
    rig.start("sleep", "50")
    assert rig.until(lambda: rig.answers.get("1"), read=False)["ended"] == "sensor"


def test_what_it_leaves_running_is_ended_and_counted(rig: Rig) -> None:
    pid = daemon(rig, seconds=0)
    told = rig.answer()
    assert (told["exit"], told["ended"], told["left"]) == (0, "", 1)
    assert gone(pid)


def test_a_keeper_whose_holder_is_frozen_ends_it_by_the_shared_deadline(rig: Rig) -> None:
    pid = daemon(rig)
    rig.lease(0.2)
    end = time.monotonic() + 10
    while not gone(pid):  # nobody tends
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_outlives_a_killed_keeper_is_found_by_its_mark(rig: Rig) -> None:
    pid = daemon(rig)
    (keeper,) = rig.processes
    assert pid in descendants(keeper.pid)
    keeper.send_signal(signal.SIGKILL)
    assert "keeper ended with status -9" in rig.answer()
    end = time.monotonic() + 5
    while not gone(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_is_refused_without_lease_after_a_halt_and_where_a_gpu_cannot_be_read(rig: Rig) -> None:
    rig.loads.halted["g1"] = "hot"
    with pytest.raises(ValueError, match="halted: hot"):
        rig.start("true")
    rig.loads.halted.clear()
    with pytest.raises(ValueError, match="g0 cannot be read"):
        rig.programs.start("1", {"g0"}, job="a", argv=["true"], max_s=1, cutoff_margin_c=0, gpus=["g0"], env={}, logs=[])
    rig.loads.renew(time.monotonic_ns() - 1)
    with pytest.raises(ValueError, match="no lease"):
        rig.start("true")


def test_a_second_program_ends_the_first(rig: Rig) -> None:
    pid = daemon(rig)
    rig.start("echo", "second", ident="2")
    assert rig.answer("1")["ended"] == "something else was ordered"
    assert gone(pid)
    assert rig.answer("2")["stdout"] == "second\n"
