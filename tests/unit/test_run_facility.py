"""What is read beside the tests: polled on a clock of the test's, kept as telemetry, and what interlocks make of it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from burnin.checks import sel
from burnin.errors import TrayError
from burnin.events import LogLine, Tick
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.run import interlocks
from burnin.run.facility import KEPT_ROUNDS, Facility
from burnin.telemetry import watched
from burnin.telemetry.watched import Said
from tests import build
from tests.redfish_files import needs_captures, tree
from tests.unit.test_checks_redfish import LOG, PSUS, SERIAL, SHELVES, TRAY, Bodies, _Door, cdu, enabled, logged, shelf

PROFILE = load_profile("gb300-nvl72")
TODAY = dt.date(2026, 11, 21)
COOLANT = {"redfish": "https://192.0.2.80", "ca": "ca.pem", "secret": "env:X", "scope": "rack"}


class Beat:
    """A clock that the test moves, one sleep after the other."""

    def __init__(self) -> None:
        self.t = 100.0
        self.asleep: list[asyncio.Future[None]] = []

    def now(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        self.asleep.append(asyncio.get_running_loop().create_future())
        await self.asleep[-1]

    async def on(self, seconds: float) -> None:
        """Time passes, and everybody does one round."""
        self.t += seconds
        woken, self.asleep = self.asleep, []
        for one in woken:
            one.set_result(None)
        for _ in range(400):
            await asyncio.sleep(0)


class Bench:
    """A Facility over trees in memory."""

    def __init__(self, services: dict[str, Bodies], rack: Rack | None = None, spoken: Any = lambda part, metric: False) -> None:
        self.services, self.clock, self.events = services, Beat(), list[Tick | LogLine]()
        rack = rack or build.rack(coolant=COOLANT)
        self.facility = Facility(self.ask, list(services), rack, self.events.append, self.clock, 100.0, 5.0, spoken)
        self.dead: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def ask(self, part: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        self.asked.append((part, verb))
        if part in self.dead:
            raise TrayError(f"{part}: no answer")
        return await _Door(self.services).order(part, verb, args, timeout_s)

    async def rounds(self, *changes: Callable[[], Any]) -> None:
        """One round, then a change and a round each."""
        task = asyncio.ensure_future(self.facility.live())
        try:
            await self.clock.on(0)
            for change in changes:
                change()
                await self.clock.on(5)
        finally:
            task.cancel()

    def ticks(self, tray: str) -> list[dict[tuple[str, str], float | None]]:
        return [dict(zip(e.columns, e.values, strict=True)) for e in self.events if isinstance(e, Tick) and e.tray == tray]

    def log(self, kind: str) -> list[LogLine]:
        return [e for e in self.events if isinstance(e, LogLine) and e.kind == kind]


# ---------------------------------------------------------------- polling


@needs_captures
async def test_a_real_tray_becomes_readings_of_its_parts() -> None:
    bench = Bench({"t07": logged(tree(), ("OK", "boot"))})
    await bench.rounds(lambda: bench.services["t07"][f"{TRAY}/Sensors/Chassis_0_LeakDetector_1_Manifold"].update(Reading=1.1))
    first, second = bench.ticks("t07")
    assert first == {
        ("t07", "leak.state"): 0.0,
        ("t07", "leak.voltage"): 1.7313,
        ("t07", "tray.power"): pytest.approx(1349.263802),
        ("t07.c0", "cpu.temp"): 37.312,
        ("t07.c1", "cpu.temp"): 37.375,
    }
    assert (second["t07", "leak.state"], second["t07", "leak.voltage"]) == (1.0, 1.1)
    assert [(line.part, line.code, line.text) for line in bench.log(sel.KIND)] == [
        ("t07.bmc", LOG, '{"count": 1, "first": "1", "last": "1"}')
    ]
    assert bench.asked.count(("t07", "walk")) == 2 and len(bench.asked) <= 7, "walked once, logs once, then asked little"


@needs_captures
async def test_what_the_agent_reads_is_not_read_twice() -> None:
    bench = Bench({"t07": tree()}, spoken=lambda part, metric: metric == "cpu.temp")
    await bench.rounds()
    assert {metric for _, metric in bench.ticks("t07")[0]} == {"leak.state", "leak.voltage", "tray.power"}


@needs_captures
async def test_a_bmc_that_goes_is_lost_once_and_comes_back() -> None:
    bench = Bench({"t07": tree()})
    await bench.rounds(lambda: bench.dead.add("t07"), lambda: None, lambda: bench.dead.clear())
    assert [(line.code, line.part) for line in bench.log("bmc")] == [("lost", "t07.bmc"), ("back", "t07.bmc")]
    assert len(bench.ticks("t07")) == 2 and bench.facility.now("t07").why == ""


@needs_captures
async def test_one_dead_bmc_keeps_nobody_waiting() -> None:
    bench = Bench({"t07": tree(), "p2": shelf(), "cdu": cdu()})
    bench.dead.add("t07")
    await bench.rounds(lambda: None)
    assert bench.facility.settled and bench.facility.now("t07").why == "t07: no answer"
    assert bench.ticks("p2")[1][("p2.u3", "psu.power")] == 2900.0
    assert bench.ticks("rack")[1] == {
        ("rack", "coolant.supply_temp"): 30.0, ("rack", "coolant.return_temp"): 50.0, ("rack", "coolant.flow"): 80.0,
        ("rack", "coolant.dp"): 30.0, ("rack", "coolant.pressure"): 300.0,
    }  # fmt: skip


async def test_a_rows_loop_never_speaks_of_the_rack() -> None:
    bench = Bench({"cdu": cdu()}, build.rack(coolant={**COOLANT, "scope": "row", "serves": ["R-1", "R-2"]}))
    await bench.rounds()
    parts = {part for e in bench.events if isinstance(e, Tick) for part, _ in e.columns}
    assert parts == {"cdu"} and "coolant.flow" not in {metric for _, metric in bench.ticks("cdu")[0]}


@needs_captures
async def test_a_detector_that_falls_silent_is_null_and_not_dry() -> None:
    bench = Bench({"t07": tree()})
    at = f"{TRAY}/ThermalSubsystem/LeakDetection/LeakDetectors/Chassis_0_LeakDetector_1_Manifold"
    await bench.rounds(lambda: bench.services["t07"].pop(at))
    assert [tick["t07", "leak.state"] for tick in bench.ticks("t07")] == [0.0, None]
    last = [e for e in bench.events if isinstance(e, Tick)][-1]
    assert "missing" in last.absent.values()


@needs_captures
async def test_what_is_too_old_does_not_stand_for_now() -> None:
    bench = Bench({"t07": tree()})
    await bench.rounds()
    assert bench.facility.now("t07").why == ""
    bench.clock.t += KEPT_ROUNDS * 5 + 61
    assert "was last read" in bench.facility.now("t07").why and bench.facility.now("t07").bodies == {}
    assert "not been read yet" in Bench({"t08": {}}).facility.now("t08").why


def test_questions_are_few() -> None:
    assert watched.questions("t07", {}) == watched.Questions()
    assert watched.begin("cdu")["from"] == ["/redfish/v1/ThermalEquipment"]


# ---------------------------------------------------------------- interlocks


def identities() -> dict[str, Any]:
    return {
        f"t{i:02}": {"gpus": [{"chassis": "C1", "tray_index": i}] * 4, "host": {"serial": SERIAL if i == 7 else f"S{i}"}}
        for i in range(18)
    }


def flat(bodies: Bodies) -> Bodies:
    """With the members that a shelf gives inside its collections under their own paths, as the client hands them on."""
    rows = [row for body in bodies.values() for row in body.get("Members", ()) if len(row) > 1]
    return bodies | {row["@odata.id"]: row for row in rows}


@cache
def sound() -> Bodies:
    """A healthy tray, which nobody changes."""
    return enabled(tree())


def said(**change: Any) -> dict[str, Said]:
    """All services of a healthy rack; `change`: part -> bodies, or why it says nothing."""
    out = {}
    for i in range(18):
        path = "/redfish/v1/Systems/System_0"
        out[f"t{i:02}"] = Said(0.0, {**sound(), path: {**sound()[path], "SerialNumber": SERIAL if i == 7 else f"S{i}"}})
    out |= {f"p{i}": Said(0.0, flat(shelf())) for i in range(8)} | {"cdu": Said(0.0, cdu())}
    for part, how in change.items():
        out[part] = Said(0.0, {}, how) if isinstance(how, str) else Said(0.0, how)
    return out


def rack(**more: Any) -> Rack:
    bmc = {f"t{i:02}": {"url": f"https://192.0.2.{i + 100}", "ca": "c", "secret": "env:X"} for i in range(18)}
    return build.rack(**{"bmc": bmc | SHELVES, "coolant": COOLANT, **more})


SWITCHES = {f"s{i}": "" for i in range(9)}
NAMES = [name for name in PROFILE.interlocks if name not in ("gpu_margin", "fabric")]


def evaluate(
    services: Mapping[str, Said], switches: Mapping[str, str] = SWITCHES, of: Rack | None = None
) -> list[interlocks.Interlock]:
    profile = PROFILE.model_copy(update={"interlocks": NAMES})
    return interlocks.evaluate(profile, of or rack(), TODAY, identities(), {}, services, switches)


def off(found: list[interlocks.Interlock]) -> set[tuple[str, str, str]]:
    return {(one.name, one.part, one.state) for one in found if not one.allows}


@needs_captures
def test_a_healthy_rack_may_be_loaded() -> None:
    found = evaluate(said())
    assert off(found) == set() and interlocks.refusal(found) is None
    assert {one.name for one in found} == set(NAMES)


def wet(sensor: str = "Chassis_0_LeakDetector_0_Manifold") -> Bodies:
    bodies = enabled(tree())
    bodies["/redfish/v1/Systems/System_0"]["SerialNumber"] = SERIAL
    bodies[f"{TRAY}/Sensors/{sensor}"]["Reading"] = 0.6
    return bodies


def changed(path: str, **change: Any) -> Bodies:
    bodies = enabled(tree())
    bodies["/redfish/v1/Systems/System_0"]["SerialNumber"] = SERIAL
    bodies[path].update(change)
    return bodies


POLICY = f"{TRAY}/Oem/Nvidia/Policies/LeakDetectionPolicy"
CONNECTOR = "/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/A"


def psu(**status: str) -> Bodies:
    bodies = shelf()
    bodies[PSUS]["Members"][4]["Status"] = status
    return flat(bodies)


@needs_captures
@pytest.mark.parametrize(
    ("change", "want", "refused"),
    [
        (lambda: {"t07": wet()}, {("leak", "rack", "bad"), ("leak", "t07", "bad")}, "t07 leaks"),
        (lambda: {"t07": "late"},
         {("leak", "t07", "unread"), ("leak_policy", "t07", "unread"), ("rack_identity", "t07", "unread")}, None),
        (lambda: {"t07": changed(POLICY, PolicyEnabled=False)}, {("leak_policy", "t07", "bad")}, None),
        (lambda: {"t07": changed("/redfish/v1/Systems/System_0", SerialNumber="S-NEXT")}, {("rack_identity", "t07", "bad")},
         "the BMC of t07 belongs to"),
        (lambda: {"cdu": "no answer"},
         {("coolant_flow", "rack", "unread"), ("coolant_supply", "rack", "unread"), ("coolant_pressure", "rack", "unread")},
         "coolant_flow, coolant_supply, coolant_pressure: no answer"),
        (lambda: {"cdu": cdu(FlowLitersPerMinute={"Reading": 20})}, {("coolant_flow", "rack", "bad")}, "flow is 20 L/min"),
        (lambda: {"cdu": cdu(FlowLitersPerMinute={})}, {("coolant_flow", "rack", "unread")}, "does not say coolant.flow"),
        (lambda: {"cdu": cdu(SupplyTemperatureCelsius={"Reading": 47})}, {("coolant_supply", "rack", "bad")}, "47 Cel"),
        (lambda: {"cdu": cdu(SupplyPressurekPa={"Reading": 10})}, {("coolant_pressure", "rack", "bad")}, "10 kPa"),
        (lambda: {"p3": "no answer"}, {("power_shelves", "rack", "unread")}, "no answer"),
        (lambda: {"p3": psu(State="UnavailableOffline", Health="Critical")},
         {("power_shelves", "rack", "bad"), ("power_shelves", "p3", "bad")},
         "p3: 5 is Unav"),
        (lambda: {"p3": psu(State="Enabled")}, {("power_shelves", "rack", "unread")}, "5 of 6 supplies"),
    ],
)  # fmt: skip
def test_what_is_wrong_refuses_load(change: Callable[[], Any], want: set[tuple[str, str, str]], refused: str | None) -> None:
    found = evaluate(said(**change()))
    assert off(found) == want
    assert (refused in (interlocks.refusal(found) or "")) if refused else interlocks.refusal(found) is None
    kept = interlocks.loadable(found, ["t07.g0", "t08.g0"])
    assert refused or kept == ["t08.g0"]


@needs_captures
def test_a_leak_of_a_tray_that_is_not_in_the_run_refuses_too() -> None:
    found = evaluate({**said(), "s4": Said(0.0, wet())})
    assert ("leak", "rack", "bad") in off(found)


@needs_captures
def test_the_same_on_every_tray_is_said_of_the_rack() -> None:
    services = {part: replace(one, bodies={**one.bodies, POLICY: {"PolicyEnabled": False}}) for part, one in said().items()}
    found = evaluate(services)
    assert off(found) == {("leak_policy", "rack", "bad")}
    assert "disabled" in (interlocks.refusal(found) or "")


@needs_captures
def test_a_rows_flow_does_not_open_the_way() -> None:
    row = rack(coolant={**COOLANT, "scope": "row", "serves": ["R-1", "R-2"]})
    assert off(evaluate(said(), of=row)) == {("coolant_flow", "rack", "unread")}
    waived = row.model_copy(update={"waive": rack(waive=[WAIVER]).waive})
    assert off(evaluate(said(), of=waived)) == set()


WAIVER = {"interlock": "coolant_flow", "by": "A. Person", "why": "watched at the panel", "until": "2026-12-31"}


@needs_captures
@pytest.mark.parametrize(
    ("room", "want"),
    [
        ({"TemperatureCelsius": 27.0, "HumidityPercent": {"Reading": 60.0}}, "good"),  # dew point 18.6 Cel
        ({"TemperatureCelsius": 35.0, "HumidityPercent": {"Reading": 70.0}}, "bad"),  # 28.7 Cel, and the coolant has 30
        ({"DewPointCelsius": {"Reading": 27.9}}, "good"),
        ({"DewPointCelsius": {"Reading": 28.1}, "HumidityPercent": 1.0, "TemperatureCelsius": 20.0}, "bad"),
        ({"DewPointCelsius": {"Reading": None}}, "unread"),
        ({"TemperatureCelsius": 27.0, "HumidityPercent": {"Reading": 0.0}}, "unread"),
    ],
)
def test_where_the_room_is_measured_coolant_must_be_warmer_than_its_dew_point(room: dict[str, Any], want: str) -> None:
    bodies = cdu()
    bodies["/redfish/v1/ThermalEquipment/CDUs/1"]["EnvironmentMetrics"] = {"@odata.id": "/air"}
    assert ("/air", None) in watched.questions("cdu", bodies).single
    found = evaluate({**said(), "cdu": Said(0.0, {**bodies, "/air": room})})
    (dew,) = (one for one in found if one.name == "dew_point")
    assert (dew.part, dew.state) == ("rack", want)
    assert (interlocks.refusal(found) is None) == (want == "good")


def test_nobody_is_asked_for_a_room_that_is_not_measured() -> None:
    assert "dew_point" not in {one.name for one in evaluate(said())}


def test_switch_trays_are_there_or_load_is_refused() -> None:
    assert off(evaluate(said(), {**SWITCHES, "s4": "no route"})) == {("switch_trays", "rack", "bad")}
    eight = {part: why for part, why in SWITCHES.items() if part != "s8"}
    assert off(evaluate(said(), eight)) == {("switch_trays", "rack", "unread")}


def test_a_rack_file_that_names_nobody_refuses_all() -> None:
    found = evaluate({}, {}, build.rack())
    names = {"coolant_flow", "coolant_supply", "coolant_pressure", "leak", "leak_policy", "power_shelves", "switch_trays"}
    assert off(found) == {(name, "rack", "unread") for name in names}
