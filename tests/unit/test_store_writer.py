"""The writer's thread: in order, never in the way, and never silent when the disk says no. Real files, real kills."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from burnin.errors import StoreError
from burnin.events import LogLine, Result, Status, Tick
from burnin.store import Attempt, RunStart, Store, Writer, open_store
from burnin.telemetry.series import Series

COLUMNS = (("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power"))
START = RunStart("r1", "R-1", "gb300-nvl72", None, False, True, "ann", "2026-11-21T12:00:00Z", {})


def tick(s: float) -> Tick:
    return Tick("t00", s, COLUMNS, (40.0, s / 10))


def line(s: float, text: str = "") -> LogLine:
    return LogLine("t00", s, "note", "", text, "agent")


def attempt(number: int) -> Attempt:
    return Attempt("base", "ecc", "t00", number, Status.COMPLETE, Result.PASS, 0.0, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "burnin.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    one = open_store(path, busy_s=0.05)
    one.begin_run(START)
    yield one
    one.close()


class Locked:
    """Another program that holds the database's write lock while the block runs."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


# ---------------------------------------------------------------- order and failures


async def test_everything_is_written_in_the_order_in_which_it_was_put(store: Store) -> None:
    writer = Writer(store)
    for number in range(1, 21):
        writer.put(line(0.0, f"{number}"))
        writer.put(lambda number=number: store.end_attempt(attempt(number)))  # type: ignore[misc]
        writer.put(tick(number))
    await writer.flush()
    assert [one.text for one in store.log("r1")] == [f"{n}" for n in range(1, 21)]
    assert [one.attempt for one in store.attempts("r1")] == list(range(1, 21))
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").t_s.tolist() == list(range(1, 21))
    await writer.close()


async def test_closing_writes_what_waits_and_takes_nothing_more(store: Store) -> None:
    writer = Writer(store)
    writer.put(tick(1))
    await writer.close()
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").t_s.tolist() == [1.0]
    with pytest.raises(StoreError, match="the writer is closed"):
        writer.put(tick(2))
    await writer.close()


async def test_ticks_do_not_wait_for_ticks_that_do_not_come(store: Store) -> None:
    """All trays were lost: what they said last must not stay in memory."""
    writer = Writer(store, idle_s=0.01)
    writer.put(tick(1))
    async with asyncio.timeout(10):
        while not store.telemetry("r1").of("t00.g0", "gpu.temp").present:  # noqa: ASYNC110 (the other side is a disk)
            await asyncio.sleep(0.01)
    await writer.close()


async def test_a_failure_is_said_to_whoever_waits_and_to_whoever_comes(path: Path, store: Store) -> None:
    writer = Writer(store)
    writer.put(line(1.0, "before"))
    await writer.flush()
    with Locked(path):
        writer.put(line(2.0, "lost"))
        with pytest.raises(StoreError, match="is locked by another program"):
            await writer.flush()
    for _ in range(2):
        with pytest.raises(StoreError, match="is locked by another program"):
            writer.put(line(3.0))
        with pytest.raises(StoreError, match="is locked by another program"):
            await writer.flush()
        with pytest.raises(StoreError, match="is locked by another program"):
            await writer.close()
    assert [one.text for one in store.log("r1")] == ["before"]


