"""The live channel: what a late watcher sees, planned stops, and every way in which a socket may not be there."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from burnin.errors import InputError, NotReady
from burnin.events import LogLine, StageBegan, StageEnded, Status, Tick, TrayState
from burnin.run import live, sockets
from burnin.run.job import Event, Kept
from burnin.run.live import Live
from burnin.run.live_lines import decode, encode

COLUMNS = (("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power"))
EVENTS: list[Event] = [
    TrayState("t00", 1.0, "ready", ""),
    StageBegan(0, "idle", "idle", 10.0, 2.0),
    Tick("t00", 3.0, COLUMNS, (45.0, None)),
    LogLine("t00.g0", 3.5, "xid", "79", "gone", "kmsg"),
    StageEnded(0, "idle", 12.0, Status.COMPLETE, ""),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_come_back_as_they_were(event: Event) -> None:
    assert decode(encode(event)) == event


def test_an_attempt_is_told_without_its_answers() -> None:
    kept = Kept("idle", "ecc", "t00", 1, Status.ERROR, 1.0, 2.0, "no answer", ())
    assert decode(encode(kept)) == {
        "event": "attempt", "stage": "idle", "check": "ecc", "part": "t00", "attempt": 1, "status": "ERROR", "t0_s": 1.0,
        "t1_s": 2.0, "why": "no answer",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b'{"event": 3}', b'{"event": "Tick"}', b'{"event": "StageEnded", "status": "NO"}', b"\xff\xfe"]
)
def test_what_is_no_line_of_ours_says_so(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


def head() -> dict[str, Any]:
    return {"run": "r-1", "pid": os.getpid(), "rack": "R-1"}


async def some(reader: asyncio.StreamReader, count: int) -> list[Any]:
    async with asyncio.timeout(5):
        return [decode(await reader.readline()) for _ in range(count)]


async def test_who_comes_late_sees_how_it_stands_and_then_what_happens(tmp_path: Path) -> None:
    db, asked = tmp_path / "b.db", list[str]()
    one = Live(db, head(), asked.append)
    await one.open()
    for event in EVENTS:
        one.see(event)
    one.see(Tick("t00", 4.0, COLUMNS, (46.0, 1.0)))
    reader, writer = await sockets.connect(sockets.live(db), "the run")
    first, *rest = await some(reader, 6)
    assert first["run"] == "r-1"
    assert rest[-1] == Tick("t00", 4.0, COLUMNS, (46.0, 1.0)), "the last reading, not all of them"
    assert set(map(type, rest)) == {TrayState, StageBegan, StageEnded, LogLine, Tick}
    one.see(EVENTS[0])
    assert await some(reader, 1) == [EVENTS[0]]
    writer.write(b'{"do": "stop", "by": "me"}\n{"do": "dance"}\nnonsense\n')
    assert [one["what"] for one in await some(reader, 3)] == ["stopping", "not understood", "not understood"]
    assert asked == ["me"]
    await one.close("HOLD")
    assert await some(reader, 1) == [{"event": "ended", "run": "r-1", "verdict": "HOLD"}]
    assert await reader.read() == b""
    writer.close()
    assert not sockets.live(db).exists()
    with pytest.raises(InputError, match="the run is not going on"):
        await sockets.connect(sockets.live(db), "the run")


async def test_a_watcher_that_does_not_read_is_let_go_and_slows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEHIND_MAX", 1 << 16)
    one = Live(tmp_path / "b.db", head(), lambda by: None)
    await one.open()
    _, lazy = await sockets.connect(sockets.live(tmp_path / "b.db"), "the run")
    reader, writer = await sockets.connect(sockets.live(tmp_path / "b.db"), "the run")
    await some(reader, 1)
    lazy.transport.pause_reading()  # type: ignore[attr-defined]
    line = LogLine("t00", 1.0, "note", "", "x" * 10000, "agent")
    for _ in range(400):
        one.see(line)
        assert await some(reader, 1) == [line]
    assert len(one._writers) == 1
    await one.close(None)
    for end in (lazy, writer):
        end.close()


async def test_a_second_run_on_the_database_is_refused_and_names_the_first(tmp_path: Path) -> None:
    first, second = (Live(tmp_path / "b.db", {**head(), "run": name}, lambda by: None) for name in ("r-1", "r-2"))
    await first.open()
    with pytest.raises(NotReady, match=rf"^run r-1 \(pid {os.getpid()}\) is using this database: wait for it, or give"):
        await second.open()
    await first.close(None)
    await second.open()
    await second.close(None)


async def test_a_stale_socket_is_replaced_and_mode_is_0600(tmp_path: Path) -> None:
    path = sockets.live(tmp_path / "b.db")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with pytest.raises(InputError, match="nobody listens"):
        await sockets.connect(path, "the run")
    one = Live(tmp_path / "b.db", head(), lambda by: None)
    await one.open()
    assert path.stat().st_mode & 0o777 == 0o600
    await one.close(None)


async def test_a_database_deep_down_is_reached_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    one = Live(deep / "b.db", head(), lambda by: None)
    await one.open()
    reader, writer = await sockets.connect(sockets.live(deep / "b.db"), "the run")
    assert (await some(reader, 1))[0]["run"] == "r-1"
    writer.close()
    await one.close(None)
    with pytest.raises(NotReady, match="bytes long, 107 are the most: give --db a shorter path"):
        await Live(tmp_path / ("f" * 110 + ".db"), head(), lambda by: None).open()


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"^no socket can be made beside the database: .*No such file"):
        await Live(tmp_path / "nowhere" / "b.db", head(), lambda by: None).open()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
async def test_another_user_is_told_whose_it_is(tmp_path: Path) -> None:
    one = Live(tmp_path / "b.db", head(), lambda by: None)
    await one.open()
    os.seteuid(65534)
    try:
        with pytest.raises(InputError, match="belongs to another user"):
            await sockets.connect(sockets.live(tmp_path / "b.db"), "the run")
    finally:
        os.seteuid(0)
    await one.close(None)


async def test_nonsense_on_the_socket_is_answered(tmp_path: Path) -> None:
    one = Live(tmp_path / "b.db", head(), lambda by: None)
    await one.open()
    reader, writer = await sockets.connect(sockets.live(tmp_path / "b.db"), "the run")
    writer.write(b"[]\n" + orjson.dumps({"do": None}) + b"\n")
    assert [said["what"] for said in (await some(reader, 3))[1:]] == ["not understood"] * 2
    writer.close()
    await one.close(None)


def test_a_run_ends_only_when_its_end_was_read(tmp_path: Path) -> None:
    db, met, over = tmp_path / "b.db", threading.Event(), threading.Event()
    heard, said = list[bytes](), list[int]()

    def watch() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.connect(str(sockets.live(db)))
            heard.append(one.recv(1))
            met.set()
            over.wait(10)  # a busy machine: it reads again only when the run is over
            while more := one.recv(1 << 16):
                heard.append(more)

    async def run() -> None:
        one = Live(db, head(), lambda by: None)
        await one.open()
        watching.start()
        await asyncio.to_thread(met.wait)
        (writer,) = one._writers
        while not writer.transport.get_write_buffer_size():  # the socket itself takes no more
            one.see(LogLine("t00", float(len(said)), "note", "", "x" * 1000, "agent"))
            said.append(1)
        threading.Timer(0.2, over.set).start()
        await one.close("PASS")

    watching = threading.Thread(target=watch)
    asyncio.run(run())  # what is not out by now is lost
    watching.join(10)
    lines = b"".join(heard).splitlines()
    assert len(lines) == len(said) + 2
    assert orjson.loads(lines[-1])["event"] == "ended"
