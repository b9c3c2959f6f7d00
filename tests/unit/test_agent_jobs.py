"""Work that answers: orders, real processes under the leash, and what comes of those that die, hang or are overtaken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from burnin.agent.jobs import MAX_BODY, Jobs
from burnin.agent.load import Loads

S = 1_000_000_000

ECHO = """
import json, os, sys
from burnin.agent.lease import Deadlines
from burnin.agent.talk import Over, Talk
import time
spec = json.loads(sys.argv[1])
talk = Talk(0, sys.stdout, Deadlines(int(sys.argv[2]), int(sys.argv[4])), int(sys.argv[3]), time.monotonic_ns)
args = spec["args"]
if args.get("mute"):
    time.sleep(60)
if args.get("nan"):
    os.write(1, b'{"say": {"gbps": NaN}}\\n{"launches": Infinity}\\n')
if args.get("die") or args.get("nan"):
    os._exit(9)
if args.get("fail"):
    talk.state({"state": "failed", "why": "no such kernel"})
    os._exit(3)
talk.tell({"ready": args["word"], "uuid": args["uuids"][args["me"]]})
try:
    while True:
        talk.tell({"echo": talk.hear()})
except Over:
    pass
"""


class Rig:
    """Loads and jobs on two GPUs, with real processes and the real clock; `told` is what went to the controller."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.loads = Loads(["g0", "g1"], self._spawn, lambda kind, **body: self.told.append((kind, body)), time.monotonic_ns)
        self.jobs = Jobs(self.loads, self._answer, {"g0": "GPU-0", "g1": "GPU-1"})
        self.loads.renew(time.monotonic_ns() + 60 * S)
        self.processes: list[subprocess.Popen[bytes]] = []

    def _answer(self, ident: str, result: dict[str, Any]) -> None:
        assert ident not in self.answers, "an order is answered once"
        self.answers[ident] = result

    def _spawn(self, gpu: str, spec: dict[str, Any], fd: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", ECHO, json.dumps(spec), str(fd), str(slot), str(slots)]
        one = subprocess.Popen(words, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,))
        self.processes.append(one)
        return one

    def work(self, ident: str, gpus: list[str], job: str = "a", **args_of: dict[str, Any]) -> None:
        of = {gpu: {"me": gpu, **args_of.get(gpu, {})} for gpu in gpus}
        self.jobs.work(ident, set(), job, "echo", gpus, 0.0, 50.0, {"word": "hello"}, of)

    def tend(self, until: Callable[[], bool]) -> None:
        """Let the holder's loop turn, margins being read, until something is so."""
        end = time.monotonic() + 20
        while not until():
            assert time.monotonic() < end, (self.told, self.answers)
            for gpu in ("g0", "g1"):
                self.loads.margin(gpu, 30.0, time.monotonic_ns())
            self.loads.cut_off(set())
            self.loads.tend()
            time.sleep(0.005)

    def answer(self, ident: str) -> dict[str, Any]:
        self.tend(lambda: ident in self.answers)
        return self.answers[ident]


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig()
    yield one
    for process in one.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def test_work_is_answered_when_every_gpu_has_spoken_and_a_message_by_the_next_word(rig: Rig) -> None:
    rig.work("1", ["g0", "g1"])
    assert rig.answer("1") == {"g0": {"ready": "hello", "uuid": "GPU-0"}, "g1": {"ready": "hello", "uuid": "GPU-1"}}
    rig.jobs.tell("2", "a", {"g0": {"rank": 0}, "g1": {"rank": 1}})
    assert rig.answer("2") == {"g0": {"echo": {"rank": 0}}, "g1": {"echo": {"rank": 1}}}
    assert not rig.jobs.waits("1")
    rig.loads.end()
    rig.tend(lambda: not rig.loads.burning)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ({"die": 1}, "the load process ended with status 9"),
        ({"nan": 1}, "the load process ended with status 9"),
        ({"fail": 1}, "no such kernel"),
    ],
)
def test_a_process_that_ends_answers_why_and_the_others_still_speak(rig: Rig, trouble: dict[str, Any], why: str) -> None:
    rig.work("1", ["g0", "g1"], g1=trouble)
    assert rig.answer("1") == {"g0": {"ready": "hello", "uuid": "GPU-0"}, "g1": {"failed": why}}


def test_a_silent_process_is_answered_for_when_it_is_cut(rig: Rig) -> None:
    rig.work("1", ["g0"], g0={"mute": 1})
    assert rig.jobs.waits("1")
    rig.loads.renew(time.monotonic_ns() + S // 10)
    assert rig.answer("1") == {"g0": {"failed": "cut by a local limit: lease"}}
    assert ("cut", "lease") in [(kind, body.get("why")) for kind, body in rig.told]


def test_a_job_overtakes_the_one_before_it_and_who_waited_is_told(rig: Rig) -> None:
    rig.work("1", ["g0"], g0={"mute": 1})
    rig.work("2", ["g0"], job="b")
    assert rig.answer("2") == {"g0": {"ready": "hello", "uuid": "GPU-0"}}
    assert rig.answers["1"] == {"g0": {"failed": "something else was ordered meanwhile"}}
    rig.jobs.tell("3", "a", {"g0": {}})
    assert rig.answer("3") == {"g0": {"failed": "a does not run on it"}}


def test_a_load_that_a_stage_wants_is_not_ended_by_a_job(rig: Rig) -> None:
    rig.loads.start({"g0": {"kind": "burn", "args": {"word": "load", "me": "g0", "uuids": {"g0": ""}}}}, 0.0, 50.0, set())
    rig.work("1", ["g0"])
    assert rig.answer("1") == {"g0": {"failed": "already loaded"}}
    assert list(rig.loads.burning) == ["g0"]


def test_what_a_process_says_unasked_answers_no_later_order(rig: Rig) -> None:
    rig.work("1", ["g0"])
    rig.answer("1")
    rig.jobs.tell("2", "a", {"g0": {"n": 1}})
    rig.answer("2")
    rig.loads.said("g0", {"echo": "unasked"})
    rig.jobs.tell("3", "a", {"g0": {"n": 2}})
    assert rig.answer("3") == {"g0": {"echo": {"n": 2}}}


def test_work_is_refused_without_a_lease_for_no_gpu_and_for_a_message_that_fills_the_pipe(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no GPU is named"):
        rig.jobs.work("1", set(), "a", "echo", [], 0.0, 50.0, {}, {})
    with pytest.raises(ValueError, match="are the most"):
        rig.jobs.tell("2", "a", {"g0": {"x": "y" * MAX_BODY}})
    rig.loads.renew(0)
    with pytest.raises(ValueError, match="no lease"):
        rig.work("3", ["g0"])
    assert not rig.answers and not rig.processes
