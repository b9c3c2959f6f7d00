"""Before load and around it: interlocks, the plan, and one tray's life as the run sees it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from burnin import wire
from burnin.checks import CHECKS, toolbox
from burnin.errors import AgentBusy, HostKeyError, InputError, LinkLost, TrayError
from burnin.events import Attached, LogLine, Tick, TrayState
from burnin.rack.load import list_profiles, load_profile
from burnin.run import interlocks, plan
from burnin.run.tray import BEAT_LOST_S, TraySession
from tests import build

TODAY = dt.date(2026, 11, 21)
WAIVER = {"interlock": "leak", "by": "A. Person", "why": "no sensors on this bench", "until": "2026-12-31"}


def identity(chassis: str | None = "C1", index: int | None = 0) -> dict[str, Any]:
    return {"gpus": [{"chassis": chassis, "tray_index": index}] * 4}


def states(found: list[interlocks.Interlock]) -> dict[tuple[str, str], str]:
    return {(one.name, one.part): one.state for one in found}


# ---------------------------------------------------------------- interlocks


def test_what_cannot_be_read_is_not_good() -> None:
    profile = build.profile(interlocks=["coolant_flow", "leak"])
    found = interlocks.evaluate(profile, build.rack(), TODAY, {}, {})
    assert states(found) == {("coolant_flow", "rack"): "unread", ("leak", "rack"): "unread"}
    refusal = "coolant_flow: the rack file does not say where the coolant is read (coolant:); leak: no tray answers"
    assert interlocks.refusal(found) == refusal
    unheard_of = build.profile().model_copy(update={"interlocks": ["moon_phase"]})
    assert interlocks.refusal(interlocks.evaluate(unheard_of, build.rack(), TODAY, {}, {})) == (
        "this version of burnin cannot read moon_phase"
    )


def test_a_waiver_counts_by_name_until_its_day() -> None:
    profile = build.profile(interlocks=["leak"])
    rack = build.rack(waive=[WAIVER])
    on_its_day = interlocks.evaluate(profile, rack, dt.date(2026, 12, 31), {}, {})
    assert states(on_its_day) == {("leak", "rack"): "waived"}
    assert interlocks.refusal(on_its_day) is None
    after = interlocks.evaluate(profile, rack, dt.date(2027, 1, 1), {}, {})
    assert "ended on 2026-12-31" in (interlocks.refusal(after) or "")
    other = interlocks.evaluate(build.profile(interlocks=["leak", "switch_trays"]), rack, TODAY, {}, {})
    assert "switch_trays" in (interlocks.refusal(other) or "")


def test_a_rack_that_agrees_is_this_rack() -> None:
    found = interlocks.rack_identity(build.rack(2), {"t00": identity(index=0), "t01": identity(index=1)})
    assert {one.state for one in found} == {"good"}


@pytest.mark.parametrize(
    ("t01", "state"),
    [
        (identity(chassis="C2", index=1), "bad"),
        (identity(chassis="C1", index=4), "bad"),
        (identity(chassis=None, index=1), "unread"),
        (identity(chassis="C1", index=None), "unread"),
        ({"gpus": []}, "unread"),
        ({}, "unread"),
        ({"gpus": [{"chassis": "C1", "tray_index": 1}, {"chassis": "C2", "tray_index": 1}]}, "unread"),
    ],
)
def test_one_tray_from_elsewhere_refuses_all_load_and_a_mute_one_only_its_own(t01: dict[str, Any], state: str) -> None:
    rack = build.rack(3, chassis="C1")
    found = interlocks.rack_identity(rack, {"t00": identity(), "t01": t01, "t02": identity(index=2)})
    assert states(found)["rack_identity", "t01"] == state
    assert (interlocks.refusal(found) is not None) == (state == "bad")
    assert interlocks.loadable(found, ["t00.g0", "t01.g0", "t02.g0"]) == ["t00.g0", "t02.g0"]


def test_without_a_stated_chassis_the_majority_is_the_rack() -> None:
    found = interlocks.rack_identity(
        build.rack(3), {"t00": identity("C9", 0), "t01": identity("C1", 1), "t02": identity("C1", 2)}
    )
    assert [one.part for one in found if one.state == "bad"] == ["t00"]


@pytest.mark.parametrize(("margin", "state"), [(10.0, "good"), (9.5, "bad"), (None, "unread")])
def test_a_gpu_without_margin_is_not_loaded_and_its_neighbours_are(margin: float | None, state: str) -> None:
    found = interlocks.evaluate(
        build.profile(interlocks=["gpu_margin"]),
        build.rack(),
        TODAY,
        {},
        {"t00.g0": {"gpu.tlimit": 50.0}, "t00.g1": {"gpu.tlimit": margin}},
    )
    assert states(found)["gpu_margin", "t00.g1"] == state
    assert interlocks.refusal(found) is None
    assert interlocks.loadable(found, ["t00.g0", "t00.g1"]) == ["t00.g0", "t00.g1"][: 2 if state == "good" else 1]


def test_a_gpu_that_burns_already_is_held_to_the_margin_that_cuts_it() -> None:
    margins = {"t00.g0": 9.5, "t00.g1": 9.5, "t00.g2": -1.0}
    found = states(interlocks.gpu_margins(build.profile(), margins, {"t00.g1", "t00.g2"}))
    assert [found["gpu_margin", gpu] for gpu in margins] == ["bad", "good", "bad"]


def test_a_profile_without_a_margin_to_start_with_loads_nothing() -> None:
    bare = build.profile(interlocks=["gpu_margin"], limits={})
    found = interlocks.evaluate(bare, build.rack(), TODAY, {}, {"t00.g0": {"gpu.tlimit": 50.0}})
    assert interlocks.loadable(found, ["t00.g0"]) == []


GOOD = {"gpu.tlimit": 50.0, "fabric.state": 3.0, "fabric.status": 0.0, "fabric.health": 1.0}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "good"),
        ({"fabric.state": 2.0}, "bad"),
        ({"fabric.status": 4.0}, "bad"),
        ({"fabric.health": 3.0}, "bad"),
        ({"fabric.health": None}, "unread"),
        ({"fabric.state": None, "fabric.status": None, "fabric.health": None}, "unread"),
    ],
)
def test_a_gpu_outside_the_fabric_is_not_loaded_and_its_neighbours_are(change: dict[str, Any], state: str) -> None:
    readings = {"t00.g0": GOOD, "t00.g1": {**GOOD, **change}}
    found = interlocks.evaluate(build.profile(interlocks=["fabric"]), build.rack(), TODAY, {}, readings)
    assert states(found) == {("fabric", "t00.g0"): "good", ("fabric", "t00.g1"): state}
    assert interlocks.loadable(found, ["t00.g0", "t00.g1"]) == ["t00.g0", "t00.g1"][: 2 if state == "good" else 1]


def test_a_profile_that_does_not_say_what_a_fabric_must_be_loads_nothing() -> None:
    found = interlocks.evaluate(build.profile(interlocks=["fabric"], limits={}), build.rack(), TODAY, {}, {"t00.g0": GOOD})
    assert states(found) == {("fabric", "t00.g0"): "unread"}


# ---------------------------------------------------------------- plan


def make(only: list[str] | None = None, parts: list[str] | None = None, trays: int = 18, in_file: int = 18) -> plan.Plan:
    return plan.make(build.suite(), build.rack(in_file), build.profile(trays), CHECKS, only or [], parts or [])


def test_what_checks_take_by_themselves_is_part_of_the_time() -> None:
    """hbm on a GB300: 47 patterns over 284208 MiB at the 2980 GB/s of a copy, and three seconds to begin."""
    profile = load_profile("gb300-nvl72")
    memory = {"stage": "memory", "steps": [{"check": "hbm", "with": {"seconds": 60}}, "hbm", "inventory"]}
    one = plan.make(build.suite(stages=[memory]), build.rack(18), profile, CHECKS, [], [])
    assert one.seconds() == pytest.approx(60 + 3 + 47 * 284208 * 2**20 / 2980e9 + 3, rel=1e-6)
    assert one.seconds("suspect") == 0


@pytest.mark.parametrize("name", sorted(list_profiles()))
def test_checks_that_load_act_or_read_twice_take_time_of_their_own_and_no_others_do(name: str) -> None:
    profile = load_profile(name)
    toolbox_names = {check.name for check in toolbox.CHECKS} | {"program"}
    twice = ("switch-ports", "link-ends")
    for check in CHECKS.values():
        if check.name not in toolbox_names:
            assert (check.seconds(profile, {}) > 0) == (check.heats or check.acts or check.name in twice), check.name
            assert check.seconds(profile, {}) < 600 or check.acts
        assert check.seconds(profile, {}) <= 3600, "a tool's longest diagnostics are an hour"


def test_the_whole_plan_is_whole() -> None:
    whole = make()
    assert whole.whole
    assert [leg.stage.stage for leg in whole.legs] == ["audit", "idle", "load"]
    assert whole.seconds() == 34
    assert whole.load_seconds(2) == 24


def test_a_plan_with_less_is_not_whole() -> None:
    some = make(parts=["t07", "t[10-11]"])
    assert (some.trays, some.whole) == (("t07", "t10", "t11"), False)
    few = make(only=["ecc"])
    assert ([leg.stage.stage for leg in few.legs], few.whole) == (["idle", "load"], False)
    assert {step.check for leg in few.legs for step in leg.steps} == {"ecc"}
    assert [leg.stage.stage for leg in make(only=["inventory"]).legs] == ["audit"], "nothing is heated for an inventory"
    assert not make(in_file=17).whole, "a rack file that lacks a tray cannot prove the rack"
    nine = plan.make(build.suite(), build.rack(18), build.profile(18, switches=9), CHECKS)
    assert not nine.whole, "nor can one that lacks the switch trays"


def test_a_ramp_stays_before_the_load_that_is_asked_for() -> None:
    stages = [
        {"stage": "idle", "phase": "idle", "for": "10 s", "steps": ["idle-baseline"]},
        {"stage": "ramp", "phase": "ramp", "for": "8 s", "load": {}, "steps": ["thermal-margin"]},
        {"stage": "load", "phase": "load", "for": "24 s", "load": {}, "steps": ["gpu-load"]},
        {"stage": "cool", "phase": "cool", "for": "8 s", "steps": ["ecc"]},
    ]
    some = plan.make(build.suite(stages=stages), build.rack(), build.profile(), CHECKS, ["gpu-load"])
    assert [(leg.index, len(leg.steps)) for leg in some.legs] == [(1, 0), (2, 1)]


@pytest.mark.parametrize(
    ("only", "parts", "says"),
    [
        (["eec"], [], "there is no such check"),
        (["as-found"], [], "does not use it"),
        ([], ["t18"], "no tray"),
        ([], ["t[0"], "cannot be unfolded"),
    ],
)
def test_what_is_not_there_is_said(only: list[str], parts: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says.replace("[", r"\[")):
        make(only, parts)


# ---------------------------------------------------------------- one tray's life


class FakeClock:
    """Time that a test moves; sleepers wake when it passes them."""

    def __init__(self) -> None:
        self.t = 100.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.t + seconds, future))
        await future

    async def pass_time(self, seconds: float) -> None:
        """In steps, letting everything run that becomes due."""
        end = self.t + seconds
        while self.t < end:
            self.t = min(end, self.t + 0.25)
            due = [f for when, f in self._sleepers if when <= self.t]
            self._sleepers = [(when, f) for when, f in self._sleepers if when > self.t]
            for future in due:
                if not future.done():
                    future.set_result(None)
            await settle()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


TABLES = [[["g0", "gpu.temp"], ["g0", "gpu.tlimit"]], [["g0", "ecc.dram_ue"]]]


class FakeAgent:
    """An agent with a spool, behind links that can be cut; time on its tray is 5000 s ahead of ours."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.holder = "H1"
        self.spool: list[wire.Record] = []
        self.links: list[FakeLink] = []
        self.refuse: TrayError | None = None
        self.leases: list[float] = []
        self.stages: list[str] = []
        self.hello: dict[str, Any] = {}
        self.slow = False
        """What was recorded comes when the test says so."""
        self.orders: list[str] = []
        self.late_s, self.trips_s = 0.0, [0.002]
        """How long after it was said hello is taken, and how long answers about the clock take, one after the other."""

    def connect(self, on_records: Callable[[list[wire.Record]], None]) -> FakeLink:
        self.links.append(FakeLink(self, on_records))
        return self.links[-1]

    def mono_ns(self) -> int:
        return int((self.clock.t + 5000) * 1e9)

    def say(self, kind: str, **body: Any) -> None:
        record = wire.Record(kind, "boot", len(self.spool), self.mono_ns(), body)
        self.spool.append(record)
        link = self.links[-1] if self.links else None
        if link is not None and link.up:
            link.heard_s = self.clock.t
            link.on_records([record])

    def sample(self, temp: float | None, margin: float | None) -> None:
        self.say("sample", c=0, n=self.mono_ns(), v=[temp, margin])


