"""NVOS in text and JSON, good and failing, as NVIDIA prints it; what is cut, contradictory or of another kind is no pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from burnin.checks.tools import PARSERS, Outcome, Reading

P, F, U, E, M = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR, Outcome.MEASURED
PROMPT = "admin@nvos:~$ nv show "

DIAGNOSTICS = f"""{PROMPT}interface --view link-diagnostics
Interface  Code  Status
---------  ----  --------------------
acp1       0     No issue was observed
acp2       2     Negotiation failure
sw1p1s1    1024  Cable is unplugged
"""
PORT = f"""{PROMPT}interface acp21
                              operational  applied
----------------------------  -----------  -------
link
  auto-negotiate              on
  speed                       400G
  counters
    in-bytes                  108.00 KB
    in-errors                 0
    in-symbol-errors          7
    link-downed               0
  [diagnostics]
  lanes                       2X
  state                       up
  physical-state              Polling
  logical-state               Active
type                          nvl          nvl
"""
APPS = f"""{PROMPT}cluster apps
Name            ID             Capabilities      Status  Reason  Additional Information          Summary
--------------  -------------  ----------------  ------  ------  ------------------------------  -------
nmx-controller  nmx-c-nvos     sm, gfm, fib      ok              CONTROL_PLANE_STATE_CONFIGURED
nmx-telemetry   nmx-telemetry  telemetry         ok
"""
ENVIRONMENT = f"""{PROMPT}platform environment
Name             Type         State
---------------  -----------  ------
ASIC             temperature  ok
FAN1             led          off
FAN1/1           fan          ok
HSC-VinDC-In     voltage      not ok
"""
GOOD_PORT = {
    "link": {
        "state": "up", "physical-state": "LinkUp", "logical-state": "Active", "speed": "400G",
        "counters": {"in-symbol-errors": 0, "link-downed": 0, "in-errors": 0},
        "diagnostics": {"0": {"status": "No issue was observed"}},
    },
    "type": "nvl",
}  # fmt: skip


def say(tool: str, said: Any, code: int | None = 0, stderr: str = "") -> Reading:
    return PARSERS[f"nv show {tool}"](said if isinstance(said, str) else json.dumps(said, indent=2), code, stderr)


def port(**link: Any) -> dict[str, Any]:
    return {"acp1": {"type": "nvl", "link": {**GOOD_PORT["link"], **link}}}  # type: ignore[dict-item]


def row(reading: Reading, name: str, part: str = "") -> Outcome:
    (one,) = (r for r in reading.rows if (r.name, r.part) == (name, part))
    return one.result


def test_a_failing_port_of_a_text_table_is_named_and_an_empty_front_panel_is_no_fault() -> None:
    got = say("interface link-diagnostics", DIAGNOSTICS)
    assert got.outcome is F
    assert [(r.part, r.value, r.result) for r in got.rows] == [("acp1", "0", P), ("acp2", "2", F), ("sw1p1s1", "1024", M)]


def test_a_port_that_polls_and_is_active_at_once_proves_nothing() -> None:
    got = say("interface", PORT)
    assert got.outcome is U and row(got, "port", "acp21") is U
    assert [(r.part, r.value) for r in got.rows if r.name == "symbol_errors"] == [("acp21", 7.0)]
    assert say("interface", PORT.replace("Polling", "LinkUp")).outcome is M  # text has no end mark


@pytest.mark.parametrize(
    ("link", "outcome"),
    [
        ({}, P),
        ({"state": {"up": {}}}, P),
        ({"state": "down", "physical-state": "Polling", "logical-state": "Down"}, F),
        ({"state": "down"}, U),
        ({"state": "sideways", "physical-state": "", "logical-state": ""}, U),
        ({"diagnostics": {"2": {"status": "Negotiation failure"}}}, F),
        ({"diagnostics": {"57": {"status": "signal not detected"}}}, F),
        ({"diagnostics": {"1": {"status": "Closed by command"}}}, U),
    ],
)
def test_ports_in_json(link: dict[str, Any], outcome: Outcome) -> None:
    assert say("interface", port(**link)).outcome is outcome


def test_a_counter_that_is_no_number_is_not_zero() -> None:
    got = say("interface", port(counters={"in-symbol-errors": "N/A", "link-downed": 2}))
    assert [(r.name, r.value) for r in got.rows if r.unit == "1"] == [("downed", 2.0)]


def test_the_environment_by_its_own_words() -> None:
    got = say("platform environment", ENVIRONMENT)
    assert got.outcome is F and row(got, "state", "HSC-VinDC-In") is F and row(got, "led", "FAN1") is M
    assert say("platform environment", {"ASIC": {"type": "temperature", "state": ""}}).outcome is U
    assert say("platform environment", {"ASIC": {"type": "temperature", "state": "ok"}}).outcome is P


@pytest.mark.parametrize(("said", "outcome"), [("normal", P), ("leak", F), ("leakage detected", F), ("not ok", U), ("", U)])
def test_a_leak_detector_is_dry_only_when_it_says_so(said: str, outcome: Outcome) -> None:
    assert say("platform environment leakage", {"leakage1": {"state": "normal"}, "leakage2": {"state": said}}).outcome is outcome


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"state": "enabled", "nmxc-conn": "up"}, P),
        ({"state": "enabled", "nmxc-conn": "down"}, F),
        ({"state": "enabled"}, E),
        ({"state": "disabled", "nmxc-conn": "down"}, M),
        ({"state": "perhaps"}, E),
    ],
)
def test_a_cluster_that_is_off_is_no_fault_and_no_pass(said: dict[str, str], outcome: Outcome) -> None:
    assert say("cluster", said).outcome is outcome


def test_applications_of_the_cluster() -> None:
    assert say("cluster apps", APPS).outcome is M  # text; its rows are all good
    assert all(r.result is P for r in say("cluster apps", APPS).rows)
    assert say("cluster apps", APPS.replace("ok    ", "not ok")).outcome is F
    one = {"nmx-controller": {"status": "ok", "additional-information": "CONTROL_PLANE_STATE_CONFIGURING"}}
    assert say("cluster apps", one).outcome is U
    assert say("sdn partition", {"32766": {"name": "Default Partition", "health": "unhealthy"}}).outcome is F
    assert say("sdn partition", {"32766": {"name": "Default Partition", "health": "healthy", "num-gpus": 72}}).outcome is P


def test_who_a_tray_is() -> None:
    told = {"tray-index": 0, "slot-number": 5, "chassis-sn": "999WWYY123456", "topology-id": "GB200 NVL72"}
    got = say("platform chassis-location", told)
    assert got.outcome is M and ("chassis-sn", "999WWYY123456") in [(r.name, r.value) for r in got.rows]
    assert say("platform chassis-location", {**told, "chassis-sn": ""}).outcome is E
    assert say("platform", {"product-name": "N5110_LD", "serial-number": "MT2416X02630", "asic-model": "Quantum3"}).outcome is M
    inventory = {"ASIC1": {"state": "ok", "type": "asic", "model": "N5110_LD", "serial": "MT1", "hardware-version": "A0"}}
    assert say("platform inventory", inventory).outcome is P
    inventory["ASIC1"]["state"] = "fault"
    assert say("platform inventory", inventory).outcome is F
    assert say("platform firmware", {"ASIC": {"actual-firmware": "N/A"}}).outcome is U


def test_nvidias_way_to_write_no_errors_is_none() -> None:
    told = {"effective-ber": "15E-255", "symbol-ber": "3E-14", "raw-ber": "2E-6", "symbol-errors": 0, "effective-errors": "0"}
    got = say("interface phy-detail", told)
    assert got.outcome is M and [r.value for r in got.rows] == [0.0, 3e-14, 2e-6, 0.0, 0.0]
    assert say("interface phy-detail", {**told, "raw-ber": "N/A"}).outcome is U


@pytest.mark.parametrize("tool", [name for name in PARSERS if name.startswith("nv show")])
@pytest.mark.parametrize(
    "said",
    [
        "Error: The requested item does not exist.",
        "{}",
        '{"acp1": ',
        '{"acp1": [1, 2]}',
        '{"acp1": {"link": 3, "type": 4}}',
        "Name      State\n--------  ------\n",
        "Name  State\n----  -----\nleakage1  normal\n",
        "\n".join(["Interface  Code  Status", "---------  ----  ------"] + ["acp1  0"] * 3),
        "-- --\n" * 50_000,
        "a  b\n--  --\n" + " " * 400_000 + "x",
    ],
    ids=range(10),
)
def test_what_is_no_output_is_refused(tool: str, said: str) -> None:
    assert say(tool.removeprefix("nv show "), said).outcome is E


def test_a_row_beside_its_columns_and_a_name_said_twice_are_gaps() -> None:
    assert say("interface link-diagnostics", DIAGNOSTICS.replace("acp1       0", "acp1     0  ")).outcome in (E, F)
    good = "Interface  Code  Status\n---------  ----  ------\nacp1       0     No issue was observed\n"
    assert say("interface link-diagnostics", good).outcome is M
    assert say("interface link-diagnostics", good + "acp1       0     No issue was observed\n").outcome is E
    assert say("interface link-diagnostics", good, None).outcome is E
    assert say("interface link-diagnostics", good, 0, "Error: lost connection to nvued").outcome is E


FABRIC = """0x9c63000000000001 "MF0;nvos-s0:N5200_LD/U1"      2   0[  ] ==( 2X      100.0 Gbps Active/  LinkUp)==>  0xa088c20000000009  103  18[  ] "GPU" ( )
0x9c63000000000001 "MF0;nvos-s0:N5200_LD/U1"      2   1[  ] ==(                Down/ Polling)==>             [  ] "" ( )
"""  # noqa: E501


def test_a_fabric_says_who_is_plugged_where_and_a_port_that_is_down_does_not() -> None:
    got = PARSERS["iblinkinfo"](FABRIC, 0)
    assert got.outcome is M
    assert [(r.name, r.part, r.value) for r in got.rows if r.name == "peer"] == [
        ("peer", "9c63000000000001/0", "a088c20000000009/18")
    ]
    assert len([r for r in got.rows if r.name == "node"]) == 2
    assert PARSERS["iblinkinfo"](FABRIC[:-30], 0).outcome is E
    assert PARSERS["iblinkinfo"](FABRIC + FABRIC, 0).outcome is E
    assert PARSERS["iblinkinfo"](FABRIC.replace("Active", "Initialize"), 0).outcome is U
    assert PARSERS["iblinkinfo"]("Error: ibwarn: cannot open device", 0).outcome is E