async def test_a_mistake_in_what_is_called_is_a_failure_too(store: Store) -> None:
    writer = Writer(store)
    writer.put(lambda: 1 // 0)
    with pytest.raises(StoreError, match="cannot be written: ZeroDivisionError") as caught:
        await writer.flush()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(StoreError):
        await writer.close()


async def test_what_waits_for_a_slow_disk_is_bounded(store: Store) -> None:
    gate = threading.Event()
    writer = Writer(store, limit=20_000)
    writer.put(lambda: gate.wait(20))
    taken = 0
    with pytest.raises(StoreError, match=r"is too slow: 0\.0 MB wait to be written; look at its disk"):
        while taken < 1000:
            writer.put(line(1.0))
            taken += 1
    assert 20 <= taken < 50
    gate.set()
    await writer.flush()  # what was taken is written, and there is room again
    assert len(store.log("r1")) == taken
    writer.put(line(2.0))
    await writer.close()


async def test_it_says_that_it_is_behind_before_it_is_too_far(path: Path, store: Store) -> None:
    writer, seen = Writer(store, limit=10_000), list[bool]()
    with Locked(path):
        for n in range(13):
            seen.append(writer.full)
            writer.put(line(n))
        seen.append(writer.full)
    await writer.flush()
    assert [*seen, writer.full] == [*[False] * 13, True, False]
    await writer.close()


async def test_put_does_not_wait_for_the_disk(store: Store) -> None:
    gate = threading.Event()
    writer = Writer(store)
    writer.put(lambda: gate.wait(20))
    for s in range(200):
        writer.put(tick(s))
    assert not gate.is_set()
    gate.set()
    await writer.close()
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").v.size == 200


# ---------------------------------------------------------------- a reader beside it


async def test_a_reader_sees_a_whole_beginning_at_every_moment(path: Path, store: Store) -> None:
    """While frames are written, become blocks and go: never a gap, never a reading twice."""
    seen: list[Series] = []
    looked, done = threading.Semaphore(0), threading.Event()

    def read() -> None:
        other = open_store(path, create=False)
        while not done.is_set():
            seen.append(other.telemetry("r1").of("t00.g0", "gpu.power"))
            looked.release()
        other.close()

    reader = threading.Thread(target=read)
    reader.start()
    writer = Writer(store)
    for s in range(0, 12_000, 20):
        writer.put(tick(s))
        if s % 200 == 0:
            await writer.flush()
        if s % 3_000 == 0:
            await asyncio.to_thread(looked.acquire)
    await writer.close()
    done.set()
    await asyncio.to_thread(reader.join)
    assert len(seen) >= 4
    for one in seen:
        assert one.t_s.tolist() == list(range(0, 20 * one.t_s.size, 20))
        assert np.array_equal(one.v, one.t_s / 10)


# ---------------------------------------------------------------- kill -9, and no room left

CHILD = """
import sys
from burnin.errors import StoreError
from burnin.events import LogLine, Result, Status, Tick
from burnin.store import Attempt, RunStart, open_store
store = open_store(sys.argv[1])
store.begin_run(RunStart("r1", "R-1", "p", None, False, True, "ann", "2026-11-21T12:00:00Z", {}))
columns = (("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power"))
text = "x" * int(sys.argv[2])
try:
    for s in range(1000000):
        store.keep([Tick("t00", float(s), columns, (40.0, s / 10))])
        if s % 7 == 0:
            store.keep([LogLine("t00", float(s), "note", "", text, "agent")])
            store.end_attempt(Attempt("base", "ecc", "t00", s, Status.COMPLETE, Result.PASS, 0.0, 1.0))
            print(s, flush=True)
except StoreError as error:
    print(error, flush=True)
"""


def whole(path: Path, told: int) -> None:
    """The database is sound, has every result up to `told`, and all readings but those of the last ten seconds."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = open_store(path, create=False)
    attempts = [one.attempt for one in store.attempts("r1")]
    assert attempts == list(range(0, attempts[-1] + 1, 7)) and attempts[-1] >= told
    readings = store.telemetry("r1").of("t00.g0", "gpu.power")
    assert readings.t_s.tolist() == list(range(readings.t_s.size))
    assert np.array_equal(readings.v, readings.t_s / 10)
    assert readings.t_s.size >= told - 10
    store.close()


@pytest.mark.parametrize("lines", [3, 40])
def test_kill_9_loses_no_result_and_ten_seconds_of_readings_at_most(path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path), "0"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(next(child.stdout)) for _ in range(lines)][-1]
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    whole(path, told)


def full(path: Path, ran: subprocess.CompletedProcess[str], sentence: str) -> None:
    *told, last = ran.stdout.splitlines()
    assert ran.returncode == 0, ran.stderr
    assert last.startswith(f"{path} {sentence}"), last
    assert len(told) > 2
    whole(path, int(told[-1]))


def test_a_full_disk_is_a_sentence_and_costs_nothing_that_was_kept(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk to be had: {mounted.stderr.strip()}")
    try:
        path = disk / "burnin.db"
        ran = subprocess.run([sys.executable, "-c", CHILD, path, "9000"], capture_output=True, text=True, timeout=60)
        (disk / "burnin.db-wal").stat()  # it was not closed: what follows is what a restart finds
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        full(path, ran, "has no room left on its disk")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_may_not_grow_is_a_sentence_and_costs_nothing_that_was_kept(path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    ran = subprocess.run(
        [sys.executable, "-c", CHILD, path, "9000"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
        env=dict(os.environ),
    )
    full(path, ran, "cannot be read or written, its disk reports an error")
