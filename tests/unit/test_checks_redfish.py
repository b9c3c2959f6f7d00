"""The checks that ask Redfish services, on a real tray's tree and real shelves: health passes, each fault fails by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import CHECKS, sel
from burnin.checks.base import Answer, Context, Evidence
from burnin.errors import TrayError
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import load_profile
from burnin.rack.schema import Profile
from burnin.telemetry.bmc import Entry
from burnin.transport import bmcs
from burnin.transport.bmcs import Bmcs
from burnin.transport.https import RedfishError
from burnin.transport.redfish import Redfish
from tests import build
from tests.redfish_files import PASSWORD, Body, Service, capture, needs_captures, serving, tree

Bodies = dict[str, Body]
TRAY = "/redfish/v1/Chassis/Chassis_0"
LOG = "/redfish/v1/Systems/System_0/LogServices/SEL/Entries"
PSUS = "/redfish/v1/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"
SERIAL = "S964512X5913271"
SHELVES = {f"p{i}": {"url": f"https://192.0.2.{90 + i}", "ca": "ca.pem", "secret": "env:X"} for i in range(8)}


class _InMemory(Redfish):
    """The real client's walks over a dictionary."""

    def __init__(self, part: str, bodies: Bodies) -> None:
        self.part, self.bodies = part, bodies

    async def get(self, path: str, timeout_s: float | None = None) -> Body:
        body = self.bodies.get(path.split("?")[0].rstrip("/"))
        if body is None:
            raise RedfishError(f"{self.part}: {path} answers HTTP 404", 404)
        if "failed" in body:
            raise RedfishError(body["failed"], body.get("status"))
        return body

    async def root(self) -> Body:
        return {}


class _Door(Bmcs):
    def __init__(self, services: Mapping[str, Bodies]) -> None:
        super().__init__({})
        self._services = services

    def client(self, part: str) -> Redfish:
        name = part.removesuffix(".bmc")
        if name not in self._services:
            raise TrayError(f"{part}: nobody there")
        return _InMemory(part, self._services[name])


@cache
def profile() -> Profile:
    return load_profile("gb300-nvl72")


def context(check: str, stage: str = "load", trays: tuple[str, ...] = ("t07",), **more: Any) -> Context:
    suite, part = build.suite(), "rack" if CHECKS[check].scope == "rack" else "t07"
    (one,) = (s for s in suite.stages if s.stage == stage)
    rack = build.rack(**{"bmc": SHELVES, "expect": {"t07": {"serial": SERIAL}}, **more.pop("rack", {})})
    return replace(Context(part, rack, profile(), suite, one, build.catalogue(), trays=trays), **more)


async def judged(check: str, services: Mapping[str, Bodies], at: Context | None = None, **more: Any) -> list[Measurement]:
    """Rounds as a run makes them, and the judging of what they brought."""
    one, at, door = CHECKS[check], at or context(check), _Door(services)
    answers: list[tuple[Answer, ...]] = []
    while orders := one.orders(at, answers):
        given = []
        for order in orders:
            assert order.via == "redfish"
            try:
                given.append(Answer(order, True, await door.order(order.to, order.verb, order.args, order.timeout_s)))
            except TrayError as error:
                given.append(Answer(order, False, str(error)))
        answers.append(tuple(given))
        json.dumps([answer.body for answer in given])  # what is stored
    return one.judge(at, Evidence(answers=answers, stretch=build.LOAD, **more))


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def logged(bodies: Bodies, *lines: tuple[str, str]) -> Bodies:
    """A tree with an event log of these (severity, message); the captured tree stops above its logs."""
    service = LOG.rsplit("/", 1)[0]
    rows = {f"{LOG}/{i}": {"@odata.id": f"{LOG}/{i}", "Severity": s, "Message": text} for i, (s, text) in enumerate(lines, 1)}
    at = "/redfish/v1/Systems/System_0/LogServices"
    for path in [path for path in bodies if path.endswith("/LogServices")]:
        bodies[path] = {
            **bodies[path],
            "Members": [{"@odata.id": service}] if path == at else [],
            "Members@odata.count": int(path == at),
        }
    bodies[service] = {"@odata.id": service, "Entries": {"@odata.id": LOG}}
    bodies[LOG] = {"@odata.id": LOG, "Members": [{"@odata.id": path} for path in rows], "Members@odata.count": len(rows)}
    return bodies | rows


