"""Load off straight over SSH, by the real sshd: no tray holds up another, and no silence is taken for an end."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from burnin.run import beside, straight
from burnin.transport.agent import AgentLink
from burnin.transport.package import build
from tests.real.conftest import RealSshd


async def stop(db: Path) -> tuple[int, str]:
    """The command itself: exit code, and all that it said."""
    words = [sys.executable, "-m", "burnin", "stop", "last", "--emergency", "--db", str(db)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_one_tray_without_a_key_and_one_without_its_directory(sshd: RealSshd, tmp_path: Path) -> None:
    dial, db = sshd.dialer("t00", "t01", "t02", "t03"), tmp_path / "b.db"
    links = [AgentLink(dial, tray, build(), "run-1", lambda _: None) for tray in ("t01", "t02")]
    for link in links:
        await link.open()
    gone = Path(dial.endpoints["t02"].dir)
    shutil.rmtree(gone)
    dial.endpoints["t00"] = replace(dial.endpoints["t00"], key=tmp_path / "nowhere")
    beside.keep_ways(db, "run-1", straight.ways_of(dial, ("t00", "t01", "t02", "t03"), build()))

    code, said = await stop(db)
    assert code == 3
    assert "straight over SSH 1 trays are without load" in said
    assert re.search(r"^t00: .*nowhere: not a private key", said, re.M)
    assert re.search(r"^t02: an agent that does not answer lives there \(processes \d+", said, re.M)
    assert re.search(r"^no agent is on t03: nothing of this run heats there", said, re.M)
    for link in links:
        await link.order("bye")
        await asyncio.wait_for(link.gone, 10)
        await link.close()


async def test_a_changed_host_key_is_not_spoken_to(sshd: RealSshd, tmp_path: Path) -> None:
    dial, db = sshd.dialer("t00"), tmp_path / "b.db"
    beside.keep_ways(db, "run-1", straight.ways_of(dial, ("t00",), build()))
    name, kind, _ = sshd.known_hosts.read_text().split()
    another = "AAAAC3NzaC1lZDI1NTE5AAAAIMm5jmmSNgp+bG0H/NDNzVXP/Vx++ADrdUegdezswqTN"
    sshd.known_hosts.write_text(f"{name} {kind} {another}\n")
    code, said = await stop(db)
    assert code == 3
    assert re.search(r"straight over SSH 0 trays.*\nt00 at .* shows host key SHA256", said)
