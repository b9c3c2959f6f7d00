"""What Redfish bodies say, read from a real tray, two real shelves, mockups of a CDU, and bodies that are wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnin.telemetry import bmc, facility
from tests.redfish_files import Body, capture, needs_captures, tree

TRAY = "/redfish/v1/Chassis/Chassis_0"
DETECTORS = f"{TRAY}/ThermalSubsystem/LeakDetection/LeakDetectors"
POLICY = f"{TRAY}/Oem/Nvidia/Policies/LeakDetectionPolicy"
PLATE = "Chassis_0_LeakDetector_0_ColdPlate"
ABSENT_BAY = "/redfish/v1/Chassis/StorageBackplane_0/Sensors/StorageBackplane_0_SSD_1_Temp_0"


def members(body: Body) -> dict[str, Body]:
    return {row["@odata.id"]: row for row in body["Members"]}


# ---------------------------------------------------------------- a real tray


@needs_captures
def test_a_healthy_tray_crosses_nothing_and_its_empty_bays_are_absent() -> None:
    found = bmc.sensors(tree())
    assert len(found) == 266 and [s.name for s in found if s.crossed] == []
    assert [s.path for s in found if s.absent and "SSD" not in s.path] == []
    assert sum(s.absent for s in found) == 8 and all(s.reading is None for s in found if s.absent)
    assert list(bmc.unhealthy(tree())) == []
    gpu = next(s for s in found if s.path.endswith("HGX_GPU_2_TEMP_0"))
    assert (gpu.reading, gpu.unit, gpu.measures, gpu.says) == (32.84375, "Cel", "Temperature", "OK")


@needs_captures
@pytest.mark.parametrize(
    ("sensor", "reading", "level", "limit"),
    [
        ("HGX_GPU_2/Sensors/HGX_GPU_2_TEMP_0", 88.0, "Caution", "<= 87 Cel"),
        ("HGX_GPU_1/Sensors/HGX_GPU_1_TEMP_1", -4.5, "Critical", ">= -4 Cel"),
        ("PDB_0/Sensors/PDB_0_HSC_0_Temp_0", 111, "Fatal", "<= 110 Cel"),
        ("Chassis_0/Sensors/Chassis_0_FAN_3_REAR", 0, "Critical", ">= 2204 RPM"),
    ],
)
def test_a_threshold_that_is_crossed_is_seen_whatever_health_says(sensor: str, reading: float, level: str, limit: str) -> None:
    bodies = tree()
    path = f"/redfish/v1/Chassis/{sensor}"
    bodies[path]["Reading"] = reading
    (bad,) = [s for s in bmc.sensors(bodies) if s.crossed]
    assert (bad.path, bad.says, bad.crossed, bad.limit) == (path, "OK", level, limit)


@needs_captures
def test_leaks_and_policy_of_a_real_tray() -> None:
    bodies = tree()
    found = bmc.detectors(bodies)
    assert [(d.name, d.wet, d.volts, d.low, d.high) for d in found] == [
        ("Chassis_0_LeakDetector_0_ColdPlate", False, 1.7265, 1.3, 2.0),
        ("Chassis_0_LeakDetector_0_Manifold", False, 1.7248, 1.3, 2.0),
        ("Chassis_0_LeakDetector_1_ColdPlate", False, 1.7313, 1.3, 2.0),
        ("Chassis_0_LeakDetector_1_Manifold", False, 1.7265, 1.3, 2.0),
    ]
    assert bmc.leaking(found) is False and bmc.lowest_volts(found) == 1.7313
    policy = bmc.leak_policy(bodies)
    assert policy.enabled is False and "LeakDetectionPolicy is disabled" in policy.why
    bodies[POLICY]["PolicyEnabled"] = True
    assert bmc.leak_policy(bodies).enabled is True
    del bodies[POLICY]["PolicyConditions"][2]
    assert bmc.leak_policy(bodies) == bmc.LeakPolicy(
        False, "LeakDetectionPolicy does not watch Chassis_0_LeakDetector_1_ColdPlate"
    )
    assert bmc.system_serials(bodies) == {"S964512X5913271", "1653125034241"}
    assert bmc.tray_power(bodies) == pytest.approx(1349.263802)


@needs_captures
@pytest.mark.parametrize(
    ("change", "leaks", "says"),
    [
        ({"detector": {"DetectorState": "Critical"}}, True, "says Critical"),
        ({"detector": {"DetectorState": "LeakDetected"}}, True, "says LeakDetected"),
        ({"detector": {"DetectorState": "OK", "Status": {"State": "Enabled", "Health": "Critical"}}}, True, "health Critical"),
        ({"sensor": {"Reading": 1.1}}, True, "reads 1.1 V, beyond its Critical threshold of 1.3 V, and says OK"),
        ({"sensor": {"Reading": 2.6}}, True, "reads 2.6 V"),
        ({"sensor": {"Reading": None}}, None, "is not read"),
        ({"sensor": {"Reading": 0.0, "Status": {"State": "UnavailableOffline", "Health": "OK"}}}, None, "is not read"),
        ({"detector": {"DetectorState": "Unavailable"}}, None, "says Unavailable"),
        ({"detector": {"DetectorState": None}}, None, "says nothing"),
        ({"detector": {"Status": {"State": "Absent", "Health": "OK"}}}, None, "is Absent"),
        ({"detector": {"failed": "t07.bmc: late", "status": None}}, None, "late"),
    ],
)
def test_a_detector_is_dry_only_when_it_says_so_and_its_voltage_agrees(change: Any, leaks: bool | None, says: str) -> None:
    bodies = tree()
    bodies[f"{DETECTORS}/{PLATE}"].update(change.get("detector", {}))
    bodies[f"{TRAY}/Sensors/{PLATE}"].update(change.get("sensor", {}))
    found = bmc.detectors(bodies)
    assert bmc.leaking(found) is leaks
    assert says in next(d.why for d in found if d.name == PLATE)


@needs_captures
@pytest.mark.parametrize("other", ["Chassis_9", "AAA_0"])
def test_a_detector_has_its_own_chassis_voltage(other: str) -> None:
    """Two chassis whose detectors have one name: the dry one's voltage does not speak for the wet one."""
    bodies = tree()
    bodies[f"{TRAY}/Sensors/{PLATE}"]["Reading"] = 0.9
    for path in (f"{DETECTORS}/{PLATE}", f"{TRAY}/Sensors/{PLATE}"):
        bodies[path.replace("Chassis/Chassis_0", f"Chassis/{other}")] = {**bodies[path], "Reading": 1.7}
    wet = [one.wet for one in bmc.detectors(bodies) if one.name == PLATE]
    assert sorted(map(str, wet)) == ["False", "True"]