def shelf() -> Bodies:
    """A real shelf, loaded to 2.9 kW a supply."""
    root, sensors, psus = (
        capture("powershelf_delta_chassis.json"),
        capture("powershelf_delta_sensors.json"),
        capture("powershelf_delta_psus.json"),
    )
    at = "/redfish/v1/Chassis"
    subsystem = {"@odata.type": "#PowerSubsystem.v1_1_0.PowerSubsystem", "PowerSupplies": {"@odata.id": PSUS}}
    for row in sensors["Members"]:
        if row["@odata.id"].endswith("_output_power") and "standby" not in row["@odata.id"]:
            row["Reading"] = 2900.0
    for row in psus["Members"]:
        del row["Metrics"]  # the capture does not hold them
    return {
        at: {"Members": [{"@odata.id": root["@odata.id"]}]},
        root["@odata.id"]: root,
        root["Sensors"]["@odata.id"]: sensors,
        root["PowerSubsystem"]["@odata.id"]: subsystem,
        PSUS: psus,
    }


def cdu(**change: Any) -> Bodies:
    """A CDU with one connector, as DMTF's schemas have it."""
    at = "/redfish/v1/ThermalEquipment"
    side = {"FlowLitersPerMinute": 80.0, "SupplyTemperatureCelsius": 30.0, "ReturnTemperatureCelsius": 50.0}
    side |= {"SupplyPressurekPa": 300.0, "DeltaPressurekPa": 30.0}
    return {
        at: {"CDUs": {"@odata.id": f"{at}/CDUs"}},
        f"{at}/CDUs": {"Members": [{"@odata.id": f"{at}/CDUs/1"}]},
        f"{at}/CDUs/1": {"SecondaryCoolantConnectors": {"@odata.id": f"{at}/CDUs/1/SecondaryCoolantConnectors"},
                         "Status": {"State": "Enabled", "Health": "OK"}},
        f"{at}/CDUs/1/SecondaryCoolantConnectors": {"Members": [{"@odata.id": f"{at}/CDUs/1/SecondaryCoolantConnectors/A"}]},
        f"{at}/CDUs/1/SecondaryCoolantConnectors/A": {**{k: {"Reading": v} for k, v in side.items()}, **change},
    }  # fmt: skip


# ---------------------------------------------------------------- bmc


@needs_captures
async def test_a_real_healthy_tray_passes() -> None:
    assert bad(await judged("bmc", {"t07": tree()})) == []


def sensor(path: str, **change: Any) -> Callable[[Bodies], None]:
    return lambda bodies: bodies[f"/redfish/v1/Chassis/{path}"].update(change)


@needs_captures
@pytest.mark.parametrize(
    ("plant", "name", "result", "says"),
    [
        (sensor("PDB_0/Sensors/PDB_0_HSC_0_Temp_0", Reading=108), "bmc.sensor", Result.FAIL, "beyond its own Critical"),
        (sensor("Chassis_0/Sensors/Chassis_0_FAN_2_REAR", Reading=0), "bmc.sensor", Result.FAIL, "FAN 2 REAR reads 0 RPM"),
        (sensor("HGX_GPU_3/Sensors/HGX_GPU_3_TEMP_0", Reading=88), "bmc.sensor", Result.UNKNOWN, "the BMC says OK"),
        (sensor("IO_Board_0/Sensors/IO_Board_0_CX8_1_Temp", Reading=None), "bmc.sensors", Result.UNKNOWN, "without a reading"),
        (sensor("BMC_0", Status={"State": "Enabled", "Health": "Critical"}), "bmc.health", Result.FAIL, "BMC_0 is Critical"),
        (sensor("CBC_2", Status={"State": "Enabled", "Health": "Warning"}), "bmc.health", Result.UNKNOWN, "CBC_2 is Warning"),
        (sensor("CBC_2", Status={"State": "Absent", "Health": "Critical"}), None, None, ""),
        (lambda b: b.pop(f"{TRAY}/Sensors/Chassis_0_FAN_2_REAR"), "bmc.sensors", Result.UNKNOWN, "404"),
        (lambda b: b[f"{TRAY}/Sensors"].update(failed="late"), "bmc.sensors", Result.UNKNOWN, "not read: late"),
    ],
)  # fmt: skip
async def test_what_a_bmc_sees(plant: Callable[[Bodies], Any], name: str | None, result: Result | None, says: str) -> None:
    bodies = tree()
    plant(bodies)
    got = await judged("bmc", {"t07": bodies})
    assert bad(got) == ([("t07", name, result)] if name else [])
    assert says in " ".join(m.why for m in got)


