"""`stop --emergency`: the shortest way to the guard, and what it falls back on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnin.cli import at_once
from burnin.errors import InputError, NotReady
from burnin.run import beside, emergency, straight
from burnin.store import RunStart, open_store
from burnin.transport.known import KnownHosts
from burnin.transport.ssh import Dialer, Endpoint

GONE = {"name": "emergency", "answered": 2, "last_gone_s": 0.4, "cold_s": 0.5, "unanswered": {}, "still": []}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("stop last --emergency", ("last", "burnin.db")),
        ("stop --emergency last --db a.db", ("last", "a.db")),
        ("stop --db=a.db 2026 --emergency", ("2026", "a.db")),
        ("stop last", None),
        ("stop --emergency", None),
        ("stop last other --emergency", None),
        ("stop last --emergency --help", None),
        ("stop last --emergency --db", None),
        ("stop last --emergency --emergency", None),
        ("watch last --emergency", None),
        ("--emergency stop last", None),
    ],
)
def test_only_a_plain_emergency_stop_goes_past_the_command_line(words: str, asked: tuple[str, str] | None) -> None:
    assert at_once.read(words.split(), {}) == (None if asked is None else (asked[0], Path(asked[1])))


def test_the_database_may_be_named_by_the_environment() -> None:
    assert at_once.read(["stop", "last", "--emergency"], {"BURNIN_DB": "/x/y.db"}) == ("last", Path("/x/y.db"))
    assert at_once.read(["stop", "last", "--emergency"], {"BURNIN_DB": ""}) == ("last", Path("burnin.db"))


class Guard:
    """A guard's socket that says these lines: the first on connect, the others after what it was told."""

    def __init__(self, db: Path, *lines: dict[str, Any] | bytes) -> None:
        self.heard: list[Any] = []
        self._lines = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(beside.guard(db)))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Whoever asked may have gone to the trays meanwhile, on a slow machine."""
        with (
            contextlib.suppress(OSError),
            self._socket.accept()[0] as connection,
            connection.makefile("rb") as said,
        ):
            connection.sendall(self._lines[0])
            if line := said.readline():
                self.heard.append(json.loads(line))
                connection.sendall(b"".join(self._lines[1:]))

    def close(self) -> None:
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[Guard] = []
    for name in ("ANSWER_S", "CONFIRM_S"):  # a thread of a busy machine's test stands for the guard
        monkeypatch.setattr(emergency, name, 60.0)

    def make(*lines: dict[str, Any] | bytes) -> Guard:
        made.append(Guard(tmp_path / "b.db", *lines))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_order_is_said_with_the_standard_library_alone(guard: Callable[..., Guard], tmp_path: Path) -> None:
    for _ in range(3):  # beside a guard that takes a quarter of a second to answer SSH is made ready, too (no core)
        one = guard({"run": "r1"}, {"said": "ordered"}, {"outcome": {**GONE, "name": "leak"}}, {"outcome": GONE})
        imported = imported_by(one, tmp_path / "b.db")
        if "asyncio" not in imported:
            break
    assert "burnin.run.emergency" in imported
    assert not imported & {"asyncio", "asyncssh", "typer", "pydantic", "sqlalchemy", "orjson", "rich", "subprocess", "tempfile"}


def imported_by(one: Guard, db: Path) -> set[str]:
    """What the command imports that tells this guard, and is answered."""
    words = [sys.executable, "-X", "importtime", "-m", "burnin", "stop", "last", "--emergency", "--db", str(db)]
    began_s = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert one.heard[0]["do"] == "emergency" and one.heard[0]["run"] == "r1" and one.heard[0]["by"]
    first = done.stdout.splitlines()[0]
    assert first.endswith("2 answered")
    took = re.search(r"([\d.]+) s after this command began", first)
    assert took is not None and 0 < float(took[1]) < time.monotonic() - began_s + 0.02, "a Python that starts is part of it"
    one.close()
    beside.guard(db).unlink()
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    "lines",
    [
        [{"run": "another"}],
        [b""],
        [b"no json\n"],
        [b'["a list"]\n'],
        [{"run": "r1"}],
        [{"run": "r1"}, {"said": "ordered"}],
        [{"run": "r1"}, {"said": "ordered"}, b"garbled\n"],
        [{"run": "r1"}, {"said": "ordered"}, {"outcome": {"name": "emergency"}}],
        [{"run": "r1"}, {"said": "ordered"}, {"outcome": "done"}],
    ],
)
def test_a_guard_that_does_not_see_it_through_is_not_believed(
    guard: Callable[..., Guard], tmp_path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(*lines)
    if lines == [b""]:  # is waited for
        monkeypatch.setattr(emergency, "ANSWER_S", 0.1)
    monkeypatch.setattr("burnin.run.straight.halt", lambda run, db, by, begin: [f"over SSH: {run} by {by}"])
    assert emergency.stop_now("r1", tmp_path / "b.db", "me") == ["over SSH: r1 by me"]


@pytest.mark.parametrize("last", [b"", b"garbled\n", {"outcome": "done"}])
def test_a_guard_that_took_the_order_was_told(guard: Callable[..., Guard], tmp_path: Path, last: Any) -> None:
    guard({"run": "r1"}, {"said": "ordered"}, last)
    with pytest.raises(NotReady, match=r"guard took the order, and has not said what .* SSH: no tray was told anything: .*b\.db"):
        emergency.stop_now("r1", tmp_path / "b.db", "me")


def test_what_did_not_answer_or_goes_on_is_no_success(guard: Callable[..., Guard], tmp_path: Path) -> None:
    guard({"run": "r1"}, {"said": "ordered"}, {"outcome": {**GONE, "unanswered": {"t03": "lost"}, "still": ["t04.g1"]}})
    with pytest.raises(NotReady, match=r"(?s)t03 did not answer: lost.*still loaded: t04.g1"):
        emergency.stop_now("last", tmp_path / "b.db", "me")


# ---------------------------------------------------------------- the way straight to the trays


def test_ways_are_of_one_run_and_of_nobody_elses_business(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    assert beside.read_ways(db, "last") is None
    beside.keep_ways(db, "20261121-a", {"agent": "f00"})
    assert stat.S_IMODE(beside.ways(db).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["b.db.ways"]
    assert beside.read_ways(db, "last") == beside.read_ways(db, "20261121") == {"run": "20261121-a", "agent": "f00"}
    assert beside.read_ways(db, "20261122") is None and beside.read_ways(db, "") is None
    for garbled in (b"", b"{", b"[1]", b'{"run": 3}', b"\xff"):
        beside.ways(db).write_bytes(garbled)
        assert beside.read_ways(db, "last") is None
    beside.keep_ways(db, "20261121-a", {})
    beside.drop_ways(db, "20261121-b")
    assert beside.read_ways(db, "last") is not None, "a run that was refused leaves those of the one that heats"
    beside.drop_ways(db, "20261121-a")
    beside.drop_ways(db, "20261121-a")
    assert os.listdir(tmp_path) == []


def test_ways_that_another_user_may_have_put_there_are_not_gone(tmp_path: Path) -> None:
    db, mine = tmp_path / "b.db", tmp_path / "mine"
    place = beside.ways(db)
    mine.write_text('{"run": "r1"}')
    place.symlink_to(mine)
    assert beside.read_ways(db, "last") is None, "a link"
    place.unlink()
    os.mkfifo(place)
    assert beside.read_ways(db, "last") is None, "a pipe that nobody writes"
    place.unlink()
    place.write_text('{"run": "r1"}')
    place.chmod(0o660)
    assert beside.read_ways(db, "last") is None, "others may write it"
    place.chmod(0o600)
    assert beside.read_ways(db, "last") == {"run": "r1"}
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    scratch.symlink_to(mine)
    beside.keep_ways(db, "r2", {})
    assert (mine.read_text(), beside.read_ways(db, "last")) == ('{"run": "r1"}', {"run": "r2"}), "not written through a link"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_ways_and_guards_are_of_root_of_who_asks_or_of_whose_database_it_is(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    beside.keep_ways(db, "r1", {})
    os.chown(beside.ways(db), 12345, 12345)
    assert beside.read_ways(db, "r1") is None
    assert not beside.trusted(12345, db)
    db.touch()
    os.chown(db, 12345, 12345)
    assert beside.read_ways(db, "r1") == {"run": "r1"}, "root ends the run of another"
    assert beside.trusted(12345, db) and beside.trusted(0, db)


def test_a_guard_of_another_user_is_not_believed(
    guard: Callable[..., Guard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard({"run": "r1"}, {"said": "ordered"}, {"outcome": GONE})
    monkeypatch.setattr("burnin.run.beside.trusted", lambda uid, db: uid != os.geteuid())
    monkeypatch.setattr("burnin.run.straight.halt", lambda run, db, by, begin: ["over SSH"])
    assert emergency.stop_now("r1", tmp_path / "b.db", "me") == ["over SSH"]


def test_a_link_to_the_database_has_the_same_things_beside_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    db, link = tmp_path / "deep" / "b.db", tmp_path / "link.db"
    db.touch()
    link.symlink_to(db)
    assert beside.guard(link) == beside.guard(db) == tmp_path / "deep" / "b.db.guard"
    assert (beside.live(link), beside.ways(link)) == (beside.live(db), beside.ways(db))


def test_a_gpu_that_is_not_cold_yet_is_no_success(guard: Callable[..., Guard], tmp_path: Path) -> None:
    guard({"run": "r1"}, {"said": "ordered"}, {"outcome": {**GONE, "cold_s": None}})
    with pytest.raises(NotReady, match="not every GPU was read at idle power yet"):
        emergency.stop_now("r1", tmp_path / "b.db", "me")


def test_where_nothing_says_where_the_trays_are_nobody_was_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tray was told anything: .*b\.db does not exist"):
        emergency.stop_now("last", tmp_path / "b.db", "me")


def test_the_last_run_is_none_that_was_refused_for_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "b.db")
    for name, status in (("20261122-1", "STOPPED"), ("20261122-2", "REFUSED"), ("20261122-3", "REFUSED")):
        store.begin_run(RunStart(name, "R", "p", None, False, False, "me", "2026-11-22T00:00:00Z", {}))
        assert straight._which(store, "last").id == name
        store.end_run(name, "2026-11-22T00:00:00Z", status)
    assert straight._which(store, "last").id == "20261122-1"
    assert straight._which(store, "20261122-2").id == "20261122-2"
    store.close()


def test_ways_that_cannot_be_written_do_not_leave_an_older_runs(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    beside.keep_ways(db, "old", {})
    scratch = beside.ways(db).with_name(f"b.db.ways.{os.getpid()}")
    scratch.mkdir()
    beside.keep_ways(db, "new", {})
    assert beside.read_ways(db, "last") is None
    beside.keep_ways(tmp_path / "nowhere" / "b.db", "new", {})


def test_a_dialer_comes_back_from_what_it_told(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("")
    ends = {
        part: Endpoint(part, "127.0.0.1", 22, "burnin", key, True, "python3", "/var/tmp/x", {"aarch64": None})  # type: ignore[dict-item]
        for part, key in (("t00", tmp_path / "id"), ("t01", None), ("s0", None))
    }
    dial = Dialer(ends, KnownHosts(tmp_path / "known"), "rack.yaml", 7.5, "me@jump:23")
    told = json.loads(json.dumps(dial.told(["t00", "t01"])))
    again = Dialer.of(told)
    assert list(again.endpoints) == ["t00", "t01"]
    assert again.endpoints["t00"] == Endpoint("t00", "127.0.0.1", 22, "burnin", tmp_path / "id", True, "python3", "/var/tmp/x")
    assert again.endpoints["t01"].key is None
    assert again.told(["t00", "t01"]) == told
    with pytest.raises(KeyError):
        Dialer.of({})


def test_asyncssh_is_imported_without_starting_programs() -> None:
    text = """
import sys
sys.addaudithook(lambda event, args: sys.exit(f"started {args[1]}") if event in ("subprocess.Popen", "os.posix_spawn") else None)
import burnin.transport.agent, burnin.run.straight
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