def test_no_detector_is_not_dry() -> None:
    assert bmc.leaking(bmc.detectors({})) is None
    gone = {DETECTORS: {"failed": "HTTP 500", "status": 500}}
    assert bmc.leaking(bmc.detectors(gone)) is None
    assert bmc.leak_policy({}).enabled is None
    assert bmc.leak_policy({POLICY: {"failed": "late"}}) == bmc.LeakPolicy(None, "late")


@needs_captures
def test_the_detectors_of_the_exporter() -> None:
    """Reduced by hand by its authors: a detector that says LeakDetected."""
    dry, wet = capture("lambda_leak_detector_ok.json"), capture("lambda_leak_detector_LEAK.json")
    found = bmc.detectors({body["@odata.id"]: body for body in (dry, wet)})
    assert {d.name: d.wet for d in found} == {PLATE: False, "Chassis_0_LeakDetector_1_Manifold": True}


@needs_captures
def test_firmware_of_a_real_tray() -> None:
    found = bmc.firmware({p: b for p, b in tree().items() if "FirmwareInventory" in p})
    assert len(found) > 20 and found["HGX_FW_GPU_3"] == "97.10.3E.00.05"
    assert found["AB86B73D_8D56_41E4_971E_B11DB71F2E33"] == "2.1b"


def test_log_entries_stand_under_their_log() -> None:
    log = "/redfish/v1/Systems/System_0/LogServices/SEL/Entries"
    bodies: dict[str, Body] = {
        log: {"Members": []},
        f"{log}/1": {"Severity": "OK", "Message": "fan", "Created": "2026-01-01T00:00:00Z"},
        f"{log}/2": {"Severity": "Critical", "MessageId": "OpenBMC.0.1"},
        "/redfish/v1/Managers/B/LogServices/J/Entries": {"failed": "late"},
        f"{log}#/3": {"failed": "says 9, gives 2"},
    }
    found = bmc.entries(bodies)
    assert [(e.ident, e.severity, e.text) for e in found[log]] == [("1", "OK", "fan"), ("2", "Critical", "OpenBMC.0.1")]
    assert list(found) == [log] and len(bmc.failures(bodies)) == 2


# ---------------------------------------------------------------- shelves


@needs_captures
def test_two_makers_shelves_are_read_alike() -> None:
    delta = facility.shelf(members(capture("powershelf_delta_psus.json")) | members(capture("powershelf_delta_sensors.json")))
    assert [(s.number, s.works, s.watts, s.capacity_w) for s in delta.supplies] == [
        (i, True, watts, 5504) for i, watts in enumerate([326, 239, 338, 248, 252, 278])
    ]
    liteon = facility.shelf(members(capture("powershelf_liteon_psus.json")) | members(capture("powershelf_liteon_sensors.json")))
    assert [(s.number, s.works, s.watts, s.capacity_w) for s in liteon.supplies] == [
        (i, True, watts, 5500) for i, watts in enumerate([711, 625, 621, 698, 642, 633])
    ]


