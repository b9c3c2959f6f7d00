"""The guard's parts without processes: a guarded tray over a link that is told what to do, and the run's side of the pipe."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from burnin.errors import LinkLost, TrayError
from burnin.events import LogLine, TrayState
from burnin.run.guard import Guardian, told
from burnin.run.guard_rules import Seen
from burnin.run.guard_trays import GuardedTray, halt_all, outcome
from burnin.wire import Record


class Link:
    """A guard's link: keeps orders, says what it is told to say, and goes when it is told to go."""

    def __init__(self, heard: Callable[[list[Record]], None]) -> None:
        self.heard = heard
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.lost = False

    async def connect(self) -> None:
        if self.lost:
            raise LinkLost("no route")

    async def watch(self) -> Record:
        return self.record("hello", {"loaded": ["g0"]})

    async def order(self, verb: str, *, timeout_s: float = 0, **args: Any) -> list[str]:
        self.orders.append((verb, args))
        return ["g0"]

    async def close(self) -> None:
        if not self.gone.done():
            self.gone.set_result("")

    def record(self, kind: str, body: dict[str, Any], mono_ns: int = 5_000_000_000) -> Record:
        return Record(kind, "boot", -1, mono_ns, body)

    def say(self, kind: str, body: dict[str, Any]) -> None:
        self.heard([self.record(kind, body)])


class Rig:
    """One guarded tray, its links, and what it saw."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.seen: list[Seen] = []
        self.changes = 0
        self.tray = GuardedTray("t07", self._make, self.seen.append, self._changed)

    def _make(self, heard: Callable[[list[Record]], None]) -> Any:
        self.links.append(Link(heard))
        return self.links[-1]

    def _changed(self) -> None:
        self.changes += 1

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110 - what is waited for is not ours to change
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def living() -> Any:
    rig = Rig()
    task = asyncio.ensure_future(rig.tray.live())
    yield rig
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_it_is_watched_once_its_agent_is_there_and_again_when_the_channel_was_lost() -> None:
    async with living() as rig:
        await asyncio.sleep(0.05)
        assert not rig.tray.watching and rig.tray.why == "its agent is not there yet"
        rig.tray.expect(True)
        await rig.until(lambda: rig.tray.watching)
        assert rig.tray.loaded == {"t07.g0"}
        rig.links[0].gone.set_result("cut")
        await rig.until(lambda: len(rig.links) == 2 and rig.tray.watching)
        assert rig.changes == 3


async def test_readings_become_seen_with_their_age_and_power_its_idle() -> None:
    async with living() as rig:
        rig.tray.expect(True)
        await rig.until(lambda: rig.tray.watching)
        link = rig.links[0]
        link.say("watch", {"n": 4_900_000_000, "margin": {"g0": 12.0, "g1": None}, "power": {"g0": 1300.0, "g1": 200.0}})
        (one,) = rig.seen
        assert (one.name, one.part, one.value) == ("gpu_margin", "t07.g0", 12.0)
        assert one.at_s - one.before_s == pytest.approx(0.1)
        assert not rig.tray.cold(["t07.g0"], 200.0), "it is loaded"
        assert rig.tray.cold(["t07.g1"], None), "its own idle power is known"
        link.say("beat", {"load": []})
        assert rig.tray.gone_s is not None
        assert not rig.tray.cold(["t07.g0"], 200.0), "not loaded, but it still draws"
        link.say("watch", {"n": 4_900_000_000, "margin": {}, "power": {"g0": 219.0}})
        assert rig.tray.cold(["t07.g0"], 200.0)
        assert not rig.tray.cold(["t07.g3"], 200.0), "never read is not cold"


async def test_what_is_drawn_after_a_halt_is_no_idle_power_and_a_hot_die_may_leak() -> None:
    async with living() as rig:
        rig.tray.expect(True)
        await rig.until(lambda: rig.tray.watching)
        link, part = rig.links[0], ["t07.g1"]

        def draws(watts: float) -> None:
            link.say("watch", {"n": 4_900_000_000, "margin": {}, "power": {"g1": watts}})

        link.say("beat", {"load": []})
        draws(200.0)
        link.say("beat", {"load": ["g1"]})
        draws(1400.0)
        link.say("beat", {"load": []})
        draws(1400.0)
        assert not rig.tray.cold(part, 250.0), "no process of ours, and yet it works: that is not what it draws idle"
        draws(290.0)
        assert not rig.tray.cold(part, 250.0), "200 W and a tenth, and a twentieth of 1,200 W: 280 W"
        draws(279.0)
        assert rig.tray.cold(part, None)


async def test_without_a_reading_before_the_load_only_the_profile_says_what_idle_is() -> None:
    async with living() as rig:
        rig.tray.expect(True)
        await rig.until(lambda: rig.tray.watching)
        link = rig.links[0]
        link.say("beat", {"load": []})
        link.say("watch", {"n": 4_900_000_000, "margin": {}, "power": {"g0": 1400.0}})
        assert not rig.tray.cold(["t07.g0"], None) and not rig.tray.cold(["t07.g0"], 250.0)


async def test_a_halt_names_gpus_and_one_that_could_not_be_told_is_told_later() -> None:
    async with living() as rig:
        with pytest.raises(TrayError, match=r"t07: .*; its lease ends its load"):
            await rig.tray.halt("leak", None)
        rig.tray.expect(True)
        await rig.until(lambda: bool(rig.links and rig.links[0].orders))
        assert rig.links[0].orders == [("halt", {"why": "leak", "gpus": None})]
        await rig.tray.halt("margin", ["t07.g2"])
        assert rig.links[0].orders[-1] == ("halt", {"why": "margin", "gpus": ["g2"]})
        answers = await halt_all({"t07": rig.tray, "t08": Rig().tray}, "flow")
        assert isinstance(answers["t07"], float)
        assert answers["t08"] == "t08: not reached yet; its lease ends its load".replace("t08", "t07", 1)
        came_of_it = outcome({"t07": rig.tray}, {**answers}, answers["t07"] - 0.5)
        assert (came_of_it["answered"], came_of_it["still"]) == (1, ["t07.g0"])
        assert came_of_it["last_answer_s"] == pytest.approx(0.5)


# ---------------------------------------------------------------- the run's side


class Side:
    """A guardian whose process is only written to, in our heads."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.stops = 0
        self.one = Guardian({"trays": ["t00", "t01"]}, self.lines.append, self._stop, lambda: 10.0, 1000.0)

    def _stop(self) -> None:
        self.stops += 1


