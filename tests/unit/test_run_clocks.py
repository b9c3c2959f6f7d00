"""Clocks that are hours off, and that jump: order is by number and by the controller's monotonic time, and both are kept."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnin import wire
from burnin.checks import CHECKS
from burnin.errors import TrayError
from burnin.events import LogLine, Tick
from burnin.rack.load import RackFile, load_catalogue
from burnin.run import plan
from burnin.run.lock import Process
from burnin.run.resume import Before
from burnin.run.tray import READY, TIED, TraySession
from burnin.store import Run, Session
from tests import build
from tests.unit.test_run_parts import FakeAgent, FakeClock, FakeLink, settle

HERE = Process("here", "boot-1", 1, "9")
NOON = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)


def before(last_s: float, **of_session: Any) -> Before:
    """A run that began at noon, when its controller's monotonic clock said 500 s."""
    row = {"host": "here", "boot": "boot-1", "pid": 1, "pid_started": "9", "operator": "ann"}
    one = Session(**{**row, "started": "2026-11-21T12:00:00Z", "mono_s": 500.0, "t0_s": 0.0, **of_session})
    run = Run(1, "r1", "R-1", "p", "s", False, True, "ann", "here", 1, one.started, None, "RUNNING", (), None)
    file = RackFile(Path("rack.yaml"), build.rack(2), build.profile(2))
    whole = plan.make(build.suite(), file.rack, file.profile, CHECKS)
    return Before(run, file, build.suite(), (), whole, (), load_catalogue(), (one,), last_s, {}, {}, {}, {}, {})


# ---------------------------------------------------------------- the controller's


@pytest.mark.parametrize("off_h", [-30, 0, 30])
def test_on_the_same_boot_a_gap_is_as_long_as_the_monotonic_clock_says(off_h: int) -> None:
    wall = NOON + dt.timedelta(hours=off_h)
    assert before(100.0).elapsed_s(HERE, 500.0 + 900.0, wall) == 900.0


@pytest.mark.parametrize(
    "other", [Process("there", "boot-1", 1, "9"), Process("here", "boot-2", 1, "9"), Process("here", "", 1, "9")]
)
def test_elsewhere_or_after_a_reboot_the_wall_clock_says(other: Process) -> None:
    assert before(100.0).elapsed_s(other, 7.0, NOON + dt.timedelta(seconds=1234)) == 1234.0


def test_where_trays_tell_the_time_the_wall_clock_is_not_asked() -> None:
    known = replace(before(100.0), ours_s=1200.0)
    assert known.elapsed_s(Process("there", "b", 1, "1"), 7.0, NOON + dt.timedelta(days=2)) == 1207.0
    assert known.elapsed_s(HERE, 500.0 + 900.0, NOON) == 900.0, "on the same boot its own is better"


def test_a_wall_clock_that_went_back_puts_nothing_new_before_what_is_old() -> None:
    assert before(100.0).elapsed_s(Process("there", "b", 1, "1"), 7.0, NOON - dt.timedelta(days=2)) == 101.0


def test_sessions_after_the_first_count_from_where_they_began() -> None:
    assert before(4000.0, t0_s=3600.0).elapsed_s(HERE, 500.0 + 900.0, NOON) == 4500.0


# ---------------------------------------------------------------- the trays'


class Rig:
    def __init__(self, heard: tuple[str, int, int] = ("", -1, -1)) -> None:
        self.clock = FakeClock()
        self.agent = FakeAgent(self.clock)
        self.events: list[Any] = []
        self.session = TraySession("t07", self.agent.connect, self.events.append, self.clock, 100.0, 10.0, {}, heard)
        self.life = asyncio.ensure_future(self.session.live())

    def lines(self) -> list[tuple[int | None, float]]:
        return [(e.seq, e.t_s) for e in self.events if isinstance(e, LogLine) and e.kind == "note"]

    def said(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, LogLine) and e.kind == "link"]

    async def end(self) -> None:
        self.life.cancel()
        await asyncio.gather(self.life, return_exceptions=True)


async def test_lines_keep_their_order_when_the_offset_gets_better() -> None:
    """A tray's clock is placed by the least delay seen: a quicker record must not come before an earlier one."""
    rig = Rig()
    await settle()
    link = rig.agent.links[-1]
    for seq, (mono_s, delay_s) in enumerate([(5000.0, 3.0), (5000.4, 2.8), (5000.5, 0.0), (5000.6, 0.0)]):
        rig.clock.t = mono_s - 5000 + delay_s
        link.on_records([wire.Record("note", "boot", seq, int(mono_s * 1e9), {"text": str(seq)})])
    seqs, times = zip(*rig.lines(), strict=True)
    assert seqs == (0, 1, 2, 3)
    assert list(times) == sorted(times)
    await rig.end()


async def test_every_record_keeps_its_number_beside_its_time() -> None:
    rig = Rig()
    await settle()
    rig.session._tables = [(("t07.g0", "gpu.temp"), ("t07.g0", "gpu.tlimit"))]
    rig.agent.sample(40.0, 30.0)
    rig.agent.say("note", text="x")
    assert [(type(e), e.seq) for e in rig.events if isinstance(e, Tick) or (isinstance(e, LogLine) and e.kind == "note")] == [
        (Tick, 0),
        (LogLine, 1),
    ]
    await rig.end()