@needs_captures
@pytest.mark.parametrize(
    ("change", "works"),
    [
        ({"Status": {"State": "Absent", "Health": None}}, False),
        ({"Status": {"State": "UnavailableOffline", "Health": "OK"}}, False),
        ({"Status": {"State": "Enabled", "Health": "Warning"}}, False),
        ({"PowerState": False}, False),
        ({"Status": {"State": "Enabled"}}, None),
        ({"Status": None}, None),
        ({"failed": "late"}, None),
    ],
)
def test_a_supply_works_only_when_it_says_so(change: Body, works: bool | None) -> None:
    bodies = members(capture("powershelf_delta_psus.json"))
    bodies["/redfish/v1/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies/3"].update(change)
    found = {s.number: s.works for s in facility.shelf(bodies).supplies}
    assert found == {0: True, 1: True, 2: works, 3: True, 4: True, 5: True}


@needs_captures
def test_metrics_that_a_shelf_names_and_does_not_have_are_missed_only_where_no_sensor_says_the_same() -> None:
    """Delta's shelf, whose metrics answer 404: the output of its supplies stands in its sensors."""
    psus, sensors = members(capture("powershelf_delta_psus.json")), members(capture("powershelf_delta_sensors.json"))
    lost = {f"{path}/Metrics": {"failed": f"{path}/Metrics answers HTTP 404"} for path in psus}
    assert facility.shelf(psus | sensors | lost).unread == ()
    del sensors["/redfish/v1/Chassis/PowerShelf_0/Sensors/ps3_output_power"]
    found = facility.shelf(psus | sensors | lost)
    assert len(found.unread) == 1 and "/3/Metrics" in found.unread[0] and found.supplies[2].watts is None


@needs_captures
def test_redundancy_that_is_lost_is_said() -> None:
    body = capture("gofish_powersubsystem_nvidia.json")
    assert facility.shelf({body["@odata.id"]: body}).redundancy == ()
    body["PowerSupplyRedundancy"][0]["Status"]["Health"] = "Critical"
    found = facility.shelf({body["@odata.id"]: body})
    assert found.redundancy == ("redundancy NPlusM is Critical",)


# ---------------------------------------------------------------- coolant


def connectors(*changes: Body) -> dict[str, Body]:
    side = {
        "SupplyTemperatureCelsius": {"Reading": 25.0},
        "ReturnTemperatureCelsius": {"Reading": 48.0},
        "FlowLitersPerMinute": {"Reading": 60.0},
        "SupplyPressurekPa": {"Reading": 300.0},
        "DeltaPressurekPa": {"Reading": 20.0},
        "Status": {"State": "Enabled", "Health": "OK"},
    }
    at = "/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors"
    return {f"{at}/{i}": {**side, **change} for i, change in enumerate(changes)}


@needs_captures
def test_the_connector_of_the_mockup() -> None:
    body = capture("dmtf_CoolantConnector.json")
    found = facility.loop({body["@odata.id"]: body}, "rack")
    assert isinstance(found, facility.RackLoop)
    assert (found.flow, found.supply_temp, found.return_temp, found.pressure, found.dp) == (24.3, 14.8, 38.2, 426.6, 31.7)


def test_connectors_of_one_rack_add_up_and_one_unread_leaves_no_sum() -> None:
    two = facility.loop(connectors({}, {"FlowLitersPerMinute": {"Reading": 30}, "SupplyTemperatureCelsius": 26}), "rack")
    assert isinstance(two, facility.RackLoop) and (two.flow, two.supply_temp, two.dp) == (90.0, 26.0, 20.0)
    half = facility.loop(connectors({}, {"FlowLitersPerMinute": {"Reading": None}}), "rack")
    assert isinstance(half, facility.RackLoop) and half.flow is None and half.supply_temp == 25.0
    lost = facility.loop(
        connectors({}) | {"/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/9": {"failed": "late"}}, "rack"
    )
    assert isinstance(lost, facility.RackLoop) and lost.flow is None and lost.unread == ("late",)


def test_the_connector_that_names_the_rack_is_the_racks() -> None:
    found = facility.loop(connectors({"UserLabel": "R-0001"}, {"UserLabel": "R-0002"}), "rack", "R-0001")
    assert isinstance(found, facility.RackLoop) and found.flow == 60.0


