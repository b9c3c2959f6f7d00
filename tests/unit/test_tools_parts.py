"""gpu_burn, HPL, STREAM, stress-ng, fio, smartctl, nvme, links and the SEL: traps that no capture shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from burnin.checks.tools import PARSERS, Outcome, Reading

P, F, U, E, M = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR, Outcome.MEASURED
RULE = "-" * 87 + "\n"


def outcome_of(tool: str, text: str, code: int | None = 0) -> Outcome:
    return PARSERS[tool](text, code).outcome


# --- gpu_burn ---------------------------------------------------------------------------------------------------------

BURN = (
    "Burning for 60 seconds.\nGPU 0: NVIDIA GB300 (UUID: GPU-1)\nGPU 1: NVIDIA GB300 (UUID: GPU-2)\n"
    "\r50.0%  proc'd: 88 (1784 Gflop/s) - 90 (1790 Gflop/s)   errors: 0 - 0   temps: 70 C - 71 C \n"
    "\tSummary at:   Mon Apr 14 04:50:50 PM CST 2025\n\n"
    "\r100.0%  proc'd: 188 (1784 Gflop/s) - 190 (1790 Gflop/s)   errors: 0 - 0   temps: 70 C - 71 C \n"
    "Killing processes with SIGTERM (soft kill)\nFreed memory for dev 0\nUninitted cublas\ndone\n\n"
    "Tested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n"
)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", P),
        ("GPU 1: OK", "GPU 1: FAULTY", F),
        ("errors: 0 - 0   temps", "errors: 0 - 12  (WARNING!)  temps", F),  # OK in the end all the same: errors are reset
        ("errors: 0 - 0   temps", "errors: 0 - -1 (DIED!)  temps", E),
        ("- 90 (1790 Gflop/s)", "- 0 (0 Gflop/s)", P),  # it worked later
        ("GPU 1: OK\n", "", E),
        ("Tested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n", "", E),
        ("Tested 2 GPUs", "Tested 4 GPUs", E),
        ("GPU 1: OK", "GPU 1: O", E),
        ("temps: 70 C", "tempX: 70 C", E),  # 70 C is not 70 wrong results
        ("done\n", "No clients are alive!  Aborting\n", E),
    ],
)
def test_gpu_burn(old: str, new: str, outcome: Outcome) -> None:
    assert outcome_of("gpu_burn", BURN.replace(old, new)) is outcome


def test_a_gpu_that_computed_nothing_was_not_tested_though_it_is_ok() -> None:
    idle = BURN.replace("- 90 (1790 Gflop/s)", "- 0 (0 Gflop/s)").replace("- 190 (1790 Gflop/s)", "- 0 (0 Gflop/s)")
    reading = PARSERS["gpu_burn"](idle, 0)
    assert reading.outcome is U
    assert [(r.part, r.result) for r in reading.rows if r.name == "gpu"] == [("GPU 0", P), ("GPU 1", U)]


# --- HPL, HPL-MxP -----------------------------------------------------------------------------------------------------

SUMMARY = (
    "              {} tests completed and passed residual checks,\n              {} tests completed and failed residual checks,\n"
)
HPL = (
    "HPL-NVIDIA 24.9.0  -- NVIDIA accelerated HPL benchmark -- NVIDIA\n"
    "HPLinpack 2.1  --  High-Performance Linpack benchmark  --   October 26, 2012\n"
    "T/V                N    NB     P     Q         Time          Gflops (   per GPU)\n"
    "WR03L2L2       72000   288     1     2       111.21       2.238e+03 ( 1.119e+03)\n"
    "||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)=        0.0029328 ...... PASSED\n\n"
    "Finished      1 tests with the following results:\n"
    + SUMMARY.format(1, 0)
    + "              0 tests skipped because of illegal input values.\n"
    "\nEnd of Tests.\n" + "=" * 80 + "\n"
)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", P),
        (" ( 1.119e+03)", "", P),
        ("WR03L2L2", "WC0     ", P),
        ("PASSED", "FAILED", F),
        ("0.0029328", "nan", F),
        ("0.0029328", "0.00x9328", E),
        ("0 tests completed and failed", "1 tests completed and failed", E),  # two results where one was
        (SUMMARY.format(1, 0), SUMMARY.format(0, 1), F),
        ("||Ax-b||", "Ax-b", E),
        ("WR03L2L2 ", "         ", E),
        ("2.238e+03", "0.000e+00", E),
        ("End of Tests.\n", "", E),
        ("1 tests with", "2 tests with", E),
        ("HPLinpack 2.1", "HPLinpack 3.0", E),
        ("\nEnd", "mpirun noticed that process rank 1 was killed\n\nEnd", E),
    ],
)  # fmt: skip
def test_hpl(old: str, new: str, outcome: Outcome) -> None:
    assert outcome_of("hpl", HPL.replace(old, new)) is outcome


def test_a_second_hpl_that_was_cut_is_not_covered_by_the_first() -> None:
    """A launcher that runs it twice into one file: both must have come to their end."""
    assert outcome_of("hpl", HPL + HPL) is P
    assert outcome_of("hpl", HPL + HPL.replace("PASSED", "FAILED")) is F
    for end in range(HPL.index("T/V"), HPL.index("End of Tests."), 40):
        assert outcome_of("hpl", HPL + HPL[:end]) is E, end


MXP = (
    "****** HPL MxP Result    ******\n\n   EPS   . . . =    2.000000E-16\n"
    "||Ax-b||_oo / (EPS * (||A||_oo * ||x||_oo + ||b||_oo) * N) =    5.599413E-04 ...... PASSED\n\n"
    "   N = 258048, NB = 1024, NPROW = 4, NPCOL = 2, SLOPPY-TYPE = 2\n"
    "      GFLOPS = 4.3468e+05, per GPU =   54335.58 ------ The HPL-MxP performance to report\n"
    "   LU GFLOPS = 2.4940e+06, per GPU =  311748.98 ------ The performance excluding the iterative solver part\n\n"
    "****** HPL MxP Result    ******\n"
)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", P),
        ("PASSED", "FAILED", F),
        ("\n****** HPL MxP Result    ******\n", "\n", E),
        ("      GFLOPS", "      FLOPS", E),
        ("4.3468e+05", "nan", E),
    ],
)
def test_hpl_mxp(old: str, new: str, outcome: Outcome) -> None:
    assert outcome_of("hpl-mxp", MXP.replace(old, new)) is outcome


# --- STREAM, stress-ng ------------------------------------------------------------------------------------------------

STREAM = (
    "STREAM version $Revision: 5.10 $\nFunction    Best Rate MB/s  Avg time     Min time     Max time\n"
    + "".join(f"{name:<12}    18514.5     0.242368     0.231979     0.317779\n" for name in ("Copy:", "Scale:", "Add:", "Triad:"))
    + "Solution Validates: avg error less than 1.000000e-13 on all three arrays\n"
)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", M),
        ("Solution Validates", "Failed Validation on array a[], AvgRelAbsErr > epsilon (1e-13)\nx", F),
        ("Triad:", "Tri:", E),
        (" on all three arrays", "", E),
        ("5.10", "6.0", E),
        ("Copy:           18514.5", "Copy:               0.0", E),
    ],
)
def test_stream(old: str, new: str, outcome: Outcome) -> None:
    assert outcome_of("stream", STREAM.replace(old, new)) is outcome


NG = (
    "stress-ng: info:  [12] setting to a 10 secs run per stressor\nstress-ng: info:  [12] dispatching hogs: 2 cpu\n"
    "stress-ng: info:  [12] skipped: 0\nstress-ng: info:  [12] passed: 2: cpu (2)\nstress-ng: info:  [12] failed: 0\n"
    "stress-ng: info:  [12] metrics untrustworthy: 0\nstress-ng: info:  [12] successful run completed in 10.02 secs\n"
)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", P),
        ("failed: 0", "failed: 1: vm (1)", F),
        ("skipped: 0", "skipped: 1: gpu (1)", U),
        ("untrustworthy: 0", "untrustworthy: 2: cpu (2)", U),
        ("passed: 2: cpu (2)", "passed: 0", E),
        ("successful run completed in 10.02 secs", "unsuccessful run completed in 1.02 secs", E),
        ("stress-ng: info:  [12] successful run completed in 10.02 secs\n", "", E),
        ("stress-ng: info:  [12] skipped", "stress-ng: fail:  [13] cpu: data mismatch\nstress-ng: info:  [12] skipped", F),
    ],
)
def test_stress_ng(old: str, new: str, outcome: Outcome) -> None:
    assert outcome_of("stress-ng", NG.replace(old, new)) is outcome
    assert PARSERS["stress-ng"]("", 0, NG.replace(old, new)).outcome is outcome  # older versions print on stderr


# --- drives -----------------------------------------------------------------------------------------------------------


def drive(exit_status: int = 0, passed: object = True, **log: Any) -> str:
    good = {
        "critical_warning": 0,
        "available_spare": 100,
        "available_spare_threshold": 10,
        "media_errors": 0,
        "power_cycles": 2,
        "power_on_hours": 9,
    }
    body = {
        "smartctl": {"version": [7, 3], "exit_status": exit_status}, "device": {"type": "nvme"},
        "smart_status": {"passed": passed},
        "nvme_smart_health_information_log": {**good, **log}, "temperature": {"current": 39},
    }  # fmt: skip
    return json.dumps(body)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (drive(), P),
        (drive(passed=False, exit_status=8), F),
        (drive(passed="yes"), E),
        (drive(available_spare=5), F),  # "passed" all the same
        (drive(critical_warning=4), F),
        (drive(media_errors=3), U),
        (drive(media_errors="N/A"), E),
        (drive(power_cycles=0), U),
        (drive(exit_status=2), E),
        (drive(exit_status=64), U),
        (drive().replace("[7, 3]", "[8, 0]"), E),
        (drive().replace('"nvme_smart_health_information_log"', '"other"'), E),
        (drive().replace('"smart_status"', '"other"'), E),
        (drive()[:-1], E),
        ("Smartctl open device: /dev/nvme9 failed: No such device", E),
    ],
)
def test_smartctl(text: str, outcome: Outcome) -> None:
    assert outcome_of("smartctl", text) is outcome


def test_the_exit_status_of_smartctl_is_a_mask() -> None:
    assert (
        outcome_of("smartctl", drive(64), 64) is U
        and outcome_of("smartctl", drive(), 2) is E
        and outcome_of("smartctl", drive(), None) is E
    )


def test_nvme_smart_log_counts_kelvin() -> None:
    log = {"critical_warning": 0, "temperature": 313, "avail_spare": 100, "spare_thresh": 10, "percent_used": 1,
           "media_errors": 0, "power_cycles": 4, "power_on_hours": 10}  # fmt: skip
    reading = PARSERS["nvme smart-log"](json.dumps(log), 0)
    assert reading.outcome is P and ("temperature", 40.0, "Cel") in {(r.name, r.value, r.unit) for r in reading.rows}
    assert outcome_of("nvme smart-log", json.dumps({**log, "critical_warning": {"value": 1, "available_spare": 1}})) is F
    assert outcome_of("nvme smart-log", json.dumps({**log, "avail_spare": 3})) is F


def fio(error: int = 0, **more: Any) -> str:
    read = {"io_bytes": 4096, "bw_bytes": 348743777, "bw": 340570, "iops": 85138.9, "lat_ns": {"mean": 1446562.1}}
    return json.dumps(
        {
            "fio version": "fio-3.36",
            "jobs": [{"jobname": "a", "error": error, "read": {**read, **more}, "write": {"io_bytes": 0}}],
        }
    )


def test_fio_measures_and_an_io_error_is_bad() -> None:
    reading = PARSERS["fio"]("fio: this platform does not support process shared mutexes\n" + fio(), 0)
    assert reading.outcome is M
    assert {r.name: (r.value, r.unit) for r in reading.rows}["read.bw"] == (0.348743777, "GB/s")
    assert outcome_of("fio", fio(5)) is F and outcome_of("fio", fio(84)) is F
    assert outcome_of("fio", fio(22)) is E and outcome_of("fio", fio(io_bytes=0)) is E and outcome_of("fio", fio(iops=None)) is E
    assert outcome_of("fio", fio().replace("fio-3.36", "fio-4.0")) is E and outcome_of("fio", fio()[:-3]) is E


# --- links ------------------------------------------------------------------------------------------------------------


def mlxlink(state: str = "Active", physical: str = "LinkUp", opcode: str = "0", code: int = 0) -> str:
    output = {
        "Operational Info": {"State": state, "Physical state": physical, "Speed": "IB-XDR", "Width": "4x"},
        "Troubleshooting Info": {"Status Opcode": opcode, "Recommendation": "Negotiation failure"},
    }
    return json.dumps({"result": {"output": output, "status": {"code": code, "message": "said"}}})


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (mlxlink(), P),
        (mlxlink(state="Polling"), F),
        (mlxlink(physical="Disabled"), F),
        (mlxlink(physical="ETH_AN_FSM_ENABLE"), U),
        (mlxlink(opcode="1024"), F),
        (mlxlink(state=""), E),
        (mlxlink(state="Act0ve"), E),
        (mlxlink(code=1), E),
        (mlxlink().replace('"status"', '"other"'), E),
        (mlxlink()[:-2], E),
        ("-E- Failed to open device: /dev/mst/mt4129_pciconf0", E),
    ],
)
def test_mlxlink(text: str, outcome: Outcome) -> None:
    assert outcome_of("mlxlink", text) is outcome


IBSTAT = (
    "CA 'mlx5_0'\n\tCA type: MT4131\n\tNumber of ports: 1\n"
    "\tPort 1:\n\t\tState: Active\n\t\tPhysical state: LinkUp\n\t\tRate: 800\n"
    "\t\tBase lid: 65535\n\t\tLink layer: InfiniBand\n"
)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (IBSTAT, M),
        (IBSTAT.replace("Active", "Down"), F),
        (IBSTAT.replace("LinkUp", "Polling"), F),
        (IBSTAT.replace("Active", "Wonderful"), E),
        (IBSTAT.replace("ports: 1", "ports: 2"), E),
        (IBSTAT[:-30], E),
        (IBSTAT + "ibpanic: [1234] main: stat of IB device 'mlx5_1' failed: No such file or directory\n", E),
        (IBSTAT + IBSTAT, E),
    ],
)
def test_ibstat(text: str, outcome: Outcome) -> None:
    assert outcome_of("ibstat", text) is outcome


def test_ibpanic_on_stderr_after_good_blocks() -> None:
    panic = "ibpanic: [1234] main: stat of IB device 'mlx5_1' failed: No such file or directory\n"
    assert PARSERS["ibstat"](IBSTAT, 255, panic).outcome is E and PARSERS["ibstat"](IBSTAT, 0, panic).outcome is E


def perftest(unit: str = "Gb", row: str = " 65536      5000             395.94             392.26             0.748180\n") -> str:
    head = f" #bytes     #iterations    BW peak[{unit}/sec]    BW average[{unit}/sec]   MsgRate[Mpps]\n"
    return f"{RULE}                    RDMA_Write BW Test\n{RULE} local address: LID 0xd06\n{RULE}{head}{row}{RULE}"


def test_perftest_has_two_units() -> None:
    giga, mega = PARSERS["ib_write_bw"](perftest(), 0), PARSERS["ib_write_bw"](perftest("MB"), 0)
    assert giga.outcome is mega.outcome is M
    assert giga.rows[0].value == pytest.approx(392.26 / 8) and giga.rows[0].unit == "GB/s"
    assert mega.rows[0].value == pytest.approx(392.26 * 1048576 / 1e9)


@pytest.mark.parametrize(
    "text",
    [
        perftest()[: -len(RULE)],
        perftest(row=""),
        perftest(row=" 65536      5000             395.94\n"),
        perftest(row=" Completion with error at client\n Failed status 12: wr_id 0 syndrom 0x81\n"),
        "Couldn't connect to 10.0.0.1:18515\nUnable to open file descriptor for socket connection",
        " IB device mlx5_9 not found\n",
    ],
)
def test_perftest_that_did_not_finish(text: str) -> None:
    assert outcome_of("ib_write_bw", text) is E


# --- SEL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        ("Memory #0x88 | Uncorrectable ECC | Asserted", F),
        ("Memory #0x88 | Correctable ECC | Asserted", U),
        ("Temperature #0x30 | Upper Critical going high | Asserted", F),
        ("Temperature #0x30 | Upper Critical going high | Deasserted", M),
        ("Temperature #0x30 | Upper Non-critical going high | Asserted", M),
        ("Fan #0x41 | Lower Non-recoverable going low  | Asserted", F),
        ("Critical Interrupt #0x90 | Bus Fatal Error | Asserted", F),
        ("Power Supply #0x51 | Failure detected | Asserted", F),
        ("Power Supply #0x51 | Redundancy Lost | Asserted", U),
        ("Event Logging Disabled #0x07 | Log area reset/cleared | Asserted", M),
        ("System Event #0x08 | Timestamp Clock Sync | Sideways", E),
        ("Critical Interrupt #0x90 | Bus Fatal Error | Deasse9ted", E),
        ("System Event", E),
        ("OEM record dd | 000137 | 1a0021504053", M),
    ],
)
def test_sel(event: str, outcome: Outcome) -> None:
    assert outcome_of("ipmitool sel", f"   1 | 12/24/2025 | 13:58:36 UTC | {event}\n") is outcome


def test_an_empty_sel_and_one_that_cannot_be_read() -> None:
    assert outcome_of("ipmitool sel", "SEL has no entries\n") is M
    assert outcome_of("ipmitool sel", "") is E
    assert outcome_of("ipmitool sel", "Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory") is E
    assert outcome_of("ipmitool sel", "Get SEL Info command failed", 1) is E


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", PARSERS)
def test_missing_killed_and_silent_tools_are_errors_that_say_so(tool: str) -> None:
    missing: Reading = PARSERS[tool]("", 127, f"bash: {tool}: command not found")
    assert missing.outcome is E and "not there" in " ".join(missing.whys)
    killed = PARSERS[tool]("", 137, "Killed")
    assert killed.outcome is E and "signal 9" in " ".join(killed.whys)
    assert PARSERS[tool](" \n", 0).outcome is PARSERS[tool]("fine", None).outcome is E
