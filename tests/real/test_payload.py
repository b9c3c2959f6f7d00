"""A site's NCCL library on its way to a tray: over a real sshd, by hash, once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from burnin.errors import TrayError
from burnin.transport.agent import AgentLink, Claim, clean
from burnin.transport.known import KnownHosts
from burnin.transport.package import build
from burnin.transport.payload import BYTES_MAX, Payload
from burnin.transport.ssh import Dialer
from tests.real.conftest import RealSshd

MACHINE = os.uname().machine
DATA = os.urandom(3 << 20)
SHA = hashlib.sha256(DATA).hexdigest()


def dialer(sshd: RealSshd, payload: Payload, machine: str = MACHINE) -> Dialer:
    at = sshd.endpoint()
    end = type(at)(at.part, at.host, at.port, at.user, at.key, at.become, at.python, at.dir, {machine: payload})
    return Dialer({"t00": end}, KnownHosts(sshd.known_hosts), "rack.yaml", 10, None)


@pytest.fixture
def library(tmp_path: Path) -> Payload:
    file = tmp_path / "libnccl site.so.2"  # a path as people have them
    file.write_bytes(DATA)
    return Payload(file, SHA)


async def met(dial: Dialer, *, claim: bool = True, **order: Any) -> tuple[str, str]:
    """Attach as a run does and leave: what it lacks, and why an order was refused."""
    mine = Claim({"id": "a", "host": "h", "pid": 1, "since": "now", "run": "run-1"}, lambda who: None)
    link, refused = AgentLink(dial, "t00", build(), "run-1", lambda _: None, mine if claim else None), ""
    try:
        await link.open()
        if order:
            try:
                await link.order(**order)
            except TrayError as error:
                refused = str(error)
        await link.order("bye")
        return link.lacks, refused
    finally:
        await link.close()


def there(sshd: RealSshd) -> list[Path]:
    return [*Path(sshd.endpoint().dir).glob("*nccl-*")]


async def test_it_is_pushed_once_under_its_hash_and_cleaned_away(sshd: RealSshd, library: Payload) -> None:
    dial = dialer(sshd, library)
    assert await met(dial) == ("", "")
    (copy,) = there(sshd)
    assert (copy.name, copy.read_bytes(), copy.stat().st_mode & 0o077) == (f"nccl-{SHA}.so", DATA, 0)
    first = copy.stat().st_mtime_ns
    library.path.unlink()
    assert await met(dial) == ("", ""), "it is there: the file of the controller is not even read"
    assert copy.stat().st_mtime_ns == first
    connection = await dial.connect("t00")
    await clean(connection, dial.endpoints["t00"])
    connection.close()
    await connection.wait_closed()
    assert not copy.parent.exists()


async def test_another_library_takes_the_place_of_the_one_before(sshd: RealSshd, library: Payload, tmp_path: Path) -> None:
    await met(dialer(sshd, library))
    (tmp_path / "newer").write_bytes(DATA[::-1])
    newer = Payload(tmp_path / "newer", hashlib.sha256(DATA[::-1]).hexdigest())
    assert await met(dialer(sshd, newer)) == ("", "")
    assert [file.name for file in there(sshd)] == [newer.name]


async def test_another_architecture_and_who_only_asks_get_nothing(sshd: RealSshd, library: Payload) -> None:
    assert await met(dialer(sshd, library, "riscv64")) == ("", "")
    assert await met(dialer(sshd, library), claim=False) == ("", "")
    assert there(sshd) == []


async def test_a_file_that_is_not_what_the_rack_file_says_never_leaves(sshd: RealSshd, library: Payload) -> None:
    wrong = Payload(library.path, "0" * 64)
    work: dict[str, Any] = {"verb": "work", "kind": "nccl", "args": {"payload": {MACHINE: wrong.sha256}}}
    lacks, refused = await met(dialer(sshd, wrong), **work)
    assert f"has SHA-256 {SHA}, the rack file says 000" in lacks and refused == lacks
    assert there(sshd) == []


async def test_a_file_that_is_gone_or_too_large_says_so(sshd: RealSshd, library: Payload, tmp_path: Path) -> None:
    lacks, _ = await met(dialer(sshd, Payload(tmp_path / "none", SHA)))
    assert "cannot be read: No such file" in lacks
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(BYTES_MAX + 1)  # sparse: nothing of it is ever read
    lacks, _ = await met(dialer(sshd, Payload(tmp_path / "huge", SHA)))
    assert "are the most" in lacks and there(sshd) == []


async def test_a_copy_that_arrives_changed_does_not_get_the_name(
    sshd: RealSshd, library: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Payload, "check", lambda self: len(DATA))  # the file changed after it was looked at
    lacks, _ = await met(dialer(sshd, Payload(library.path, "1" * 64)))
    assert "t00: the site's NCCL library cannot be put" in lacks
    assert there(sshd) == []
