"""Guards beside the run's channel, on the tray: what they are told, what they can end, and that they block nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burnin.agent.guards import MOST, Guards
from burnin.transport import package
from burnin.wire import MARK, Order, Record, encode
from tests.unit.test_agent_parts import BURN, Clock, Rig, S


class Tray:
    """Guards with real sockets, and what they halted."""

    def __init__(self) -> None:
        self.ours: list[socket.socket] = []
        self.halts: list[tuple[str, list[str] | None]] = []
        self.guards = Guards(lambda kind, body: encode(Record(kind, "boot", -1, 7, body)), self._halt)

    def _halt(self, why: str, gpus: list[str] | None) -> list[str]:
        self.halts.append((why, gpus))
        return ["g0"]

    def guard(self) -> tuple[Any, socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.ours.append(ours)
        return self.guards.add(ours), theirs


@pytest.fixture
def tray() -> Iterator[Tray]:
    made = Tray()
    yield made
    for one in made.ours:
        one.close()


def said(theirs: socket.socket) -> list[list[Any]]:
    try:
        return [json.loads(line) for line in theirs.recv(1 << 20).splitlines()]
    except BlockingIOError:
        return []


def test_a_guard_is_told_margins_and_power_of_every_reading_and_load_at_once(tray: Tray) -> None:
    _, theirs = tray.guard()
    columns = (("g0", "gpu.tlimit"), ("g0", "gpu.power"), ("g0", "gpu.temp"), ("g1", "gpu.tlimit"))
    tray.guards.read(columns, [41.0, 200.0, 40.0, None], 5)
    tray.guards.read((("g0", "transient.power"), ("g0", "transient.clock_sm")), [120.0, 300.0], 6)
    assert [(row[0], row[4]) for row in said(theirs)] == [
        ("watch", {"n": 5, "margin": {"g0": 41.0, "g1": None}, "power": {"g0": 200.0}}),
        ("watch", {"n": 6, "margin": {}, "power": {"g0": 120.0}}),
    ]
    tray.guards.beat(["g0"], due=False)
    tray.guards.beat(["g0"], due=False)
    tray.guards.beat([], due=False)
    tray.guards.beat([], due=True)
    assert [row[4]["load"] for row in said(theirs)] == [["g0"], [], []]
    theirs.close()


def test_a_guard_ends_load_and_nothing_else(tray: Tray) -> None:
    guard, theirs = tray.guard()
    theirs.sendall(encode(Order("1", "halt", {"why": "leak", "gpus": None})) + encode(Order("2", "load", {"gpus": ["g0"]})))
    tray.guards.hear(guard)
    assert tray.halts == [("leak", None)]
    assert [row[4] for row in said(theirs)] == [
        {"id": "1", "ok": True, "result": ["g0"]},
        {"id": "2", "ok": False, "error": "a guard has no order 'load'"},
    ]
    theirs.sendall(b"no order at all\n")
    tray.guards.hear(guard)
    assert theirs.recv(10) == b"", "who talks nonsense is dropped"
    tray.guards.hear(guard)
    theirs.close()


def test_guards_that_do_not_read_and_guards_too_many_are_dropped(tray: Tray) -> None:
    sockets = [tray.guard()[1] for _ in range(MOST + 1)]
    assert sockets[0].recv(10) == b""
    for _ in range(400):
        tray.guards.tell("watch", {"x": "y" * 10000})
    for one in sockets[1:]:
        while one.recv(1 << 20):
            pass  # what it was sent before; then the end
        one.close()
    sockets[0].close()


def test_a_halt_kills_soon_and_stays_until_it_is_cleared() -> None:
    rig = Rig(Clock())
    rig.start()
    assert rig.loads.halt("leak in t03", None) == ["g0"]
    rig.clock.ns += int(0.3 * S)
    rig.loads.tend()
    assert rig.processes[0].wait(5) == -9, "it ignores its deadline: killed within 0.3 s, not one"
    rig.loads.tend()
    assert rig.loads.start({"g0": BURN, "g1": BURN}, 0.0, 10.0, set()) == {
        "g0": "halted: leak in t03",
        "g1": "halted: leak in t03",
    }
    rig.loads.halted.clear()
    rig.loads.halt("margin", ["g1"])
    assert rig.loads.start({"g0": BURN, "g1": BURN}, 0.0, 10.0, set()) == {"g0": "starting", "g1": "halted: margin"}
    rig.end()
    for process in rig.processes:
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_over_real_processes_a_guard_joins_a_holder_and_never_starts_one(tmp_path: Path) -> None:
    zipapp = tmp_path / package.build().name
    zipapp.write_bytes(package.build().data)

    def agent(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(zipapp), *words],
            cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip

    def until(process: subprocess.Popen[bytes], what: bytes) -> bytes:
        assert process.stdout is not None
        seen = b""
        while what not in seen:
            data = os.read(process.stdout.fileno(), 65536)
            assert data, seen
            seen += data
        return seen

    alone = agent("guard", "run-1")
    out, err = alone.communicate(timeout=20)
    assert (alone.returncode, out, err) == (6, MARK, b"no holder\n")

    run = agent("channel", "run-1", "-", "0")
    until(run, b'"hello"')
    stranger = agent("guard", "run-2")
    assert stranger.communicate(timeout=20)[1] == b"busy run-1 {}\n"
    assert stranger.returncode == 5
    guard = agent("guard", "run-1")
    assert b'"halted":{}' in until(guard, b'"hello"')
    assert guard.stdin is not None and run.stdin is not None
    run.stdin.write(b'["lease",30,-1]\n')
    guard.stdin.write(b'["order","h1","halt",{"why":"leak"}]\n')
    assert b'"ok":true' in until(guard, b'"id":"h1"')
    until(run, b"load was ended and is refused from now on: leak")
    until(guard, b'"beat"')
    again = agent("guard", "run-1")
    assert b'"halted":{"*":"leak"}' in until(again, b'"hello"')
    run.stdin.write(b'["order","c1","clear",{}]\n["order","b","bye",{}]\n')
    until(run, b'"result":"bye"')
    for process in (run, guard, again):
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("word", ["attach", "guard"])
def test_the_first_line_of_a_socket_says_who_it_is(word: str, tmp_path: Path) -> None:
    from burnin.agent.attachment import Attachment
    from burnin.agent.claims import Claims
    from burnin.agent.spool import Spool

    class Owner:
        run, ident, busy, leased, detached = "run-1", "h", False, False, ""
        claims = Claims(str(tmp_path / "claim"))
        spool = Spool("boot", lambda: 7)
        ended = False

        def hello(self) -> bytes:
            return b"hello\n"

        def hear(self, down: object) -> None:
            raise AssertionError(down)

        def clock(self, ident: str) -> bytes:
            raise AssertionError(ident)

        def end(self) -> None:
            self.ended = True

    owner = Owner()
    for run, answer in (
        ("run-1", b'["ok"]\nhello\n'),
        ("run-2", b'["busy", "run-1", {}]\n' if word == "guard" else b'["stale", "run-1", {}]\n'),
    ):
        ours, theirs = socket.socketpair()
        theirs.sendall(json.dumps([word, run, "-", 0]).encode() + b"\n")
        attachment = Attachment(owner, ours)
        assert attachment.attach() is (run == "run-1")
        assert attachment.guard is (word == "guard")
        assert theirs.recv(100) == answer
        ours.close()
        theirs.close()
    assert owner.ended is (word == "attach"), "a guard never ends a holder"
