"""What the guard reads of Redfish services: leaks, the rack's coolant, shelves; what is not read, and who is not there to ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnin.rack.load import RackFile, load_profile
from burnin.rack.schema import Rack
from burnin.run import guard_redfish
from burnin.run.guard_redfish import Coolant, Leaks, Shelf, Source, sources
from burnin.run.guard_rules import Seen, Watch
from burnin.run.guard_stale import Follows
from tests.redfish_files import Body, needs_captures, serving, tree

RULES = load_profile("gb300-nvl72").guard
ROOT = "/redfish/v1"
UNIT = f"{ROOT}/ThermalEquipment/CDUs/1"
SHELF = f"{ROOT}/Chassis/P"
OK = {"Health": "OK", "State": "Enabled"}


def collection(path: str, *names: str) -> Body:
    return {"@odata.id": path, "Members": [{"@odata.id": f"{path}/{name}"} for name in names]}


def loop(flow: float | None = 100.0, supply: float | None = 30.0, back: float | None = 45.0) -> dict[str, Body]:
    connector = f"{UNIT}/SecondaryCoolantConnectors"
    values = {"FlowLitersPerMinute": flow, "SupplyTemperatureCelsius": supply, "ReturnTemperatureCelsius": back}
    body = {name: {"Reading": value} for name, value in values.items() if value is not None}
    return {
        ROOT: {"@odata.id": ROOT},
        f"{ROOT}/ThermalEquipment": {"CDUs": {"@odata.id": f"{ROOT}/ThermalEquipment/CDUs"}},
        f"{ROOT}/ThermalEquipment/CDUs": collection(f"{ROOT}/ThermalEquipment/CDUs", "1"),
        UNIT: {"@odata.id": UNIT, "SecondaryCoolantConnectors": {"@odata.id": connector}, "Status": OK},
        connector: collection(connector, "1"),
        f"{connector}/1": {"@odata.id": f"{connector}/1", "Status": OK, **body},
    }


def shelf(*health: str) -> dict[str, Body]:
    supplies, names = f"{SHELF}/PowerSubsystem/PowerSupplies", [str(i) for i in range(len(health))]
    return {
        ROOT: {"@odata.id": ROOT},
        f"{ROOT}/Chassis": collection(f"{ROOT}/Chassis", "P"),
        SHELF: {"@odata.id": SHELF, "PowerSubsystem": {"@odata.id": f"{SHELF}/PowerSubsystem"}},
        f"{SHELF}/PowerSubsystem": {"PowerSupplies": {"@odata.id": supplies}},
        supplies: collection(supplies, *names),
        **{
            f"{supplies}/{n}": {"@odata.id": f"{supplies}/{n}", "Status": {"Health": h, "State": "Enabled"}}
            for n, h in zip(names, health, strict=True)
        },
    }


def rack(scope: str = "rack", **more: Any) -> RackFile:
    coolant = {"redfish": "https://192.0.2.1", "ca": "ca.pem", "secret": "env:X", "scope": scope}
    made = Rack.model_validate(
        {"rack": "R-1", "profile": "gb300-nvl72", "trays": {"t00": {"host": "h"}}, "coolant": coolant, **more}
    )
    return RackFile(Path("rack.yaml"), made, load_profile("gb300-nvl72"))


async def watched(source: Source, seen: list[Seen], until: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(source.live())
    try:
        async with asyncio.timeout(10):
            while not until():
                await asyncio.sleep(0.02)
                assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await source.close()
    assert all(one.before_s <= one.at_s for one in seen)


def last(seen: list[Seen]) -> dict[str, float | str | None]:
    return {one.name: one.value for one in seen}


@needs_captures
async def test_a_real_trays_detectors_are_found_polled_and_a_wet_one_is_seen_at_once(tmp_path: Path) -> None:
    bodies = tree()
    (detector,) = (path for path in bodies if path.endswith("LeakDetectors/Chassis_0_LeakDetector_0_Manifold"))
    seen: list[Seen] = []
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)

        def wetten() -> bool:
            if len(seen) == 3:
                bodies[detector]["DetectorState"] = "Critical"
            return bool(seen) and seen[-1].value not in (None, "OK")

        await watched(source, seen, wetten)
    assert [one.value for one in seen[:3]] == ["OK"] * 3
    assert source.first_s is not None
    assert str(seen[-1].value).startswith("wet: Chassis_0_LeakDetector_0_Manifold says Critical")
    polls = [line for line in service.asked if "LeakDetectors" in line and "expand" in line]
    assert len(polls) >= 3, "leak detectors alone"
    (trip,) = Watch(RULES).see(seen[-1])
    assert (trip.part, trip.target) == ("t07", "rack")
    assert "no leak detector is there" not in trip.why


@needs_captures
async def test_a_detector_that_says_dry_is_not_believed_against_its_voltage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the four detectors of a real tray one says OK and Enabled while it reads 0.9 V, below its own threshold."""
    monkeypatch.setattr(guard_redfish, "VOLTS_S", 0.1)
    bodies, seen = tree(), list[Seen]()
    (sensor,) = (path for path in bodies if path.endswith("Sensors/Chassis_0_LeakDetector_0_Manifold"))
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)

        def wetten() -> bool:
            if len(seen) == 3:
                bodies[sensor]["Reading"] = 0.9
            return bool(seen) and seen[-1].value not in (None, "OK")

        await watched(source, seen, wetten)
    assert [one.value for one in seen[:3]] == ["OK"] * 3
    assert str(seen[-1].value).startswith(
        "wet: Chassis_0_LeakDetector_0_Manifold reads 0.9 V, beyond its Critical threshold of 1.3 V"
    )
    assert seen[-1].at_s - seen[-1].before_s >= 0.1, "at most so long it was so: since the voltages were asked for before"
    (trip,) = Watch(RULES).see(seen[-1])
    assert (trip.part, trip.target) == ("t07", "rack")


