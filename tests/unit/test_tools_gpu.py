"""nvidia-smi, nccl-tests, nvbandwidth, nvidia-imex-ctl: peers' bugs and other traps, in texts that no capture shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from burnin.checks.tools import PARSERS, Outcome, Reading

P, F, U, E, M = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR, Outcome.MEASURED

# --- nvidia-smi -q -x -------------------------------------------------------------------------------------------------

GOOD = """<product_name>NVIDIA GB300</product_name><uuid>GPU-1</uuid><gpu_recovery_action>None</gpu_recovery_action>
<ecc_mode><current_ecc>Enabled</current_ecc></ecc_mode>
<ecc_errors><volatile><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_correctable>0</dram_correctable>
<dram_uncorrectable>0</dram_uncorrectable></volatile><unrepairable_memory>No</unrepairable_memory></ecc_errors>
<remapped_rows><remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
<temperature><gpu_temp>38 C</gpu_temp></temperature><clocks_event_reasons><clocks_event_reason_hw_slowdown>Not Active\
</clocks_event_reason_hw_slowdown></clocks_event_reasons>
<fabric><state>Completed</state><status>Success</status><cliqueId>32766</cliqueId><clusterUuid>0000-1</clusterUuid>
<health><summary>Healthy</summary><bandwidth>Full</bandwidth><route_unhealthy>False</route_unhealthy></health></fabric>"""


def xml(*gpus: str, attached: int | None = None, dtd: str = "nvsmi_device_v13.dtd", inside: str = "") -> str:
    body = "".join(f'<gpu id="0000000{n}:06:00.0">{gpu}</gpu>\n' for n, gpu in enumerate(gpus))
    return (
        f'<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "{dtd}"{inside}>\n<nvidia_smi_log>'
        f"<driver_version>580.1</driver_version><attached_gpus>{len(gpus) if attached is None else attached}</attached_gpus>\n"
        f"{body}</nvidia_smi_log>\n"
    )


def smi(text: str, code: int | None = 0) -> Reading:
    return PARSERS["nvidia-smi -q -x"](text, code)


def test_a_healthy_gpu_passes_and_its_values_are_rows_with_units() -> None:
    reading = smi(xml(GOOD, GOOD))
    assert (reading.outcome, reading.version, reading.whys) == (P, "580.1", ())
    values = {(r.name, r.part): (r.value, r.unit) for r in reading.rows}
    assert values["temperature/gpu_temp", "00000001:06:00.0"] == (38.0, "Cel")
    assert values["ecc_errors/volatile/dram_uncorrectable", "00000000:06:00.0"] == (0.0, "1")


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("<summary>Healthy", "<summary>Unhealthy", F),  # Completed and Success all the same
        ("<summary>Healthy", "<summary>Limited Capacity", F),
        ("<summary>Healthy", "<summary>N/A", U),
        ("<summary>Healthy", "<summary>Heal hy", E),  # nobody is condemned by a word that we do not know
        ("<remapped_row_failure>No</remapped_row_failure>", "", U),
        ("<summary>Healthy</summary>", "", U),
        ("<status>Success", "<status>Insufficient Resources", F),
        ("<state>Completed", "<state>In Progress", U),
        ("<state>Completed", "<state>Not Supported", F),
        ("<state>Completed", "<state>N/A", U),
        ("0000-1", "0000-0000", F),
        ("<route_unhealthy>False", "<route_unhealthy>True", F),
        ("<bandwidth>Full", "<bandwidth>Degraded", F),
        ("failure>No", "failure>Yes", F),
        ("pending>No", "pending>Yes", F),
        ("pending>No", "pending>Perhaps", E),
        ("<gpu_recovery_action>None", "<gpu_recovery_action>Reset", F),
        ("<unrepairable_memory>No", "<unrepairable_memory>Yes", F),
        ("<dram_uncorrectable>0", "<dram_uncorrectable>1", U),  # counters are judged by growth
        ("<dram_uncorrectable>0", "<dram_uncorrectable>N/A", U),
        ("<current_ecc>Enabled", "<current_ecc>Disabled", U),
        ("slowdown>Not Active", "slowdown>Active", U),
        ("<gpu_temp>38 C", "<gpu_temp>GPU is lost", F),
        ("<gpu_temp>38 C", "<gpu_temp>[GPU requires reset]", F),
        ("<gpu_temp>38 C", "<gpu_temp>Unknown Error", E),
        ("<gpu_temp>38 C", "<gpu_temp>ERR!", E),
        ("<uuid>GPU-1</uuid>", "", E),
        (GOOD[GOOD.index("<fabric>") :], "", U),  # a GB300 that does not speak of its fabric
    ],
)
def test_one_bad_field_of_one_gpu_decides(old: str, new: str, outcome: Outcome) -> None:
    assert old in GOOD
    assert smi(xml(GOOD, GOOD.replace(old, new))).outcome is outcome


def test_a_part_without_nvlink_fabric_is_not_blamed_for_it() -> None:
    fabric = GOOD[GOOD.index("<fabric>") :]
    absent = "<fabric><state>N/A</state><status>N/A</status><clusterUuid>N/A</clusterUuid></fabric>"
    hgx = fabric.replace("0000-1", "0000-0").replace("Healthy", "N/A")
    for product, said in (("L40S", absent), ("H100 80GB HBM3", hgx), ("GB10", absent)):
        assert smi(xml(GOOD.replace("GB300", product).replace(fabric, said))).outcome is P


@pytest.mark.parametrize(
    "text",
    [
        xml(GOOD, attached=2),  # exit status 0 with one GPU gone
        xml(),
        xml(GOOD, dtd="nvsmi_device_v14.dtd"),
        xml(GOOD).replace("<!DOCTYPE", "<!--").replace('dtd">', 'dtd" -->'),
        xml(GOOD)[:-20],
        xml(GOOD, inside=' [<!ENTITY a "b">]'),
        xml(GOOD, inside=' [<!ENTITY a SYSTEM "file:///etc/passwd">]').replace("38 C", "&a;"),
        xml(GOOD).replace("38 C", "&lol;"),
        xml(GOOD) + xml(GOOD),
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "No devices were found",
        "Unable to determine the device handle for GPU 0000:06:00.0: Unknown Error\n" + xml(GOOD, attached=2),
    ],
)
def test_xml_that_is_cut_hostile_or_unknown_is_an_error(text: str) -> None:
    assert smi(text).outcome is E


def test_inactive_links_are_never_healthy() -> None:
    head = "GPU 0: NVIDIA GB300 (UUID: GPU-1)\n"
    dead = head + "".join(f"\t Link {n}: <inactive>\n" for n in range(18))
    reading = PARSERS["nvidia-smi nvlink -s"](dead, 0)
    assert reading.outcome is F and sum(r.result is F for r in reading.rows) == 18
    alive = dead.replace("<inactive>", "53.125 GB/s")
    assert PARSERS["nvidia-smi nvlink -s"](alive, 0).outcome is M
    assert PARSERS["nvidia-smi nvlink -s"](alive.replace("\t Link 7: 53.125 GB/s\n", ""), 0).outcome is E
    assert PARSERS["nvidia-smi nvlink -s"](head, 0).outcome is E
    assert (
        PARSERS["nvidia-smi nvlink -s"]("NVML: Unable to retrieve NVLink information as all links are inActive\n", 0).outcome is E
    )


# --- nccl-tests -------------------------------------------------------------------------------------------------------

NCCL = """# nThread 1 nGpus 1 minBytes 1024 maxBytes 2048 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
#  Rank  0 Group  0 Pid 12 on host device  0 [0x01] NVIDIA GB300
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
        1024           256     float     sum      -1    10.00    1.00    2.00      0    10.00    1.00    3.00      0
        2048           512     float     sum      -1    10.00    1.00    4.00      0    10.00    1.00    5.00      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 3.5
