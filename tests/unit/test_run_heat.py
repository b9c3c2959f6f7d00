"""Load ordered up, pulsed and down: who is told what, at which moment, and what is written down of it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any, cast

import pytest

from burnin.checks.base import Order
from burnin.errors import TrayError
from burnin.events import LogLine
from burnin.rack.load import load_profile
from burnin.rack.schema import Profile
from burnin.run import plan
from burnin.run.heat import LEAD_S, Heat
from burnin.run.job import Event, Job, Keeper
from burnin.run.steps import eased
from burnin.run.sync import tie
from burnin.run.tray import TraySession
from burnin.suites.schema import Load
from tests import build


class Clock:
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.t = 100.0

    def now(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.t += seconds
        await asyncio.sleep(0)


class Tray:
    """A tray that loads what it is told to, with a clock `ahead_s` of ours, and an answer that takes `trip_s` of them."""

    def __init__(self, name: str, clock: Clock, ahead_s: float = 0.0, trips_s: tuple[float, ...] = (0.002,)) -> None:
        self.name, self.clock, self.ahead_s, self.trips_s = name, clock, ahead_s, trips_s
        self.ready, self.loaded = True, set[str]()
        self.heard: list[tuple[float, str, dict[str, Any]]] = []
        self.mute = ""

    async def order(self, verb: str, timeout_s: float = 20.0, **args: Any) -> Any:
        self.heard.append((round(self.clock.now() - 100.0, 3), verb, args))
        if verb in self.mute.split():
            raise TrayError(f"{self.name} does not answer")
        if verb == "load":
            self.loaded |= {f"{self.name}.{gpu}" for gpu in args["gpus"]}
        elif verb == "unload":
            self.loaded -= {f"{self.name}.{gpu}" for gpu in args["gpus"]} if "gpus" in args else set(self.loaded)
        elif verb == "clock":
            trip = self.trips_s[sum(v == "clock" for _, v, _ in self.heard) % len(self.trips_s)]
            self.clock.t += 0.25 * trip
            said = {"mono_ns": int((self.clock.t + self.ahead_s) * 1e9)}
            self.clock.t += 0.75 * trip
            return said
        return {}


class Bench:
    """A rack of these trays on a shipped profile; `lines` is what was written down."""

    def __init__(self, trays: int = 3, profile: Profile | None = None, power: dict[str, Any] | None = None) -> None:
        self.clock, self.lines = Clock(), list[LogLine]()
        self.trays = {f"t{i:02}": Tray(f"t{i:02}", self.clock, 1000.0 * i) for i in range(trays)}
        self.latest: dict[tuple[str, str], float] = {}
        profile = profile or load_profile("gb300-nvl72")
        self.job = Job(
            plan.Plan((), tuple(self.trays), (), True), build.rack(trays, power=power or {}), profile, build.suite(),
            build.catalogue(), cast("dict[str, TraySession]", self.trays), self._knock, cast("Keeper", self), self.clock, 100.0,
            dt.date(2026, 11, 21),
        )  # fmt: skip
        self.heat = Heat(self.job, lambda tray, part, metric: self.latest.get((part, metric)), self._wait_until)
        self.gpus = [gpu for tray in self.trays for gpu in profile.topology.gpus(tray)]

    async def _knock(self, part: str) -> None:
        raise AssertionError(part)

    async def _wait_until(self, end_s: float) -> None:
        for _ in range(3):  # what was ordered before gets its turn first
            await asyncio.sleep(0)
        if not self.job.stop.is_set():  # as the run's own: it does not wait when it is to end
            self.clock.t = max(self.clock.t, 100.0 + end_s)

    def event(self, event: Event) -> None:
        assert isinstance(event, LogLine)
        self.lines.append(event)

    def up(self, load: Load | None = None, over_s: float = 0.0) -> None:
        asyncio.run(self.heat.up(load or Load(), self.gpus, 0.0, over_s, {"kernel": "tensor_burn", "max_s": 60.0}))

    def down(self, **how: Any) -> None:
        asyncio.run(self.heat.down(list(self.trays), **how))

    def heard(self, verb: str) -> list[tuple[float, str, list[str]]]:
        found = [(at, tray.name, args.get("gpus", [])) for tray in self.trays.values() for at, v, args in tray.heard if v == verb]
        return sorted(found, key=lambda one: (one[0], one[1]))

    def said(self, kind: str, code: str) -> list[str]:
        return [line.text for line in self.lines if (line.kind, line.code) == (kind, code)]


RATE = {"max": 5.6, "unit": "kW/s", "source": "a tray a second"}
ALL = ["g0", "g1", "g2", "g3"]


def test_trays_are_loaded_one_after_the_other_as_fast_as_the_rack_bears() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.up()
    assert bench.heard("load") == [(0.0, "t00", ALL), (1.0, "t01", ALL), (2.0, "t02", ALL)], (
        "5.6 kW each: nothing is read, so all counts"
    )
    assert bench.said("ramp", "up") == [f"t{i:02}.g[0-3]; all GPUs may now draw {5.6 * (i + 1):.1f} kW" for i in range(3)]


def test_what_gpus_draw_already_need_not_be_brought_up() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.latest = {
        (gpu, metric): value for gpu in bench.gpus for metric, value in (("gpu.power", 700.0), ("gpu.power_limit", 1400.0))
    }
    bench.up()
    assert [at for at, _, _ in bench.heard("load")] == [0.0, 0.5, 1.0]


def test_a_stage_may_take_longer_but_never_less() -> None:
    slow, quick = Bench(power={"rack.power_rate": RATE}), Bench(power={"rack.power_rate": RATE})
    slow.up(over_s=30.0)
    quick.up(over_s=0.3)
    assert [at for at, _, _ in slow.heard("load")] == [0.0, 10.0, 20.0]
    assert [at for at, _, _ in quick.heard("load")] == [0.0, 1.0, 2.0]


def test_gpus_that_burn_already_are_left_alone_and_counted() -> None:
    bench = Bench(power={"rack.power_rate": RATE, "rack.power": {"max": 34.2 + 2 * 5.6, "unit": "kW", "source": "a weak shelf"}})
    bench.trays["t01"].loaded = {f"t01.{gpu}" for gpu in ALL}
    bench.up()
    assert [tray for _, tray, _ in bench.heard("load")] == ["t00"]
    assert bench.said("ramp", "refused") == [f"t02.{gpu} is not loaded: 11.2 kW are all that GPUs may draw here" for gpu in ALL]


def test_a_tray_that_cannot_be_asked_is_taken_for_loaded() -> None:
    bench = Bench(power={"rack.power": {"max": 34.2 + 2 * 5.6, "unit": "kW", "source": "a weak shelf"}})
    bench.trays["t02"].ready = False
    bench.gpus = bench.gpus[:8]
    bench.up()
    assert [tray for _, tray, _ in bench.heard("load")] == ["t00"]


def test_a_gpu_of_unknown_power_is_not_loaded() -> None:
    bench = Bench(profile=load_profile("vr200-nvl72"))
    bench.latest = {("t00.g1", "gpu.power_limit"): 1800.0}
    bench.up()
    assert bench.heard("load") == [(0.0, "t00", ["g1"])]
    assert len(bench.said("ramp", "refused")) == 11


def test_a_profile_that_states_no_limit_loads_nothing() -> None:
    bench = Bench(profile=build.profile(3))
    assert "rack.power" in str(bench.heat.allowed())
    bench.up()
    assert bench.heard("load") == []


def test_load_falls_tray_by_tray_when_planned_and_at_once_when_not() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.up()
    begin = bench.clock.t - 100.0
    bench.down()
    falls = [(at - begin, tray) for at, tray, gpus in bench.heard("unload") if gpus]
    assert falls == [(0.0, "t02"), (1.0, "t01"), (2.0, "t00")]
    assert bench.said("ramp", "down")[-1].endswith("0.0 kW of load are left")
    bench.up()
    begin = bench.clock.t - 100.0
    bench.down(at_once=True)
    assert {at - begin for at, _, gpus in bench.heard("unload") if not gpus and at >= begin} == {0.0}


def test_load_falls_tray_by_tray_when_the_run_is_stopped_as_planned() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.up()
    begin = bench.clock.t - 100.0
    bench.job.stop.set()
    bench.job.gently = lambda: bench.clock.t - 100.0 < begin + 1.4
    bench.down()
    falls = [(round(at - begin, 1), tray) for at, tray, gpus in bench.heard("unload") if gpus]
    assert falls == [(0.0, "t02"), (1.0, "t01")], "and at once from when somebody asked for more than that"
    assert not any(tray.loaded for tray in bench.trays.values())
    assert bench.clock.t - 100.0 < begin + 1.6


def test_a_controller_that_stood_still_does_not_make_good_for_it_at_once() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    begun = bench.event

    def stood(event: Event) -> None:  # while the first tray is told
        begun(event)
        bench.clock.t += 5.0 if len(bench.said("ramp", "up")) == 1 or len(bench.said("ramp", "down")) == 1 else 0.0

    bench.event = stood  # type: ignore[method-assign]
    bench.up()
    assert [at for at, _, _ in bench.heard("load")] == [5.0, 6.0, 7.0], "each waits for its second"
    begin = bench.clock.t - 100.0
    bench.down()
    falls = [round(at - begin, 1) for at, _, gpus in bench.heard("unload") if gpus]
    assert falls == [5.0, 6.0, 7.0]


def test_a_stop_in_the_middle_of_a_fall_ends_it() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.up()
    begin = bench.clock.t
    bench.job.stop.set()
    bench.down()
    assert bench.clock.t == begin
    assert not any(tray.loaded for tray in bench.trays.values())


def test_another_kind_of_load_is_brought_down_first() -> None:
    bench = Bench()
    assert not bench.heat.changes(Load())
    bench.up(Load(stagger=True))
    assert not bench.heat.changes(Load())
    assert bench.heat.changes(Load(kernel="fma"))
    assert bench.heat.changes(None)
    bench.down()
    assert not bench.heat.changes(None)


# ---------------------------------------------------------------- clocks and pulses


def test_a_clock_is_known_to_half_the_fastest_round_trip() -> None:
    clock = Clock()
    tray = Tray("t00", clock, 5000.0, (0.4, 0.004, 0.1))
    known = asyncio.run(tie(tray, clock))
    assert known.within_s == pytest.approx(0.002)
    assert abs(known.offset_s - 5000.0) <= known.within_s
    assert known.mono_ns(100.0) == pytest.approx(5100e9, abs=2e6)


def test_an_agent_that_does_not_know_the_order_is_no_clock() -> None:
    class Old(Tray):
        async def order(self, verb: str, timeout_s: float = 20.0, **args: Any) -> Any:
            return "?"

    clock = Clock()
    with pytest.raises(TrayError, match="answered"):
        asyncio.run(tie(Old("t00", clock), clock))


def pulsed(bench: Bench) -> dict[str, dict[str, Any]]:
    """GPU -> the wave that its agent was told, with its first edge in our own seconds since the run began."""
    out = {}
    for tray in bench.trays.values():
        for _, verb, args in tray.heard:
            if verb == "load":
                for gpu, wave in args["pulse"].items():
                    out[f"{tray.name}.{gpu}"] = {**wave, "first_s": wave["first_ns"] / 1e9 - tray.ahead_s - 100.0}
    return out


def test_every_tray_is_told_its_edges_in_its_own_time() -> None:
    bench = Bench(
        power={name: {"max": 100, "unit": "kW/s", "source": "strong"} for name in ("rack.power_rate", "loop.heat_rate")}
    )
    bench.up(Load.model_validate({"pulse": {"period": "4 s", "duty": 0.25}}))
    waves = pulsed(bench)
    assert set(waves) == set(bench.gpus)
    assert {(wave["period_ns"], wave["on_ns"]) for wave in waves.values()} == {(4_000_000_000, 1_000_000_000)}
    firsts = [wave["first_s"] for wave in waves.values()]
    assert max(firsts) - min(firsts) <= 0.002, "their clocks are 1000 s apart, and known to 1 ms"
    assert min(firsts) > LEAD_S
    assert bench.said("pulse", "sync_ms") == ["1.000"] * 3


def test_a_swing_that_the_rack_does_not_bear_is_spread_over_the_period() -> None:
    bench = Bench(power={"rack.power_rate": RATE})
    bench.up(Load.model_validate({"pulse": {"period": "4 s"}}))
    phases = {
        tray: {round(w["first_s"] % 4.0, 1) for part, w in pulsed(bench).items() if part.startswith(tray)} for tray in bench.trays
    }
    assert all(len(one) == 1 for one in phases.values()), "a tray is a group"
    assert len(set.union(*phases.values())) == 3


def test_a_tray_whose_clock_is_not_known_is_not_pulsed() -> None:
    bench = Bench()
    bench.trays["t01"].mute = "clock"
    bench.up(Load.model_validate({"pulse": {"period": "4 s"}}))
    assert {part[:3] for part in pulsed(bench)} == {"t00", "t02"}
    assert bench.said("load", "refused") == ["its clock is not known: t01 does not answer"]


def test_a_clock_that_drifts_is_seen_at_the_end_of_the_pulses() -> None:
    bench = Bench()
    bench.up(Load.model_validate({"pulse": {"period": "4 s"}}))
    bench.trays["t02"].ahead_s += 0.030
    asyncio.run(bench.heat.drift())
    asyncio.run(bench.heat.drift())
    last = [(line.part, float(line.text)) for line in bench.lines if line.code == "sync_ms"][3:]
    assert [part for part, _ in last] == ["t00", "t01", "t02"]
    assert last[0][1] < 5
    assert last[2][1] == pytest.approx(31, abs=2)


# ---------------------------------------------------------------- checks that load by themselves


WORK = {"kind": "digest", "gpus": ["g0", "g1"], "max_s": 20.0, "args": {"seed": 1}, "args_of": {"g1": {"x": 1}}}
DELAYS = {"t00.g0": 0.0, "t00.g1": 0.5, "t01.g0": 1.0, "t01.g1": 1.5}


def test_work_begins_gpu_by_gpu_and_is_given_the_time_that_this_takes() -> None:
    one = eased(Order("t01", "work", WORK, timeout_s=30.0), DELAYS, follows=False)
    assert one.args["args_of"] == {"g0": {"after_s": 1.0}, "g1": {"x": 1, "after_s": 1.5}}
    assert (one.args["max_s"], one.timeout_s) == (23.0, 33.0)
    later = eased(Order("t01", "work", WORK), DELAYS, follows=True)
    assert later.args["args_of"] == {"g0": {"after_s": 0.0}, "g1": {"x": 1, "after_s": 0.5}}


def test_ranks_of_a_collective_ease_in_all_alike() -> None:
    orders = [eased(Order(tray, "work", {**WORK, "kind": "nccl"}), DELAYS, follows=False) for tray in ("t00", "t01")]
    assert [order.args["args"] for order in orders] == [{"seed": 1, "ease_s": 1.5}] * 2
    assert all("after_s" not in of for order in orders for of in order.args["args_of"].values())


@pytest.mark.parametrize("order", [Order("t00", "tell", {"bodies": {}}), Order("t00", "identify"), Order("t00", "work", WORK)])
def test_what_does_not_heat_or_need_not_wait_is_left_as_it_is(order: Order) -> None:
    assert eased(order, {}, follows=False) is order