class FakeLink:
    def __init__(self, agent: FakeAgent, on_records: Callable[[list[wire.Record]], None]) -> None:
        self.agent, self.on_records = agent, on_records
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard_s = 0.0
        self.up = False
        self._replay: list[wire.Record] = []

    async def open(self, holder: str = "-", seq: int = 0) -> wire.Record:
        if self.agent.refuse is not None:
            raise self.agent.refuse
        self.up, self.heard_s = True, self.agent.clock.t
        body = {"holder": self.agent.holder, "next": len(self.agent.spool), "tables": [], "nvml": None, "xid": None, "kmsg": None}
        body |= self.agent.hello
        self._replay = self.agent.spool[seq if holder == self.agent.holder else 0 :] if not self.agent.slow else []
        hello = wire.Record("hello", "boot", -1, self.agent.mono_ns(), body)
        self.agent.clock.t += self.agent.late_s
        return hello

    async def order(self, verb: str, *, timeout_s: float = 20, ident: str | None = None, **args: Any) -> Any:
        if verb == "clock":
            trip_s = self.agent.trips_s.pop(0) if len(self.agent.trips_s) > 1 else self.agent.trips_s[0]
            said = {"mono_ns": self.agent.mono_ns()}  # all of it on the way back: the worst for whoever takes the middle
            self.agent.clock.t += trip_s
            return said
        self.agent.orders.append(verb)
        if verb == "bye":
            self.cut("")
        return {"tables": TABLES}

    def lease(self, seconds: float, stored_seq: int, stage: str = "") -> None:
        self.agent.leases.append(self.agent.clock.t)
        self.agent.stages.append(stage)
        replay, self._replay = self._replay, self._replay if stored_seq == wire.HELD_BACK else []
        if replay and stored_seq != wire.HELD_BACK:
            asyncio.get_running_loop().call_soon(lambda: self.on_records(replay))

    def cut(self, why: str = "connection lost") -> None:
        self.up = False
        if not self.gone.done():
            self.gone.set_result(why)

    async def close(self) -> None:
        self.cut("closed")


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.agent = FakeAgent(self.clock)
        self.events: list[Attached | Tick | LogLine | TrayState] = []
        self.session = TraySession(
            "t07", self.agent.connect, self.events.append, self.clock, 100.0, 10.0, {"fast_s": 1.0, "slow_s": 5.0}
        )
        self.life = asyncio.ensure_future(self.session.live())

    def states(self) -> list[str]:
        return [e.state for e in self.events if isinstance(e, TrayState)]

    def ticks(self) -> list[Tick]:
        return [e for e in self.events if isinstance(e, Tick)]

    async def live(self, seconds: float, beats: bool = True) -> None:
        for _ in range(int(seconds)):
            if beats:
                self.agent.say("beat", load=[], xid=None, kmsg=None)
            await self.clock.pass_time(1)


