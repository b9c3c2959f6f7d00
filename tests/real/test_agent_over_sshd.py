"""The real agent, over the real sshd, on a machine that has no GPU."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from burnin import wire
from burnin.errors import AgentBusy
from burnin.run.reclock import by_trays
from burnin.store import Place
from burnin.transport.agent import AgentLink, GuardLink
from burnin.transport.package import build
from tests.real.conftest import RealSshd
from tests.unit.test_run_clocks import before


async def test_push_attach_identify_and_leave(sshd: RealSshd) -> None:
    records: list[wire.Record] = []
    link = AgentLink(sshd.dialer(), "t00", build(), "run-1", records.extend)
    hello = await link.open()
    assert hello.body["run"] == "run-1"
    identity = await link.order("identify")
    assert identity["host"]["machine"] == __import__("os").uname().machine
    assert await link.order("bye") == "bye"
    assert await asyncio.wait_for(link.gone, 10) == ""
    await link.close()


async def test_a_second_run_is_refused_while_the_first_one_lives(sshd: RealSshd) -> None:
    first = AgentLink(sshd.dialer(), "t00", build(), "run-1", lambda _: None)
    await first.open()
    first.lease(30, -1)
    await first.order("state")  # answered after the lease was heard
    second = AgentLink(sshd.dialer(), "t00", build(), "run-2", lambda _: None)
    with pytest.raises(AgentBusy, match="run-1"):
        await second.open()
    await first.order("bye")
    await first.close()
    await second.close()


async def test_after_a_boot_the_trays_tell_which_run_second_it_is(sshd: RealSshd) -> None:
    """The wall clock may be hours off. The trays of this test have this machine's monotonic clock."""
    dial = sshd.dialer("t00", "t01")
    links = {tray: AgentLink(dial, tray, build(), "r1", lambda _: None) for tray in ("t00", "t01")}
    holders = {tray: (await link.open()).body["holder"] for tray, link in links.items()}
    old = replace(
        before(100.0, boot="another"),
        agent=build().sha256[:16],
        tied={"t00": 40.0, "t01": 9e9, "t02": 1.0},
        places={"t00": Place(holders["t00"]), "t01": Place("an agent of before the tray was booted"), "t02": Place("x")},
    )
    known = await by_trays(old, dial)
    assert known.ours_s == pytest.approx(40.0, abs=2.0)
    assert (await by_trays(replace(old, tied={}), dial)).ours_s is None
    for link in links.values():
        await link.order("bye")
        await asyncio.wait_for(link.gone, 10)
        await link.close()
    await dial.close()


async def test_a_halt_by_file_needs_no_python_on_the_tray_and_reaches_its_own_run_only(sshd: RealSshd) -> None:
    link = AgentLink(sshd.dialer(), "t00", build(), "run-1", lambda _: None)
    await link.open()
    own, others = (GuardLink(sshd.dialer(), "t00", build(), run, lambda _: None) for run in ("run-1", "run-2"))
    assert await others.halt_by_file("not mine to halt") is None
    assert await own.halt_by_file('it\'s "wet"; $(touch here)') == 0, "nothing was loaded, and that is said"
    again = GuardLink(sshd.dialer(), "t00", build(), "run-1", lambda _: None)
    assert (await again.watch()).body["halted"] == {"*": 'it\'s "wet"; $(touch here)'}
    await link.order("bye")
    assert await asyncio.wait_for(link.gone, 10) == ""
    assert await own.halt_by_file("nobody is there") is None
    for one in (link, own, others, again):
        await one.close()