#
"""


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", M),
        ("5.00      0\n", "5.00      1\n", F),  # wrong results above "0 OK"
        (": 0 OK", ": 2 FAILED", F),
        (": 3.5", ": 3.5 FAILED", F),
        (": 3.5", ": 3.5 OK", M),
        ("5.00      0\n", "5.00    N/A\n", M),
        ("     0 ", "   N/A ", U),
        ("5.00      0\n", " nan      0\n", E),
        ("5.00      0\n", "5.00\n", E),
        ("# Avg bus bandwidth    : 3.5\n#\n", "", E),
        ("# Avg bus bandwidth    : 3.5\n#\n", "# Avg bus bandwidth    : 3.5", E),  # the number may go on
        ("# Out of bounds values : 0 OK\n", "", E),
        (NCCL.split("\n")[5] + "\n", "", E),  # a row is missing: the average says so
        ("#wrong\n", "#wrong  #iters\n", E),
        ("redop", "redux", E),
        ("# nThread", "# nccl-tests version 3.0.0\n# nThread", E),
        (
            "#\n",
            "host: Test NCCL failure common.cu:1119 'unhandled system error'\n .. host pid 1: Test failure common.cu:937\n",
            E,
        ),
    ],
)
def test_nccl_tests(old: str, new: str, outcome: Outcome) -> None:
    text = NCCL.replace(old, new)
    if outcome is U:
        text = (
            text.replace("0\n    ", "N/A\n    ")
            .replace("5.00      0\n", "5.00    N/A\n")
            .replace("3.00      0\n", "3.00    N/A\n")
        )
    assert PARSERS["nccl-tests"](text, 0).outcome is outcome


def nccl_json(**more: Any) -> str:
    half = {"time": 10.0, "alg_bw": 1.0, "bus_bw": 2.0, "nwrong": 0.0}
    body = {
        "version": 3, "env": ["SECRET=1"], "nccl_version": "2.28.7", "out_of_bounds": {"count": 0, "okay": "true"},
        "average_bus_bandwidth": {"bandwidth": 2.0}, "end_time": "now",
        "results": [{"size": 8, "type": "float", "root": "    -1", "out_of_place": half, "in_place": {**half, "nwrong": None}}],
    }  # fmt: skip
    return json.dumps({**body, **more})


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (nccl_json(), M),
        (nccl_json(out_of_bounds={"count": 1, "okay": "false"}), F),
        (nccl_json(out_of_bounds={"count": 0, "okay": "false"}), F),
        (nccl_json(out_of_bounds={"count": 0}), E),
        (nccl_json(results=[]), E),
        (nccl_json(version=9), E),
        (nccl_json().replace('"bus_bw": 2.0', '"bus_bw": "nan"', 1), E),
        (nccl_json().replace('"nwrong": 0.0', '"nwrong": 3.0'), F),
        (nccl_json().replace('"nwrong": 0.0', '"nwrong": null'), U),
        (nccl_json().replace(', "end_time": "now"', ""), E),
        (nccl_json()[:-2], E),
    ],
)
def test_nccl_tests_json(text: str, outcome: Outcome) -> None:
    reading = PARSERS["nccl-tests"](text, 0)
    assert reading.outcome is outcome
    assert "SECRET" not in repr(reading)  # the whole environment is in that file


# --- nvbandwidth ------------------------------------------------------------------------------------------------------

NVB = """nvbandwidth Version: v0.7
Built from Git version: v0.7

