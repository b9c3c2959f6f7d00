"""CPU load beside a GPU's: whose cores, for how long, and what /proc/stat says of it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import cores
from burnin.agent.host import Roots
from burnin.agent.sysfs import Absent
from burnin.twin.emulate.cores import hashing
from tests.unit.twin_tray import bench


def at(root: Path) -> Roots:
    return Roots(*(str(root / name) for name in ("proc", "sys", "dev")))


@given(st.integers(0, 1000), st.integers(1, 8))
def test_each_gpu_has_its_share_and_the_system_keeps_a_core(count: int, gpus: int) -> None:
    shares = cores.shares(count, gpus)
    assert len(shares) == gpus
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == (count - 2 if count > 16 else max(count - 1, 0))


def test_the_cores_of_a_tray_are_those_that_run(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    assert cores.count(at(tmp_path)) == 0
    (tmp_path / "proc/stat").write_text(
        "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu17 1 1 1 1 1 1 1 1 0 0\nintr 9 9\n"
    )
    assert cores.count(at(tmp_path)) == 2


def test_threads_work_niced_and_none_is_left() -> None:
    """Real hashes on this machine's cores, for as long as three questions take."""
    before, nices, until = threading.active_count(), set(), time.monotonic_ns() + 20_000_000

    def going() -> bool:
        if threading.current_thread() is not threading.main_thread():
            nices.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return time.monotonic_ns() < until

    own = os.getpriority(os.PRIO_PROCESS, 0)
    with cores.beside(2, going, time.monotonic_ns) as said:
        assert said == "; 2 CPU threads beside it"
    assert threading.active_count() == before
    assert nices <= {min(cores.NICE, 19)} or own > 0
    assert os.getpriority(os.PRIO_PROCESS, 0) == own, "the launches of the GPU's kernel are not niced with them"


def test_the_deadline_ends_them_even_when_the_launching_thread_hangs() -> None:
    one = cores.Cores(2, lambda: False, time.monotonic_ns)
    for thread in one._threads:
        thread.join(5)
        assert not thread.is_alive()


def test_pieces_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core of 2 us an iteration: what each piece would last, after the first few."""
    now, took = [0], []

    def slow(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        took.append(iterations * 2000)
        now[0] += took[-1]
        return b""

    slow.__module__ = "_hashlib"
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", slow)
    cores.Cores(1, lambda: len(took) < 20, lambda: now[0])._threads[0].join(5)
    assert len(took) == 20
    assert max(took) <= 50_000_000
    assert min(took[5:]) >= 30_000_000


@pytest.mark.parametrize(("threads", "why"), [(0, "/proc/stat does not say"), (1, "no OpenSSL to hash with")])
def test_why_there_are_none_is_said(monkeypatch: pytest.MonkeyPatch, threads: int, why: str) -> None:
    monkeypatch.delattr(hashlib, "pbkdf2_hmac")
    with cores.beside(threads, lambda: True, time.monotonic_ns) as said:
        assert said.startswith("; no CPU load beside it: ")
        assert why in said
    with cores.beside(None, lambda: True, time.monotonic_ns) as said:
        assert said == ""


def test_the_share_of_time_is_that_between_two_readings() -> None:
    said = ["cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 1 2"]
    read = cores.util(lambda: said[0])
    with pytest.raises(Absent, match="missing"):
        read()  # nothing has passed
    said[0] = "cpu  150 20 5 905 10 3 2 5 70 9"
    assert read() == pytest.approx(80 / 100), "of 100; guests are in user, stolen time is not ours"
    said[0] = "cpu  150 20 5 1005 10 3 2 5 70 9"
    assert read() == 0.0


@pytest.mark.parametrize(
    "text", ["", "cpu", "cpu 1 2 3", "cpu a b c d e f g h i", "intr 1 2 3 4 5 6 7 8 9", "cpu  1 1 -1 1 1 1 1 1 1"]
)
def test_what_is_no_stat_is_missing(text: str) -> None:
    read = cores.util(lambda: text)
    with pytest.raises(Absent, match="missing"):
        read()


def test_a_stat_that_goes_backward_or_stands_still_is_missing() -> None:
    said = ["cpu  10 0 0 90 0 0 0 0 0 0"]
    read = cores.util(lambda: said[0])
    said[0] = "cpu  5 0 0 50 0 0 0 0 0 0"
    for _ in range(2):
        with pytest.raises(Absent, match="missing"):
            read()


def test_a_twins_cores_take_time_and_are_busy_by_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tray = bench(tmp_path)
    slept: list[float] = []
    monkeypatch.setattr("burnin.twin.emulate.cores.time.sleep", slept.append)
    digest = hashing(tray.state, hashlib.pbkdf2_hmac)
    real = hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1000)
    assert digest("sha256", b"a", b"b", 1000) == real, "a process without a GPU hashes as ever"
    assert not slept
    slot = tray.state.take_slot(os.getpid(), 1)
    assert digest("sha256", b"a", b"b", 1000) != digest("sha256", b"a", b"b", 2000)
    assert sum(slept) * 1e9 == pytest.approx(slot["cpu_ns"])
    assert slot["cpu_ns"] == 3000 * 500