@needs_captures
@pytest.mark.parametrize("status", [404, 503])
async def test_a_detector_without_a_voltage_has_only_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Where no sensor is it is asked for once; one that cannot be had just now is asked for again."""
    monkeypatch.setattr(guard_redfish, "VOLTS_S", 0.05)
    bodies, seen = tree(), list[Seen]()
    sensors = [path for path in bodies if "/Sensors/" in path and "LeakDetector" in path]
    trouble: dict[str, list[str | int]] = {path: [status] * 200 for path in sensors}
    with serving(tmp_path / "bmc", bodies, trouble=trouble) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)

        def asked() -> int:
            return sum("Sensors/Chassis_0_LeakDetector_0_Manifold" in line for line in service.asked)

        await watched(source, seen, lambda: len(seen) > 4 and (status == 404 or asked() > 1))
        assert status == 503 or asked() == 1
    assert {one.value for one in seen} == {"OK"}


@needs_captures
async def test_a_sensor_that_a_bmc_does_not_have_yet_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BMC that starts says 404 for a while: its voltages are believed once they are there."""
    monkeypatch.setattr(guard_redfish, "VOLTS_S", 0.05)
    monkeypatch.setattr(guard_redfish, "NO_SENSOR_S", 0.2)
    bodies, seen = tree(), list[Seen]()
    (sensor,) = (path for path in bodies if path.endswith("Sensors/Chassis_0_LeakDetector_0_Manifold"))
    bodies[sensor]["Reading"] = 0.9
    with serving(tmp_path / "bmc", bodies, trouble={sensor: [404, 404]}) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)
        await watched(source, seen, lambda: bool(seen) and seen[-1].value not in (None, "OK"))
    assert seen[0].value == "OK" and "reads 0.9 V" in str(seen[-1].value)


@needs_captures
@pytest.mark.parametrize(
    "change", [{"Reading": None}, {"Reading": 0.0, "Status": {"State": "UnavailableOffline", "Health": "OK"}}, {"Reading": "?"}]
)
async def test_a_voltage_that_reads_nothing_ends_no_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Body) -> None:
    """The detector says that it is enabled and dry; a sensor that is away is no leak, and not unread for ten seconds either."""
    monkeypatch.setattr(guard_redfish, "VOLTS_S", 0.02)
    bodies, seen = tree(), list[Seen]()
    (sensor,) = (path for path in bodies if path.endswith("Sensors/Chassis_0_LeakDetector_0_Manifold"))
    bodies[sensor].update(change)
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)
        at = f"GET {sensor}"
        await watched(source, seen, lambda: len(seen) > 4 and sum(at in line for line in service.asked) > 1)
    assert {one.value for one in seen} == {"OK"}


@needs_captures
async def test_a_detector_that_cannot_be_read_is_not_dry(tmp_path: Path) -> None:
    bodies, seen = tree(), list[Seen]()
    for path, body in bodies.items():
        if "/LeakDetectors/" in path:
            body["Status"] = {"State": "UnavailableOffline"}
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)
        await watched(source, seen, lambda: len(seen) > 1)
    assert {one.value for one in seen} == {None}
    assert "UnavailableOffline" in source.why
    assert source.first_s is None


