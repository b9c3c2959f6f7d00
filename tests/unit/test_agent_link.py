"""The controller's end of a channel: what is recorded faster than a disk can keep it waits on the tray."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from burnin.transport import agent
from burnin.transport.agent import AgentLink
from burnin.wire import Record


class Channel:
    """What asyncssh's channel is told."""

    def __init__(self) -> None:
        self.resumed = asyncio.Event()
        self.resumed.set()

    def pause_reading(self) -> None:
        self.resumed.clear()

    def resume_reading(self) -> None:
        self.resumed.set()

    def reads(self) -> bool:
        return self.resumed.is_set()


@pytest.mark.parametrize("stuck", [False, True])
async def test_nothing_is_taken_while_the_disk_is_behind_and_a_stuck_one_is_not_waited_for(
    stuck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "HELD_S", 0.3 if stuck else 60.0)
    full, taken, channel = [False], list[Record](), Channel()
    dialer = cast("Any", SimpleNamespace(endpoints={"t00": None}))
    link = AgentLink(dialer, "t00", cast("Any", None), "r", taken.extend, full=lambda: full[0])
    link._channel = cast("Any", channel)
    link._take([Record("note", "b", 0, 0, {})])
    assert channel.reads()
    full[0] = True
    link._take([Record("note", "b", 1, 0, {})])
    assert not channel.reads()
    assert len(taken) == 2, "what came is kept"
    heard_s = link.heard_s
    if not stuck:
        await asyncio.sleep(3 * agent.HOLD_S)
        assert not channel.reads()
        assert link.heard_s > heard_s, "it is we who do not listen"
        full[0] = False
    await asyncio.wait_for(channel.resumed.wait(), 10)
    full[0] = True
    link._take([Record("note", "b", 2, 0, {})])
    assert not channel.reads(), "and again"


async def test_who_may_go_on_with_a_detached_stage_is_told_where() -> None:
    dialer, said = cast("Any", SimpleNamespace(endpoints={"t00": None})), agent._Session(lambda _: None, asyncio.Future())
    said.err += b'busy r1 {"run": "r1", "pid": 7, "host": "c1", "since": "noon", "stage": "soak"}'
    held = "t00 is held by run r1 (process 7 on c1, since noon), whose stage soak is detached: `--resume r1` goes on with it"
    ends = ", `burnin stop r1 --emergency` ends it"
    told = {run: str(AgentLink(dialer, "t00", cast("Any", None), run, lambda _: None)._others(said)) for run in ("r1", "r2")}
    assert told == {"r2": held + ends, "r1": f"{held} on c1, and elsewhere when its lease is over{ends}"}
