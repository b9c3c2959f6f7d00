"""The file that a tray's processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnin.twin.state import FIELDS, RING, SLOTS, Event, State, born


def test_what_one_process_writes_another_reads(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    ours, theirs = State.create(path, 4), State.open(path)
    for number, name in enumerate(FIELDS):
        ours.gpus[2][name] = -number
    ours.beat_ns = 1 << 62
    assert [theirs.gpus[2][name] for name in FIELDS] == [-n for n in range(len(FIELDS))]
    assert all(theirs.gpus[i][name] == 0 for i in (0, 1, 3) for name in FIELDS)
    assert theirs.beat_ns == 1 << 62


def test_it_works_in_the_bare_interpreter_of_a_tray(tmp_path: Path) -> None:
    State.create(str(tmp_path / "state"), 2).gpus[1]["temp_c"] = 61
    code = "import sys; sys.path.insert(0, sys.argv[1]); import state; print(state.State.open(sys.argv[2]).gpus[1]['temp_c'])"
    module = Path(sys.modules[State.__module__].__file__ or "").parent
    args = [sys.executable, "-I", "-S", "-B", "-c", code, str(module), str(tmp_path / "state")]
    assert subprocess.run(args, capture_output=True, text=True, check=True).stdout == "61\n"


@pytest.mark.parametrize("content", [b"", b"x" * 24, b"x" * 4096])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(ValueError, match="is not a twin's state"):
        State.open(str(tmp_path / "state"))


def test_events_are_a_ring_that_keeps_the_last(tmp_path: Path) -> None:
    state = State.create(str(tmp_path / "state"), 1)
    for number in range(RING + 10):
        state.add_event(Event(0, 8, number))
    assert state.events == RING + 10
    assert [state.event(n).data for n in range(10, RING + 10)] == list(range(10, RING + 10))


def test_slots_go_back_when_their_process_is_gone(tmp_path: Path) -> None:
    state = State.create(str(tmp_path / "state"), 4)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine, its = state.take_slot(os.getpid(), 0), state.take_slot(child.pid, 3)
    its["busy_ns"] = 5
    state.sweep()
    assert [slot["pid"] for _, slot in state.slots()] == [os.getpid(), child.pid]
    child.communicate(b"\n")
    state.sweep()
    assert [slot["pid"] for _, slot in state.slots()] == [os.getpid()]
    assert state.take_slot(os.getpid(), 2)["busy_ns"] == 0
    mine["pid"] = 0
    assert len(list(state.slots())) == 1


def test_slots_are_finite(tmp_path: Path) -> None:
    state = State.create(str(tmp_path / "state"), 1)
    for _ in range(SLOTS):
        state.take_slot(os.getpid(), 0)
    with pytest.raises(OSError, match="all slots"):
        state.take_slot(os.getpid(), 0)


def test_born_tells_the_living_from_the_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert born(child.pid) == 0  # a zombie runs nothing
    child.wait()
    assert born(child.pid) == 0
    assert born(os.getpid()) > 0
