"""Is the process that keeps a run still there? Only what is provably gone makes way."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from burnin.run import lock
from burnin.run.lock import Process


def other(boot: str = "", namespace: str = "", machine: str | None = None, **changed: object) -> Process:
    """This process, but for what is said."""
    me = Process.me()
    b, n, m = me.boot.split(".")
    place = ".".join((boot or b, namespace or n, m if machine is None else machine))
    return replace(me, boot=place, **changed)  # type: ignore[arg-type]


def test_this_process_lives_and_one_of_its_number_that_began_before_is_gone() -> None:
    assert Process.me().gone() is False
    assert other(started="1").gone() is True
    child = subprocess.Popen(["true"])
    of_child = Process.me().as_who() | {"pid": child.pid, "started": "1"}
    child.wait()
    assert Process.who_is_gone(of_child) is True


def test_a_controller_of_other_process_numbers_is_not_gone_because_ours_lack_its_own() -> None:
    assert other(namespace="1").gone() is None, "a container of this machine, with the same host name"
    assert other(namespace="1", pid=1, started="1").gone() is None


def test_another_boot_proves_something_of_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_machine", lambda: "0123")
    assert other(boot="before", machine="0123").gone() is True
    assert other(boot="before", machine="4567").gone() is None, "another machine, installed from the same image"
    assert other(boot="before", machine="0123", host="elsewhere").gone() is None
    assert replace(Process.me(), boot="before.1").gone() is None, "as burnin wrote it before it told machines apart"
    monkeypatch.setattr(lock, "_machine", lambda: "")
    assert other(boot="before", machine="").gone() is None, "a container sees no card of its own"


def test_a_process_that_the_kernel_hides_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = Process.me()
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(me.boot.split(".")[0])
    monkeypatch.setattr(lock, "_PROC", tmp_path)
    assert me.gone() is None
    assert replace(me, pid=os.getppid()).gone() is None
    assert replace(me, pid=2**22 + 1).gone() is True, "beyond the highest number that Linux gives"


def test_what_a_tray_says_in_riddles_proves_nothing() -> None:
    assert Process.who_is_gone({}) is None
    assert Process.who_is_gone({"host": 1}) is None
    assert Process.who_is_gone(Process.me().as_who() | {"pid": "x"}) is None