async def test_a_tray_is_ready_keeps_its_lease_and_is_sampled() -> None:
    rig = Rig()
    await settle()
    assert rig.states() == ["ready"]
    assert rig.agent.orders == ["sample"]
    await rig.live(5)
    assert len(rig.agent.leases) >= 5
    rig.agent.sample(61.0, 26.0)
    (tick,) = rig.ticks()
    assert tick.columns == (("t07.g0", "gpu.temp"), ("t07.g0", "gpu.tlimit"))
    assert tick.values == (61.0, 26.0)
    assert tick.t_s == pytest.approx(5.0, abs=0.1), "the run's time, although the tray's clock is 5000 s ahead"
    assert rig.session.latest["t07.g0", "gpu.temp"][1] == 61.0
    await rig.session.leave()
    await rig.life
    assert rig.states() == ["ready", "done"]


async def test_a_cut_link_is_lost_and_what_was_recorded_meanwhile_comes_after_it() -> None:
    rig = Rig()
    await settle()
    rig.agent.sample(60.0, 27.0)
    rig.agent.links[-1].cut()
    await rig.clock.pass_time(0.5)
    assert rig.states() == ["ready", "LOST"]
    rig.agent.sample(61.0, 26.0)  # recorded while nobody listened, half a second into the cut
    when = rig.clock.t - 100
    with pytest.raises(TrayError):
        await rig.session.order("identify")
    await rig.clock.pass_time(2)
    assert rig.states() == ["ready", "LOST", "ready"]
    assert [t.values[0] for t in rig.ticks()] == [60.0, 61.0]
    assert rig.ticks()[-1].t_s == pytest.approx(when, abs=0.1), "placed where it was read, not where it arrived"
    rig.life.cancel()