Device 0: NVIDIA GB300 (00000008:06:00)

Running device_to_device_memcpy_read_ce.
memcpy CE GPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0       N/A    798.02
 1    798.10       N/A

SUM device_to_device_memcpy_read_ce 1596.12

Running multicast_one_to_all.
Waived.

NOTE: The reported results may not reflect the full capabilities of the platform.
Performance can vary with software drivers, hardware clocks, and system topology.
"""


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", M),
        ("798.10", "   N/A", E),  # does not add up
        (" 1    798.10       N/A\n", "", E),
        ("SUM device_to_device_memcpy_read_ce 1596.12\n", "", E),
        ("SUM device_to_device_memcpy_read_ce 1596.12\n", " Invalid value when checking the pattern at 0x70\n", F),
        ("v0.7\nBuilt", "v1.0\nBuilt", E),
        ("nvbandwidth Version: v0.7\n", "", E),
        ("NOTE: The", "The", E),
        ("Waived.", "[CUDA_ERROR_ILLEGAL_ADDRESS] an illegal memory access", E),
        ("Waived.", "ASSERT in expression x", E),
        ("Waived.", "Error: x", E),
        ("Waived.", "Not Found: x", E),
        ("Running multicast_one_to_all.\nWaived.", "Waived: ", M),  # v0.8 names no test that it waives
        ("\n\nRunning multi", "\nCOEFFICIENT_OF_VARIATION device_to_device_memcpy_read_ce 0.00\n\nRunning multi", M),
        ("NOTE: The", "Running one_more.\nNOTE: The", E),
    ],
)
def test_nvbandwidth(old: str, new: str, outcome: Outcome) -> None:
    assert PARSERS["nvbandwidth"](NVB.replace(old, new), 0).outcome is outcome


def test_nvbandwidth_says_what_was_waived_and_what_is_unknown() -> None:
    reading = PARSERS["nvbandwidth"](NVB, 0)
    assert any("multicast_one_to_all was waived" in why for why in reading.whys)
    assert [(r.part, r.value, r.unit) for r in reading.rows[1:]] == [
        ("row 0 column 1", 798.02, "GB/s"),
        ("row 1 column 0", 798.1, "GB/s"),
    ]
    half = NVB.replace("798.10 ", "   N/A ").replace("1596.12", "798.02")
    assert PARSERS["nvbandwidth"](half, 0).outcome is U


def test_nvbandwidth_bidirectional_tests_print_three_matrices() -> None:
    begin, matrix, end = NVB.index("memcpy CE"), "", NVB.index("Running multi")
    for name, cell in (("read1", "10.00"), ("read2", "20.00"), ("total", "30.00")):
        matrix += f"memcpy CE GPU(row) <-> GPU(column) {name} bandwidth (GB/s)\n  0  1\n 0 N/A {cell}\n 1 {cell} N/A\n\n"
        matrix += f"SUM device_to_device_memcpy_read_ce_{name} {2 * float(cell):.2f}\n\n"
    text = NVB[:begin] + matrix + NVB[end:]
    reading = PARSERS["nvbandwidth"](text, 0)
    assert reading.outcome is M
    assert [r.value for r in reading.rows if r.name.endswith("_total")] == [30.0, 30.0]
    assert PARSERS["nvbandwidth"](text.replace("SUM device_to_device_memcpy_read_ce_total 60.00\n", ""), 0).outcome is E
    stacked = [["N/A", c] if n == 0 else [c, "N/A"] for c in ("10", "20", "30") for n in (0, 1)]
    case = {"name": "bidir", "status": "Passed", "bandwidth_description": "x (GB/s)", "bandwidth_matrix": stacked, "sum": 60.0}
    body = {"nvbandwidth": {"version": "v0.8", "testcases": [case]}}
    assert PARSERS["nvbandwidth"](json.dumps(body), 0).outcome is M
    assert PARSERS["nvbandwidth"](json.dumps(body).replace('"30"', '"31"'), 0).outcome is E


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("Passed", M), ("Waived", E), ("Error", E), ("Not Found", E), ("Running", E), ("passed", E), (None, E)],
)
def test_nvbandwidth_json(status: str | None, outcome: Outcome) -> None:
    case = {
        "name": "x",
        "status": status,
        "bandwidth_description": "GPU(row) (GB/s)",
        "bandwidth_matrix": [["396.1"]],
        "sum": 396.1,
    }
    body = {"nvbandwidth": {"git_version": "v0.8", "testcases": [case]}}
    assert PARSERS["nvbandwidth"](json.dumps(body), 0).outcome is outcome


# --- nvidia-imex-ctl --------------------------------------------------------------------------------------------------

IMEX = """READY
Connectivity Table Legend:
I - Invalid - Node wasn't reachable, no connection status available
!V! - Version mismatch, communication disabled.
C - Connected - Ready for operation