@needs_captures
async def test_the_bmc_of_another_tray_is_seen() -> None:
    other = context("bmc", rack={"expect": {"t07": {"serial": "S-NEXT-DOOR"}}})
    (one,) = [m for m in await judged("bmc", {"t07": tree()}, other) if m.name == "bmc.serial"]
    assert one.result is Result.FAIL and SERIAL in str(one.value)


@pytest.mark.parametrize("check", ["bmc", "leak", "power", "coolant", "sel", "firmware"])
@pytest.mark.parametrize("bodies", [None, {}, {"/redfish/v1/Chassis": {"Members": []}, "/redfish/v1/Systems": {"Members": []}}])
async def test_services_that_are_dead_or_say_nothing_pass_and_condemn_nothing(check: str, bodies: Bodies | None) -> None:
    parts = ["t07", "cdu", *SHELVES]
    services = {} if bodies is None else dict.fromkeys(parts, bodies)
    at = loop("rack") if check == "coolant" else context(check, trays=("t07",))
    got = await judged(check, services, at, log=began([]))
    assert got and {m.result for m in got} == {Result.UNKNOWN}


async def test_a_bmc_that_shows_nothing_is_unknown() -> None:
    got = await judged("bmc", {"t07": {"/redfish/v1/Chassis": {"Members": []}}})
    assert {m.result for m in got} == {Result.UNKNOWN}
    gone = await judged("bmc", {})
    assert gone and all(m.result is Result.UNKNOWN for m in gone)


# ---------------------------------------------------------------- leak


def enabled(bodies: Bodies) -> Bodies:
    bodies[f"{TRAY}/Oem/Nvidia/Policies/LeakDetectionPolicy"]["PolicyEnabled"] = True
    return bodies


@needs_captures
async def test_a_dry_tray_passes_and_a_policy_that_is_off_is_said() -> None:
    assert bad(await judged("leak", {"t07": enabled(tree())})) == []
    (one,) = [m for m in await judged("leak", {"t07": tree()}) if m.result is not Result.PASS]
    assert (one.name, one.value, one.result) == ("leak.policy", "disabled", Result.UNKNOWN)


@needs_captures
@pytest.mark.parametrize("detector", ["Chassis_0_LeakDetector_0_Manifold", "Chassis_0_LeakDetector_1_ColdPlate"])
@pytest.mark.parametrize("volts", [1.25, 0.4, 2.2])
async def test_a_voltage_that_is_not_a_dry_ones_fails_though_the_detector_says_ok(detector: str, volts: float) -> None:
    bodies = enabled(tree())
    bodies[f"{TRAY}/Sensors/{detector}"]["Reading"] = volts
    got = await judged("leak", {"t07": bodies})
    assert bad(got) == [("t07", "leak.state", Result.FAIL), ("t07", "leak.voltage", Result.FAIL)]
    assert detector in " ".join(m.why for m in got)