async def test_a_silent_link_is_lost_within_ten_seconds() -> None:
    rig = Rig()
    await settle()
    await rig.live(3)
    await rig.live(int(BEAT_LOST_S) + 2, beats=False)
    assert rig.states()[:2] == ["ready", "LOST"]
    lost = next(e for e in rig.events if isinstance(e, TrayState) and e.state == "LOST")
    assert lost.t_s <= 3 + 10
    assert "nothing was heard" in lost.why
    rig.life.cancel()


async def test_a_run_that_was_blocked_does_not_take_its_trays_for_silent() -> None:
    rig = Rig()
    await settle()
    await rig.live(3)
    rig.clock.t += BEAT_LOST_S + 2  # nothing of the run had a turn
    await rig.live(2, beats=False)
    assert rig.states() == ["ready"]
    await rig.live(2)
    await rig.live(int(BEAT_LOST_S) + 2, beats=False)
    assert rig.states()[:2] == ["ready", "LOST"], "and then as ever"
    rig.life.cancel()


async def test_a_loss_is_said_once_with_its_first_reason() -> None:
    rig = Rig()
    await settle()
    rig.agent.refuse = LinkLost("t07: connection refused")
    rig.agent.links[-1].cut("Connection lost")
    await rig.clock.pass_time(60)
    losses = [e for e in rig.events if isinstance(e, TrayState) and e.state == "LOST"]
    assert len(losses) == 1
    assert "Connection lost" in losses[0].why
    rig.life.cancel()