5/4/2026 06:08:10.580
Nodes:
Node #0   - 10.0.0.1    - READY                - Version: 570.172
Node #1   - 10.0.0.2    - READY                - Version: 570.172

 Nodes From\\To  0   1
       0        C   C
       1        C   C

Domain State: UP
"""


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", P),
        ("State: UP", "State: DEGRADED", F),
        ("State: UP", "State: DOWN", F),
        ("State: UP", "State: SUPER", E),
        ("Domain State: UP\n", "", E),
        ("10.0.0.2    - READY", "10.0.0.2    - UNAVAILABLE", F),
        ("10.0.0.2    - READY", "10.0.0.2    - INITIALIZING", U),
        ("10.0.0.2    - READY", "10.0.0.2    - READ", E),
        ("       1        C   C\n", "       1        C   !V!\n", F),
        ("       1        C   C\n", "       1        C   N\n", F),
        ("       1        C   C\n", "       1        C   R\n", U),
        ("       1        C   C\n", "       1        C   ?\n", E),
        ("       1        C   C\n", "", E),
        ("       1        C   C\n", "       1        C\n", E),
        ("Node #1   - 10.0.0.2    - READY                - Version: 570.172\n", "", E),
        ("10.0.0.2    - READY                - Version: 570.172", "10.0.0.2    - READY                - Version: 580.1", U),
    ],
)
def test_imex(old: str, new: str, outcome: Outcome) -> None:
    assert PARSERS["nvidia-imex-ctl"](IMEX.replace(old, new), 0).outcome is outcome


def test_the_local_daemon_alone_says_nothing_of_the_domain() -> None:
    assert PARSERS["nvidia-imex-ctl"]("READY\n", 0).outcome is U


def imex_json(**more: Any) -> dict[str, Any]:
    links = {str(n): {"host": f"10.0.0.{n}", "status": "CONNECTED"} for n in range(2)}
    nodes = {str(n): {"status": "READY", "host": f"10.0.0.{n}", "connections": links, "version": "570.172"} for n in range(2)}
    return {"nodes": nodes, "timestamp": "5/22/2025 19:46:40.891", "status": "UP", **more}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (json.dumps(imex_json()), P),
        (json.dumps(imex_json(status="DEGRADED")), F),
        (json.dumps(imex_json(nodes={})), E),
        (json.dumps(imex_json()).replace('"READY"', '"UNAVAILABLE"', 1), F),
        (json.dumps(imex_json()).replace('"CONNECTED"', '"DISCONNECTED"', 1), F),
        (json.dumps(imex_json()).replace('"CONNECTED"', '"RECOVERING"', 1), U),
        (json.dumps(imex_json())[:-1], E),
    ],
)
def test_imex_json(text: str, outcome: Outcome) -> None:
    assert PARSERS["nvidia-imex-ctl"](text, 0).outcome is outcome