def trip(name: str, part: str, ends: str, latency_s: float = 0.0) -> dict[str, Any]:
    what = {"name": name, "part": part, "ends": ends, "seen_s": 1007.5, "latency_s": latency_s}
    return {"trip": {**what, "why": "it is bad", "action": "mend it"}}


def test_a_trip_of_the_rack_stops_the_run_and_one_of_a_gpu_does_not() -> None:
    side = Side()
    side.one._hear(trip("gpu_margin", "t00.g1", "gpu", 0.25))
    assert side.stops == 0
    assert side.lines == [
        LogLine(
            "t00.g1", 7.5, "guard", "gpu_margin", "it is bad (so for at most 0.25 s before it was seen); to do: mend it", "gpu"
        )
    ]
    side.one._hear(trip("leak", "t01", "rack"))
    assert side.stops == 1
    assert side.lines[-1] == LogLine("t01", 7.5, "guard", "leak", "it is bad; to do: mend it", "rack")


def test_what_is_not_watched_is_not_good() -> None:
    side = Side()
    assert {one.part for one in side.one.interlocks(["t00", "t01"])} == {"t00", "t01"}
    side.one._hear({"state": {"watching": ["t00", "t01"], "why": {}, "blind": {"leak of t01": "t01: not read yet"}}})
    (one,) = side.one.interlocks(["t00", "t01"])
    assert (one.name, one.part, one.state) == ("guard", "rack", "unread")
    assert one.why == "leak of t01 cannot be watched: t01: not read yet"
    side.one._hear({"state": {"watching": ["t00"], "why": {"t01": "the channel is lost"}, "blind": {}}})
    assert [one.why for one in side.one.interlocks(["t00", "t01"])] == ["the guard does not watch t01: the channel is lost"]
    assert side.one.interlocks(["t00"]) == []


async def test_ready_when_everything_that_is_there_is_watched() -> None:
    side = Side()
    side.one.see(TrayState("t00", 1.0, "ready"))
    side.one.see(TrayState("s0", 1.0, "ready"))
    waiting = asyncio.ensure_future(side.one.ready())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    side.one._hear({"state": {"watching": ["t00"], "why": {}, "blind": {}}})
    async with asyncio.timeout(1):
        await waiting