@pytest.mark.parametrize("error", [HostKeyError("changed"), AgentBusy("held by run x")])
async def test_what_will_not_get_better_is_not_tried_again(error: TrayError) -> None:
    clock_rig = Rig()
    clock_rig.agent.refuse = error
    await settle()
    await clock_rig.life
    assert clock_rig.states() == ["refused"]
    assert clock_rig.session.settled.is_set()


async def test_a_new_agent_behind_the_same_address_is_noticed() -> None:
    rig = Rig()
    await settle()
    for _ in range(5):
        rig.agent.sample(60.0, 27.0)
    rig.agent.links[-1].cut()
    rig.agent.holder, rig.agent.spool = "H2", []
    rig.agent.sample(40.0, 47.0)
    await rig.clock.pass_time(3)
    notes = [e.text for e in rig.events if isinstance(e, LogLine) and e.kind == "link"]
    assert any("a new one has started" in text for text in notes)
    assert rig.ticks()[-1].values[0] == 40.0, "its numbering starts anew"
    assert rig.agent.orders == ["sample", "sample"]
    rig.life.cancel()


async def test_a_fresh_agent_is_told_again_what_to_read_within_a_second_until_its_time_is_over() -> None:
    rig = Rig()
    with pytest.raises(TrayError):
        await rig.session.read_transients(0.2, 4.0)
    await settle()
    assert rig.agent.orders == ["sample", "transient"], "what was wanted before it was there"
    await rig.session.read_transients(0.2, 4.0)
    assert rig.agent.orders == ["sample", "transient", "transient"]
    for _ in range(2):
        rig.agent.links[-1].cut()
        rig.agent.holder, rig.agent.spool = rig.agent.holder + "+", []
        await rig.clock.pass_time(5)
    assert rig.agent.orders[3:] == ["sample", "transient", "sample"]
    rig.life.cancel()


async def test_records_that_were_dropped_before_they_could_be_fetched_are_counted() -> None:
    rig = Rig()
    await settle()
    rig.agent.say("note", text="a")
    rig.agent.spool += [wire.Record("note", "boot", 1 + i, 0, {"text": "x"}) for i in range(3)]
    rig.agent.say("note", text="b")
    (gap,) = (e for e in rig.events if isinstance(e, LogLine) and e.kind == "link")
    assert "3 records were lost" in gap.text
    rig.life.cancel()