async def test_what_comes_with_hello_waits_until_hello_is_understood() -> None:
    """A later session's first records arrive in one piece with hello: their columns and times are known only by it."""
    rig = Rig(("H1", 2, 2))
    for _ in range(6):
        rig.agent.sample(40.0, 30.0)
        rig.clock.t += 1
    rig.clock.t += 20
    rig.session._connect = lambda take: Hasty(rig.agent, take)
    await settle()
    ticks = [e for e in rig.events if isinstance(e, Tick)]
    assert [one.seq for one in ticks] == [3, 4, 5]
    assert [one.t_s for one in ticks] == pytest.approx([3.0, 4.0, 5.0]), "when they were read, not when they came"
    await rig.end()


class Hasty(FakeLink):
    """Gives everything at once, before `open` returns."""

    async def open(self, holder: str = "-", seq: int = 0) -> wire.Record:
        hello = await super().open(holder, seq)
        hello.body["tables"] = [[["g0", "gpu.temp"], ["g0", "gpu.tlimit"]]]
        self.on_records(self.agent.spool[seq:])
        return hello


async def test_a_later_session_takes_what_is_not_on_the_disk_and_nothing_twice() -> None:
    """Readings were kept up to record 2, lines up to record 4: 3 is read, 4 was said, 5 is new."""
    rig = Rig(("H1", 2, 4))
    rig.session._tables = [(("t07.g0", "gpu.temp"), ("t07.g0", "gpu.tlimit"))]
    for kind in ("sample", "note", "sample", "sample", "note", "note"):
        if kind == "sample":
            rig.agent.sample(40.0, 30.0)
        else:
            rig.agent.say("note", text="x")
    taken = [wire.Record(r.kind, r.boot_id, r.seq, r.mono_ns, r.body) for r in rig.agent.spool]
    rig.session._placing.heard(0.0, 0.0)
    rig.session._take(taken)
    assert [(type(e).__name__, e.seq) for e in rig.events if isinstance(e, (Tick, LogLine))] == [("Tick", 3), ("LogLine", 5)]
    await rig.end()


async def back(late_s: float, *trips_s: float) -> Rig:
    """Six readings were recorded while nobody was there; hello is then taken late, and answers about the clock take so long."""
    rig = Rig(("H1", -1, -1))
    for _ in range(6):
        rig.agent.sample(40.0, 30.0)
        rig.clock.t += 1
    rig.agent.hello["tables"] = [[["g0", "gpu.temp"], ["g0", "gpu.tlimit"]]]
    rig.agent.late_s, rig.agent.trips_s = late_s, list(trips_s)
    await settle()
    return rig


async def test_a_hello_that_a_busy_controller_took_late_does_not_place_what_was_recorded_late() -> None:
    rig = await back(1.0, 0.9, 0.004)
    assert [e.t_s for e in rig.events if isinstance(e, Tick)] == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.003)
    rig.agent.sample(41.0, 30.0)
    assert rig.session.latest["t07.g0", "gpu.temp"][0] == pytest.approx(rig.clock.t - 100.0, abs=0.003)
    await rig.end()


async def test_an_answer_that_never_comes_quickly_places_within_half_its_time_and_later_ones_better() -> None:
    """One second is all that is waited; readings that turn out to be earlier than those before keep their order."""
    rig = await back(1.0, 1.2)
    times = [e.t_s for e in rig.events if isinstance(e, Tick)]
    assert times == pytest.approx([0.6, 1.6, 2.6, 3.6, 4.6, 5.6], abs=0.002)
    assert rig.said() == ["t07: what was recorded meanwhile is placed within 0.6 s"]
    rig.agent.trips_s = [0.002]
    await rig.clock.pass_time(6.0)
    rig.agent.sample(41.0, 30.0)
    assert rig.session.latest["t07.g0", "gpu.temp"][0] == pytest.approx(rig.clock.t - 100.0, abs=0.002)
    await rig.end()


async def test_readings_keep_their_order_when_their_clock_turns_out_to_be_earlier() -> None:
    rig = await back(1.0, 1.2)
    for _ in range(3):
        rig.clock.t += 0.1
        rig.agent.sample(41.0, 30.0)
    times = [e.t_s for e in rig.events if isinstance(e, Tick)]
    assert times == sorted(set(times))
    await rig.end()


async def test_an_agent_of_an_older_version_is_placed_by_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers in sequence, after an hour of records: that is not waited for."""

    async def no_answer(self: FakeLink, verb: str, **_: Any) -> Any:
        self.agent.clock.t += 1.0
        raise TrayError(f"no answer to `{verb}` within 1 s")

    monkeypatch.setattr(FakeLink, "order", no_answer)
    rig = await back(0.25)
    assert [text.split(":")[-1] for text in rig.said()] == [" it did not tell its clock"]
    assert [e.t_s for e in rig.events if isinstance(e, Tick)] == pytest.approx([0.25, 1.25, 2.25, 3.25, 4.25, 5.25])
    await rig.end()


async def test_how_a_trays_clock_stands_is_written_down_for_whoever_goes_on_elsewhere() -> None:
    rig = Rig()
    await settle()
    assert rig.session.state == READY
    (line,) = [e for e in rig.events if isinstance(e, LogLine) and e.kind == TIED]
    assert float(line.code) == pytest.approx(-5000.0 - 100.0, abs=0.002), "the run began at our second 100"
    rig.life.cancel()