def test_a_rows_loop_has_no_flow_at_all() -> None:
    """Not None, which might be filled in: there is no such thing. mypy holds whoever asks for it."""
    found = facility.loop(connectors({}), "row", "R-0001", ("R-0001", "R-0002"))
    assert isinstance(found, facility.RowLoop)
    names = {field.name for field in dataclasses.fields(found)}
    assert names & {"flow", "return_temp", "dp"} == set() and found.supply_temp == 25.0


def test_a_cdu_without_connectors_says_nothing() -> None:
    found = facility.loop({"/redfish/v1/ThermalEquipment": {"Status": {"Health": "OK"}}}, "rack")
    assert isinstance(found, facility.RackLoop)
    assert [found.flow, found.supply_temp, found.return_temp, found.pressure, found.dp, found.pump_rpm] == [None] * 6


def test_pumps_that_run() -> None:
    at = "/redfish/v1/ThermalEquipment/CDUs/1/Pumps"
    pumps = {
        f"{at}/1": {"PumpSpeedPercent": {"Reading": 80, "SpeedRPM": 3000}, "Status": {"State": "Enabled"}},
        f"{at}/2": {"PumpSpeedPercent": {"Reading": 82, "SpeedRPM": 3200}, "Status": {"State": "Enabled"}},
        f"{at}/3": {"PumpSpeedPercent": {"Reading": 0, "SpeedRPM": 0}, "Status": {"State": "Absent"}},
    }
    assert facility.loop(connectors({}) | pumps, "row").pump_rpm == 3100


# ---------------------------------------------------------------- anything at all

ATOM = st.sampled_from([None, True, 0, -1.5, 1e400, float("nan"), "", "OK", "Critical", "Enabled", "Absent", "12", "x"])
JSON = ATOM | st.lists(ATOM, max_size=2) | st.dictionaries(st.sampled_from(["Reading", "State", "Health"]), ATOM, max_size=3)
KEYS = st.sampled_from(
    ["Status", "Reading", "Thresholds", "DetectorState", "Members", "PolicyEnabled", "PolicyConditions", "PowerWatts", "Message",
     "PowerSupplyRedundancy", "FlowLitersPerMinute", "PumpSpeedPercent", "SerialNumber", "@odata.type", "Version", "failed"]
)  # fmt: skip
PATHS = st.sampled_from(
    [f"{DETECTORS}/a", f"{TRAY}/Sensors/a", POLICY, "/redfish/v1/Systems/a", f"{TRAY}/PowerSubsystem/PowerSupplies/1",
     "/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/1", "/redfish/v1/ThermalEquipment/CDUs/1/Pumps/1",
     "/redfish/v1/Systems/a/LogServices/SEL/Entries/1", "/redfish/v1/UpdateService/FirmwareInventory/x"]
)  # fmt: skip


@settings(deadline=None)
@given(st.dictionaries(PATHS, st.dictionaries(KEYS, JSON, max_size=4), max_size=3))
def test_no_body_raises_and_none_is_good_by_accident(bodies: dict[str, Body]) -> None:
    bmc.sensors(bodies)
    found = bmc.detectors(bodies)
    assert all(d.wet is not False or bodies[f"{DETECTORS}/{d.name}"].get("DetectorState") == "OK" for d in found)
    if bmc.leak_policy(bodies).enabled:
        assert bodies[POLICY]["PolicyEnabled"] is True
    bmc.lowest_volts(found)
    bmc.system_serials(bodies)
    bmc.tray_power(bodies)
    bmc.entries(bodies)
    bmc.firmware(bodies)
    list(bmc.unhealthy(bodies))
    assert all(not s.works or "OK" in str(bodies) for s in facility.shelf(bodies).supplies)
    facility.loop(bodies, "rack")
    facility.loop(bodies, "row")


@pytest.mark.parametrize(
    "actions",
    [None, [], "x", 3, {"#ComputerSystem.Reset": []}, {"#ComputerSystem.Reset": {"target": 7}}, {"#ComputerSystem.Reset": None}],
    ids=repr,
)
def test_a_reset_that_is_not_one_offers_nothing(actions: Any) -> None:
    """Checks that cycle power, and the guard that switches off, must not stumble over it."""
    assert bmc.reset({"Actions": actions}, "ComputerSystem.Reset") == ("", ())


@pytest.mark.parametrize(("kinds", "allowed"), [(["On", 3, None], ("On",)), ("On", ()), (None, ()), ({}, ())])
def test_the_types_of_a_reset(kinds: Any, allowed: tuple[str, ...]) -> None:
    action = {"target": "/a/Reset", "ResetType@Redfish.AllowableValues": kinds}
    assert bmc.reset({"Actions": {"#ComputerSystem.Reset": action}}, "ComputerSystem.Reset") == ("/a/Reset", allowed)