async def test_a_run_stays_until_its_guard_has_said_what_became_of_every_halt() -> None:
    side = Side()
    async with asyncio.timeout(1):
        await side.one.proved()  # there was none
    side.one._hear(trip("gpu_margin", "t00.g1", "gpu"))
    side.one._hear(trip("leak", "t01", "rack"))
    waiting = asyncio.ensure_future(side.one.proved())
    came = {"answered": 2, "last_answer_s": 0.01, "last_gone_s": 0.2, "cold_s": 0.5, "still": [], "unanswered": {}}
    side.one._hear({"outcome": {**came, "name": "gpu_margin", "part": "t00.g1"}})
    await asyncio.sleep(0.01)
    assert not waiting.done(), "of the leak it was not said yet"
    side.one._hear({"outcome": {**came, "name": "leak", "part": "t01"}})
    async with asyncio.timeout(1):
        await waiting
    side.one._hear(trip("coolant_flow", "rack", "rack"))
    side.one._died("the guard's process ended with status -9")
    async with asyncio.timeout(1):
        await side.one.proved()  # nobody will say it


async def test_it_is_told_what_is_detached_and_tells_whom_it_relieved(monkeypatch: pytest.MonkeyPatch) -> None:
    side, said = Side(), list[Any]()
    monkeypatch.setattr(side.one, "_say", said.append)
    side.one.detach(600)
    side.one.detach(0)
    assert said == [{"detached": 600}, {"detached": 0}]
    assert not side.one.relieved
    side.one._hear({"relieved": 1})
    assert side.one.relieved


async def test_a_guard_that_starts_late_is_told_first_what_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side()
    side.one.see(TrayState("t01", 1.0, "ready"))
    side.one.detach(600)
    monkeypatch.setattr("burnin.run.guard.sys.executable", shutil.which("cat"))
    started = asyncio.create_subprocess_exec

    async def cat(program: str, *words: str, **more: Any) -> Any:
        return await started(program, **more)

    monkeypatch.setattr("burnin.run.guard.asyncio.create_subprocess_exec", cat)
    heard, all_heard = list[Any](), asyncio.Event()

    def hear(said: Any) -> None:
        heard.append(said)
        if len(heard) >= 2:
            all_heard.set()

    monkeypatch.setattr(side.one, "_hear", hear)
    await side.one.start()
    async with asyncio.timeout(10):
        await all_heard.wait()
    await side.one.close(clean=True)
    assert heard[:2] == [{"trays": ["t00", "t01"]}, {"there": ["t01"], "detached": 600}]


def test_a_dead_guard_stops_the_run_once_and_refuses_load() -> None:
    side = Side()
    side.one._died("the guard's process ended with status -9")
    side.one._died("again")
    assert side.stops == 1
    assert [(line.code, line.source) for line in side.lines] == [("lost", "controller")]
    assert [one.part for one in side.one.interlocks([])] == ["rack"]


async def test_a_run_that_was_blocked_does_not_take_its_guard_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    side, now = Side(), [10.0]
    side.one._now_s, side.one._begun, side.one._heard_s = lambda: now[0], True, 10.0

    async def sleep(seconds: float) -> None:
        now[0] += turns.pop(0)
        if not turns:
            side.one.dead = side.one.dead or "the end of this test"

    monkeypatch.setattr("burnin.run.guard.asyncio.sleep", sleep)
    turns = [0.5, 9.0, 0.5]
    await side.one._beat()
    assert side.stops == 0, "9 s without a turn are the run's own"
    side.one.dead, turns = "", [0.6] * 9
    await side.one._beat()
    assert (side.stops, side.lines[-1].code) == (1, "lost"), "silence beside it is the guard's"


def test_what_a_halt_came_to_is_a_sentence() -> None:
    said = {"name": "leak", "part": "t01", "answered": 2, "last_answer_s": 0.01, "last_gone_s": 0.2, "cold_s": 0.5, "still": []}
    assert told({**said, "unanswered": {}}) == (
        "load ordered off for leak: 2 trays answered; the last answer 0.01 s after the reading; the last load process gone "
        "0.20 s after the reading; every GPU read at idle power 0.50 s after the reading"
    )
    worse = {**said, "cold_s": None, "still": ["t01.g0"], "unanswered": {"t03": "the channel is lost"}}
    assert told(worse).endswith(
        "not all GPUs were read at idle power: t01.g0 still loaded; t03 did not answer: the channel is lost"
    )