async def test_a_tray_without_detectors_and_a_bmc_that_is_gone_are_not_dry(tmp_path: Path) -> None:
    seen: list[Seen] = []
    bodies = {ROOT: {"@odata.id": ROOT}, f"{ROOT}/Chassis": collection(f"{ROOT}/Chassis")}
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None)
        await watched(source, seen, lambda: bool(seen))
        there = service.at(part="t08")
    assert seen[-1].value is None and "leak cannot be found: its service has none" in seen[-1].why
    gone = Leaks(there, seen.append, lambda: None)
    await watched(gone, seen, lambda: seen[-1].part == "t08")
    assert seen[-1].value is None and gone.why


@pytest.mark.parametrize(
    ("bodies", "scope", "expected"),
    [
        (loop(), "rack", {"coolant_flow": 100.0, "coolant_supply": 30.0, "coolant_rise": 15.0}),
        (loop(flow=None), "rack", {"coolant_flow": None, "coolant_supply": 30.0, "coolant_rise": 15.0}),
        (loop(back=None), "rack", {"coolant_flow": 100.0, "coolant_supply": 30.0, "coolant_rise": None}),
        (loop(supply=None), "rack", {"coolant_flow": 100.0, "coolant_supply": None, "coolant_rise": None}),
        (loop(), "row", {"coolant_flow": None, "coolant_supply": 30.0, "coolant_rise": None}),
    ],
    ids=["whole", "no flow", "no return", "no supply", "a row's"],
)
async def test_the_racks_coolant_and_never_a_rows(
    tmp_path: Path, bodies: dict[str, Body], scope: str, expected: dict[str, float | None]
) -> None:
    seen: list[Seen] = []
    with serving(tmp_path / "cdu", bodies) as service:
        source = Coolant(service.at(part="cdu"), seen.append, lambda: None, rack(scope))
        await watched(source, seen, lambda: len(seen) >= 3)
    assert last(seen) == expected
    assert all((one.why == "") is (one.value is not None) for one in seen), "what is read needs no excuse"
    if scope == "row":
        assert "the row's CDU does not measure this rack's coolant" in {one.why for one in seen if one.value is None}


@pytest.mark.parametrize(
    ("health", "out", "trips"), [(("OK", "OK", "OK"), 0.0, 0), (("OK", "Critical", "OK"), 1.0, 0), (("Critical",) * 3, 3.0, 1)]
)
async def test_supplies_that_do_not_work_are_counted(tmp_path: Path, health: tuple[str, ...], out: float, trips: int) -> None:
    seen: list[Seen] = []
    with serving(tmp_path / "shelf", shelf(*health)) as service:
        source = Shelf(service.at(part="p4"), seen.append, lambda: None)
        await watched(source, seen, lambda: bool(seen))
    assert last(seen) == {"power_shelves": out}
    assert len(Watch(RULES).see(seen[0])) == trips
    assert seen[0].why == ""


async def test_an_event_brings_the_next_look_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_redfish, "SURE_S", 30.0)
    stream = f"{ROOT}/EventService/SSE"
    event = b'data: {"Events": [{"MessageId": "x"}]}\n\n'
    detectors = f"{ROOT}/Chassis/C/ThermalSubsystem/LeakDetection/LeakDetectors"
    bodies: dict[str, Body] = {
        ROOT: {"@odata.id": ROOT, "EventService": {"@odata.id": f"{ROOT}/EventService"}},
        f"{ROOT}/EventService": {"ServiceEnabled": True, "ServerSentEventUri": stream},
        f"{ROOT}/Chassis": collection(f"{ROOT}/Chassis", "C"),
        f"{ROOT}/Chassis/C": {"ThermalSubsystem": {"@odata.id": f"{ROOT}/Chassis/C/ThermalSubsystem"}},
        f"{ROOT}/Chassis/C/ThermalSubsystem": {"LeakDetection": {"@odata.id": detectors.removesuffix("/LeakDetectors")}},
        detectors.removesuffix("/LeakDetectors"): {"LeakDetectors": {"@odata.id": detectors}},
        detectors: collection(detectors, "D0"),
        f"{detectors}/D0": {"@odata.id": f"{detectors}/D0", "DetectorState": "OK", "Status": OK},
    }
    seen: list[Seen] = []
    with serving(tmp_path / "bmc", bodies, events=[event]) as service:
        source = Leaks(service.at(part="t00"), seen.append, lambda: None)
        await watched(source, seen, lambda: len(seen) >= 3)
        assert any("SSE" in line for line in service.asked)
    assert {one.value for one in seen} == {"OK"}