@needs_captures
async def test_a_detector_that_is_missing_silent_or_unread_is_not_dry() -> None:
    at = f"{TRAY}/ThermalSubsystem/LeakDetection/LeakDetectors"
    for plant in (
        {"Status": {"State": "Absent"}},
        {"DetectorState": "Unavailable"},
        {"failed": "late", "status": None},
    ):
        bodies = enabled(tree())
        bodies[f"{at}/Chassis_0_LeakDetector_1_Manifold"].update(plant)
        got = await judged("leak", {"t07": bodies})
        assert "leak.detectors" in {m.name for m in got if m.result is not Result.PASS}, plant
        assert not any(m.result is Result.FAIL for m in got if m.name != "leak.detectors")
    bodies = enabled(tree())
    bodies[at]["Members"] = bodies[at]["Members"][:3]
    bodies[at]["Members@odata.count"] = 3
    assert bad(await judged("leak", {"t07": bodies})) == [("t07", "leak.detectors", Result.UNKNOWN)]
    bodies = enabled(tree())
    del bodies[f"{TRAY}/ThermalSubsystem/LeakDetection"]
    got = await judged("leak", {"t07": bodies})
    assert {m.name for m in got if m.result is not Result.PASS} >= {"leak.detectors", "leak.state", "leak.voltage"}


@needs_captures
async def test_what_was_wet_in_the_stage_is_not_forgotten() -> None:
    past = build.series({("t07", "leak.state"): {build.LOAD: [0.0] * 10 + [1.0] * 2 + [0.0] * 12}})
    assert ("t07", "leak.state", Result.FAIL) in bad(await judged("leak", {"t07": enabled(tree())}, telemetry=past))


# ---------------------------------------------------------------- power


@needs_captures
async def test_healthy_shelves_pass_and_one_that_nobody_named_is_unknown() -> None:
    shelves = {f"p{i}": shelf() for i in range(8)}
    assert bad(await judged("power", shelves)) == []
    lost = {part: bodies for part, bodies in shelves.items() if part != "p3"}
    assert bad(await judged("power", lost)) == [("p3", "shelf.count", Result.UNKNOWN)]
    seven = context("power", rack={"bmc": {part: at for part, at in SHELVES.items() if part != "p5"}})
    assert bad(await judged("power", shelves, seven)) == [("p5", "shelf.count", Result.UNKNOWN)]


@needs_captures
@pytest.mark.parametrize("number", [1, 6])
@pytest.mark.parametrize("watts", [1500.0, 3500.0])
async def test_a_supply_that_does_not_share_is_named(number: int, watts: float) -> None:
    shelves = {f"p{i}": shelf() for i in range(8)}
    for row in shelves["p2"]["/redfish/v1/Chassis/PowerShelf_0/Sensors"]["Members"]:
        if row["@odata.id"].endswith(f"/ps{number}_output_power"):
            row["Reading"] = watts
    assert bad(await judged("power", shelves)) == [(f"p2.u{number - 1}", "psu.share", Result.FAIL)]
    assert bad(await judged("power", shelves, context("power", "idle"))) == []


@needs_captures
async def test_a_supply_that_is_gone_fails_and_its_shelf_with_it() -> None:
    shelves = {f"p{i}": shelf() for i in range(8)}
    shelves["p4"][PSUS]["Members"][2]["Status"] = {"State": "UnavailableOffline", "Health": "Critical"}
    assert bad(await judged("power", shelves)) == [
        ("p4.u2", "psu.works", Result.FAIL), ("p4", "shelf.supplies", Result.FAIL)]  # fmt: skip


@needs_captures
async def test_at_a_tenth_of_its_rating_nothing_is_said_about_sharing() -> None:
    shelves = {f"p{i}": shelf() for i in range(8)}
    for bodies in shelves.values():
        for row in bodies["/redfish/v1/Chassis/PowerShelf_0/Sensors"]["Members"]:
            if row["Reading"] == 2900.0:
                row["Reading"] = 400.0
    assert {m.reason for m in await judged("power", shelves) if m.name == "psu.share"} == {"not_attained"}


# ---------------------------------------------------------------- coolant


def loop(scope: str, **more: Any) -> Context:
    where = {"redfish": "https://192.0.2.80", "ca": "ca.pem", "secret": "env:X", "scope": scope, **more}
    return context("coolant", rack={"coolant": where})