async def test_what_was_lost_may_have_been_an_xid() -> None:
    rig = Rig()
    await settle()
    rig.agent.say("beat", load=[], xid=None, kmsg=None)
    assert rig.session.sources == {"xid": None, "kmsg": None}
    rig.agent.spool += [wire.Record("note", "boot", 1 + i, 0, {"text": "x"}) for i in range(3)]
    rig.agent.say("note", text="b")
    told = [(e.code, e.text) for e in rig.events if isinstance(e, LogLine) and e.kind == "source"]
    assert told[-2:] == [("xid", "missing"), ("kmsg", "missing")]
    rig.life.cancel()


async def test_orders_wait_until_what_was_recorded_has_come_and_the_lease_lives_meanwhile() -> None:
    rig = Rig()
    rig.agent.slow, rig.agent.hello = True, {"tables": TABLES, "stage": "soak", "loaded": ["g0"]}
    rig.session.stage = lambda: "soak"
    for n in range(40):
        rig.agent.spool.append(wire.Record("sample", "boot", n, rig.agent.mono_ns(), {"c": 0, "n": n, "v": [float(n), 30.0]}))
    await settle()
    assert rig.session.goes_on == "soak"
    for n in range(40):
        assert not rig.session.ready, "its answers would stand behind all that"
        rig.agent.links[-1].on_records(rig.agent.spool[n : n + 1])
        await rig.clock.pass_time(1)
    assert rig.session.ready
    assert rig.agent.orders == []
    assert len(rig.ticks()) == 40
    assert len(rig.agent.leases) > 40
    assert set(rig.agent.stages) == {"soak"}
    rig.life.cancel()


async def test_what_was_recorded_and_does_not_come_is_a_lost_tray() -> None:
    rig = Rig()
    rig.agent.slow, rig.agent.hello = True, {"tables": TABLES}
    rig.agent.say("note", text="a")
    await settle()
    await rig.clock.pass_time(BEAT_LOST_S + 1)
    assert rig.states() == ["LOST"]
    assert "did not come" in next(e.why for e in rig.events if isinstance(e, TrayState))
    rig.life.cancel()


async def test_when_load_was_first_seen_gone() -> None:
    rig = Rig()
    await settle()
    for t, load in ((1, ["g0"]), (2, ["g0"]), (3, []), (4, []), (5, ["g0"]), (6, [])):
        await rig.clock.pass_time(1)
        rig.agent.say("beat", load=load, xid=None, kmsg=None)
        assert rig.session.unloaded_s == (None if t < 3 else pytest.approx(3, abs=0.1))
    rig.life.cancel()


async def test_xids_cuts_and_absences_become_events() -> None:
    rig = Rig()
    await settle()
    rig.agent.say("absent", c=0, why={"1": "not_supported"})
    rig.agent.sample(60.0, None)
    assert dict(rig.ticks()[-1].absent) == {1: "not_supported"}
    rig.agent.say("event", source="kmsg", gpu="g0", bdf="0008:06:00", code=79, text="fell off")
    rig.agent.say("event", source="kmsg", gpu="", bdf="0000:00:00", code=79, text="whose?")
    rig.agent.say("cut", gpu="g0", why="margin", value=-1.0)
    lines = [(e.part, e.kind, e.code) for e in rig.events if isinstance(e, LogLine) and e.kind not in ("source", "tied")]
    assert lines == [("t07.g0", "xid", "79"), ("t07", "xid", "79"), ("t07.g0", "cut", "margin")]
    rig.life.cancel()


async def test_a_log_that_was_once_not_watched_stays_so() -> None:
    rig = Rig()
    await settle()
    rig.agent.say("beat", load=["g0"], xid="lost", kmsg=None)
    rig.agent.say("beat", load=["g0"], xid=None, kmsg=None)
    assert rig.session.sources == {"xid": "lost", "kmsg": None}
    assert rig.session.loaded == {"t07.g0"}
    rig.life.cancel()


async def test_a_log_that_was_let_go_by_order_can_still_be_lost() -> None:
    rig = Rig()
    await settle()
    for said in ("let go by order", None, "lost", "let go by order"):
        rig.agent.say("beat", load=[], xid=said, kmsg=None)
    assert rig.session.sources == {"xid": "lost", "kmsg": None}
    told = [e.text for e in rig.events if isinstance(e, LogLine) and (e.kind, e.code) == ("source", "xid")]
    assert told == ["", "let go by order", "lost"]
    rig.life.cancel()