async def test_a_leaking_tray_is_switched_off_through_its_own_bmc(tmp_path: Path) -> None:
    target = f"{ROOT}/Systems/S/Actions/ComputerSystem.Reset"
    bodies = {
        ROOT: {"@odata.id": ROOT},
        f"{ROOT}/Systems": collection(f"{ROOT}/Systems", "S"),
        f"{ROOT}/Systems/S": {"@odata.id": f"{ROOT}/Systems/S", "Actions": {"#ComputerSystem.Reset": {"target": target}}},
    }
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t03"), lambda one: None, lambda: None)
        assert await source.power_off() == f"t03 was switched off by its BMC ({target})"
        await source.close()
    assert service.bodies == [{"ResetType": "ForceOff"}]


def test_who_is_not_in_the_rack_file_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "secret")
    nobody = RackFile(tmp_path / "r.yaml", rack().rack.model_copy(update={"coolant": None}), rack().profile)
    found, blind = sources(nobody, RULES, ["t00", "t01"], lambda one: None, lambda: None)
    assert found == []
    assert blind == {
        "leak": "the rack file names no BMC of t00, t01",
        "coolant_flow": "the rack file names no CDU (coolant:)",
        "coolant_supply": "the rack file names no CDU (coolant:)",
        "coolant_rise": "the rack file names no CDU (coolant:)",
        "power_shelves": "the rack file names no power shelf (bmc:)",
    }
    only_agents = {name: RULES[name] for name in ("gpu_margin", "tray_lost")}
    assert sources(nobody, only_agents, ["t00"], lambda one: None, lambda: None) == ([], {})


@needs_captures
async def test_a_tray_that_draws_what_it_drew_before_a_step_of_its_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_redfish, "POWER_S", 0.05)
    bodies, seen = tree(), list[Seen]()
    total = f"{ROOT}/Chassis/Chassis_0/EnvironmentMetrics"
    assert bodies[total]["PowerWatts"]["Reading"] == pytest.approx(1349.3, abs=0.1)
    drawn = {"t07": 200.0}
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None, Follows(300.0), drawn.get)

        def told() -> list[float]:
            return [float(one.value or 0) for one in seen if one.name == "bmc_stale"]

        def stands_still() -> bool:
            if sum("Chassis_0/EnvironmentMetrics" in line for line in service.asked) >= 4:
                drawn["t07"] = 1400.0
            if told() and told()[-1] > 0.2:
                bodies[total]["PowerWatts"] = {"Reading": 6000.5}
            return max(told(), default=0) > 0.2 and told()[-1] == 0

        await watched(source, seen, stands_still)
    assert told()[:3] == [0, 0, 0]
    said = next(one for one in seen if one.name == "bmc_stale" and one.value)
    assert said.part == "t07.bmc" and "it says 1349.26 W of its tray as before" in said.why
    assert said.at_s - said.before_s == pytest.approx(float(said.value or 0))


@needs_captures
async def test_what_a_tray_draws_at_rest_is_known_before_its_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for the first time after 5 s, a BMC that was stale all along had its tray's load for its rest: PASS, with a leak."""
    monkeypatch.setattr(guard_redfish, "POWER_S", 3600.0)
    monkeypatch.setattr(guard_redfish, "AGAIN_S", 0.02)
    seen, drawn, at_rest = list[Seen](), dict[str, float](), Follows(300.0)
    with serving(tmp_path / "bmc", tree()) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None, at_rest, drawn.get)

        def known() -> bool:
            told = [one for one in seen if one.name == "bmc_stale"]
            if len(told) == 3 and not drawn:
                drawn["t07"] = 200.0  # its agent is heard now
            return at_rest.known

        assert not at_rest.known
        await watched(source, seen, known)
    assert drawn, "it was asked again, for as long as nobody knew what its GPUs draw"


@needs_captures
@pytest.mark.parametrize("there", [True, False])
async def test_a_sensor_stands_in_for_a_chassis_that_tells_no_power_and_without_both_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    for name in ("POWER_S", "NO_SENSOR_S"):
        monkeypatch.setattr(guard_redfish, name, 0.05)
    bodies, seen = tree(), list[Seen]()
    for path, body in bodies.items():
        if path.endswith("/EnvironmentMetrics"):
            body.pop("PowerWatts", None)
    (total,) = (path for path in bodies if "TotalHSC" in path)
    if not there:
        bodies[total]["Reading"] = None
    drawn = {"t07": 200.0}
    with serving(tmp_path / "bmc", bodies) as service:
        source = Leaks(service.at(part="t07"), seen.append, lambda: None, Follows(300.0), drawn.get)

        def asked() -> bool:
            times = sum("TotalHSC" in line for line in service.asked)
            if times >= 4:
                drawn["t07"] = 1400.0
            return times >= 9

        await watched(source, seen, asked)
    assert any(one.value for one in seen if one.name == "bmc_stale") == there
    assert all(one.value == "OK" for one in seen if one.name == "leak")