async def test_a_racks_own_loop() -> None:
    assert bad(await judged("coolant", {"cdu": cdu()}, loop("rack"))) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"FlowLitersPerMinute": {"Reading": 40}}, "coolant.flow"),
        ({"FlowLitersPerMinute": {"Reading": 0}}, "coolant.flow"),
        ({"SupplyTemperatureCelsius": {"Reading": 46}}, "coolant.supply_temp"),
        ({"ReturnTemperatureCelsius": {"Reading": 61}}, "coolant.return_temp"),
        ({"SupplyPressurekPa": {"Reading": 20}}, "coolant.pressure"),
        ({"SupplyPressurekPa": {"Reading": 510}}, "coolant.pressure"),
        ({"DeltaPressurekPa": {"Reading": 260}}, "coolant.dp"),
    ],
)
async def test_a_loop_beyond_its_limits(change: Body, name: str) -> None:
    assert bad(await judged("coolant", {"cdu": cdu(**change)}, loop("rack"))) == [("rack", name, Result.FAIL)]
    unread = {key: {"Reading": None} for key in change}
    assert bad(await judged("coolant", {"cdu": cdu(**unread)}, loop("rack"))) == [("rack", name, Result.UNKNOWN)]


async def test_a_rows_flow_is_never_the_racks() -> None:
    got = await judged("coolant", {"cdu": cdu(FlowLitersPerMinute={"Reading": 1200})}, loop("row", serves=["R-1", "R-2"]))
    said = {m.name: (m.part, m.result, m.value) for m in got}
    for name in ("coolant.flow", "coolant.return_temp", "coolant.dp"):
        assert said[name] == ("rack", Result.UNKNOWN, None)
    assert said["coolant.supply_temp"] == ("cdu", Result.PASS, 30.0)
    assert 1200.0 not in [m.value for m in got]


async def test_flow_that_was_lost_for_a_while_in_the_stage() -> None:
    past = build.series({("rack", "coolant.flow"): {build.LOAD: [80.0] * 18 + [12.0] + [80.0] * 5}})
    got = await judged("coolant", {"cdu": cdu()}, loop("rack"), telemetry=past)
    assert bad(got) == [("rack", "coolant.flow", Result.FAIL)] and 12.0 in [m.value for m in got]


async def test_no_cdu_and_none_that_answers() -> None:
    assert {m.result for m in await judged("coolant", {})} == {Result.UNKNOWN}
    assert {m.result for m in await judged("coolant", {}, loop("rack"))} == {Result.UNKNOWN}


# ---------------------------------------------------------------- sel


def began(lines: list[Entry], part: str = "t07.bmc") -> list[LogLine]:
    return [LogLine(part, 0.5, sel.KIND, LOG, sel.note(lines), "controller")]


def entries(*idents: str) -> list[Entry]:
    return [Entry(LOG, ident, "OK", "", "") for ident in idents]


@needs_captures
@pytest.mark.parametrize(
    ("lines", "then", "want"),
    [
        ([("OK", "boot"), ("Critical", "old")], ["1", "2"], {}),
        ([], [], {}),
        ([("OK", "boot"), ("Critical", "Bus Fatal Error")], ["1"], {"sel.critical.growth": Result.FAIL}),
        ([("OK", "boot"), ("Warning", "hot")], ["1"], {"sel.warning.growth": Result.UNKNOWN}),
        ([("OK", "boot"), ("OK", "login")], ["1"], {}),
        ([("OK", "boot")], ["7", "8"], dict.fromkeys(("sel.logs", "sel.critical.growth", "sel.warning.growth"), Result.UNKNOWN)),
        ([("Critical", "x")], [], {"sel.critical.growth": Result.FAIL}),
    ],
)
async def test_what_was_added_to_a_log_is_judged(lines: Any, then: list[str], want: dict[str, Result]) -> None:
    bodies = logged(tree(), *lines)
    got = await judged("sel", {"t07": bodies}, log=began(entries(*then)))
    assert {m.name: m.result for m in got if m.result is not Result.PASS} == want


@needs_captures
async def test_a_log_that_nobody_noted_or_that_cannot_be_read_is_unknown() -> None:
    for log in ((), began([], "t08.bmc")):
        got = await judged("sel", {"t07": logged(tree())}, log=log)
        assert {(m.name, m.result) for m in got} == {(q.name, Result.UNKNOWN) for q in sel.CHECK.quantities}
    got = await judged("sel", {"t07": tree()}, log=began([]))
    assert ("t07", "sel.logs", Result.UNKNOWN) in bad(got), "the captured tree stops above its logs"


def test_newest_first_and_newest_last() -> None:
    note = sel.note(entries("3", "2", "1"))
    assert [line.ident for line in sel.since(note, entries("5", "4", "3", "2", "1"))[0]] == ["5", "4"]
    assert [line.ident for line in sel.since(sel.note(entries("1", "2")), entries("1", "2", "3"))[0]] == ["3"]
    assert "gone" in sel.since(note, entries("3", "1"))[1]
    assert "was not read" in sel.since(sel.note([], "late"), [])[1]


# ---------------------------------------------------------------- firmware


def trays(**change: str) -> dict[str, Bodies]:
    """Four trays; `change`: tray -> version of its HGX_FW_BMC_0."""
    out = {f"t{i:02}": tree() for i in range(4)}
    for name, version in change.items():
        out[name]["/redfish/v1/UpdateService/FirmwareInventory/HGX_FW_BMC_0"]["Version"] = version
    return out


FOUR = ("t00", "t01", "t02", "t03")


@needs_captures
async def test_the_same_everywhere_or_exactly_what_differs() -> None:
    at = context("firmware", trays=FOUR)
    assert bad(await judged("firmware", trays(), at)) == []
    got = await judged("firmware", trays(t02="9.9"), at)
    assert bad(got) == [("t02", "firmware.version", Result.UNKNOWN)]
    assert "HGX_FW_BMC_0 is 9.9, on t[00-01,03] it is" in got[0].why


@needs_captures
async def test_against_a_baseline_a_difference_is_bad() -> None:
    stated = tree()["/redfish/v1/UpdateService/FirmwareInventory/HGX_FW_BMC_0"]["Version"]
    at = context("firmware", trays=FOUR, rack={"firmware_audit": {"HGX_FW_BMC_0": stated}})
    assert bad(await judged("firmware", trays(), at)) == []
    assert bad(await judged("firmware", trays(t01="9.9"), at)) == [("t01", "firmware.version", Result.FAIL)]
    own = replace(at, args={"baseline": {"HGX_FW_BMC_0": "9.9", "NOT_THERE": "1"}})
    found = bad(await judged("firmware", trays(), own))
    assert {(part, result) for part, _, result in found} == {(t, r) for t in FOUR for r in (Result.FAIL, Result.UNKNOWN)}


@needs_captures
async def test_a_tray_whose_inventory_is_not_read_is_unknown() -> None:
    some = trays()
    del some["t03"]
    assert bad(await judged("firmware", some, context("firmware", trays=FOUR))) == [("t03", "firmware.audit", Result.UNKNOWN)]
    broken = trays()
    del broken["t01"]["/redfish/v1/UpdateService/FirmwareInventory/CX8_2"]
    found = bad(await judged("firmware", broken, context("firmware", trays=FOUR)))
    assert ("t01", "firmware.audit", Result.UNKNOWN) in found and ("t01", "firmware.version", Result.UNKNOWN) in found


# ---------------------------------------------------------------- a server that is not ours


@needs_captures
async def test_a_real_tree_served_as_files_is_read_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inventory, thermal, leak, power and logs over TLS from a plain server of the standard library."""
    monkeypatch.setattr(bmcs, "REQUEST_S", 60.0)

    async def over(service: Service, check: str) -> list[Measurement]:
        door, at, answers = Bmcs({"t07": service.at()}), context(check), list[tuple[Answer, ...]]()
        try:
            while orders := CHECKS[check].orders(at, answers):
                (order,) = orders
                answers.append((Answer(order, True, await door.order(order.to, order.verb, order.args, 60)),))
        finally:
            await door.close()
        log = began(entries("1"))
        return CHECKS[check].judge(at, Evidence(answers=answers, stretch=build.LOAD, log=log))

    with serving(tmp_path, logged(enabled(tree()), ("OK", "boot"), ("OK", "a login"))) as service:
        for check in ("bmc", "leak", "sel", "firmware"):
            assert bad(await over(service, check)) == [], check
        assert PASSWORD not in " ".join(service.asked)
