"""Tools as checks: what they print becomes measurements on the right part, and what shows nothing never passes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.captures import folder
from burnin.checks import CHECKS, toolbox
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.tooling import Tool, names
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from burnin.suites.schema import Stage
from tests import build

needs_captures = pytest.mark.skipif(not (folder() / "INDEX.tsv").is_file(), reason="no captures: set BURNIN_CAPTURES")
WHO = {
    "gpus": [  # NVML counts by PCI address, modules by position
        {"gpu": f"g{position}", "index": index, "bdf": f"0000{domain}:01:00.0"}
        for index, (position, domain) in enumerate(zip((1, 0, 3, 2), ("0008", "0009", "0018", "0019"), strict=True))
    ]
}


def context(name: str, **args: Any) -> Context:
    stage = Stage.model_validate({"stage": "tools", "steps": [{"check": name, "with": args}]})
    return Context("t07", build.rack(), load_profile("gb300-nvl72"), build.suite(), stage, build.catalogue(), args)


def said(stdout: str, code: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"exit": code, "signal": None, "stdout": stdout, "stderr": "", "cut": False, "ended": "", "left": 0, **more}


def judge(name: str, *bodies: dict[str, Any], lost: bool = False, **args: Any) -> dict[tuple[str, str], Measurement]:
    rounds = [[Answer(Order("t07", "identify"), True, WHO)], *([Answer(Order("t07", "program"), True, body)] for body in bodies)]
    got = CHECKS[name].judge(context(name, **args), Evidence(answers=rounds, lost=lost))
    assert len({(m.name, m.part) for m in got}) == len(got)
    return {(m.name, m.part): m for m in got}


def results(got: dict[tuple[str, str], Measurement], name: str) -> dict[str, str]:
    return {part: str(m.result) for (one, part), m in got.items() if one == name}


def capture(name: str) -> str:
    return (folder() / name).read_text(errors="replace")


# ---------------------------------------------------------------- dcgm


def diag(*tests: tuple[str, str, dict[int, str]], gpus: int = 4) -> str:
    """JSON of DCGM 4: (name, status of the test, index -> status)."""

    def one(name: str, status: str, entities: dict[int, str]) -> dict[str, Any]:
        found = [{"entity_group": "GPU", "entity_group_id": 1, "entity_id": i, "status": s} for i, s in entities.items()]
        return {"name": name, "results": found, "test_summary": {"status": status}}

    return json.dumps({
        "DCGM Diagnostic": {"test_categories": [{"category": "Integration", "tests": [one(*test) for test in tests]}]},
        "entity_groups": [{"entity_group": "GPU", "entity_group_id": 1, "entities": [{"entity_id": i} for i in range(gpus)]}],
        "metadata": {"version": "4.2.3"},
    })  # fmt: skip


ALL = dict.fromkeys(range(4), "Pass")


def test_a_diag_that_passes_passes_on_every_gpu_and_the_tray() -> None:
    got = judge("dcgm", said(diag(("pcie", "Pass", ALL), ("memory", "Pass", ALL))))
    assert results(got, "dcgm.verdict") == dict.fromkeys(("t07", "t07.g0", "t07.g1", "t07.g2", "t07.g3"), "PASS")


@pytest.mark.parametrize(("index", "part"), [(0, "t07.g1"), (2, "t07.g3")])
def test_a_gpu_that_fails_is_named_by_its_position_not_by_its_index(index: int, part: str) -> None:
    got = judge("dcgm", said(diag(("memory", "Fail", {**ALL, index: "Fail"})), 226))
    failed = {part for part, result in results(got, "dcgm.verdict").items() if result == "FAIL"}
    assert failed == {part}, "and the test as a whole adds nothing to it"


def test_gpus_that_pass_under_a_test_that_fails_do_not_make_it_pass() -> None:
    got = results(judge("dcgm", said(diag(("pcie", "Fail", ALL)))), "dcgm.verdict")
    assert got["t07"] == "FAIL"
    assert {got[f"t07.g{n}"] for n in range(4)} == {"PASS"}, "and no GPU is condemned for it"


def test_a_skip_is_not_a_pass() -> None:
    got = results(judge("dcgm", said(diag(("pcie", "Skip", dict.fromkeys(range(4), "Skip"))))), "dcgm.verdict")
    assert set(got.values()) == {"UNKNOWN"}


SLOW = "Max power did not reach the desired minimum"


def warned(entity: int | None = None, summary: str = "", text: str = SLOW) -> str:
    """A diag that passes, with a warning at one entity or in the summary."""
    whole = json.loads(diag(("targeted_power", "Pass", ALL)))
    (test,) = whole["DCGM Diagnostic"]["test_categories"][0]["tests"]
    for at in (test["results"][entity] if entity is not None else None, test["test_summary"] if summary else None):
        if at is not None:
            said = text if at is not test["test_summary"] else summary
            at["warnings"] = [{"warning": said, "error_id": 1, "error_category": 1, "error_severity": 1}]
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (warned(2), "t07.g3"),  # the row's own entity tells
        (warned(0), "t07.g1"),
        (warned(2, SLOW), "t07.g3"),  # the summary says it again
        (warned(1, text="GPU 1 sees errors from its peer GPU 3"), "t07.g0"),
        (warned(summary=f"GPU 3 {SLOW}"), "t07.g2"),
        (warned(summary=f"Persistence mode for GPU 3 is disabled. {SLOW}"), "t07.g2"),
        (warned(summary=SLOW), "t07"),  # of nobody: one HOLD, on the tray
        (warned(summary="GPU 9 was slow"), "t07"),  # none of this tray's
    ],
)
def test_a_warning_holds_the_gpu_it_speaks_of_and_the_tray_where_it_speaks_of_none(text: str, held: str) -> None:
    got = results(judge("dcgm", said(text)), "dcgm.verdict")
    assert {part for part, result in got.items() if result != "PASS"} == {held} and got[held] == "UNKNOWN"
    assert {f"t07.g{n}" for n in range(4)} <= set(got)


def test_a_warning_of_dcgm_3_about_many_gpus_holds_the_tray_or_the_gpu_it_names() -> None:
    many = [{"warning": f"GPU 0 said {n}"} for n in range(60)]
    for more, held in (
        ({"warnings": SLOW}, {"t07"}),
        ({"warnings": "GPU 1 was slow"}, {"t07.g0"}),
        ({"warnings": many}, {"t07.g1"}),
    ):
        tests = [{"name": "Targeted Power", "results": [{"gpu_ids": "0,1,2,3", "status": "Pass", **more}]}]
        text = json.dumps(
            {"DCGM GPU Diagnostic": {"version": "3.3.5", "test_categories": [{"category": "Stress", "tests": tests}]}}
        )
        got = results(judge("dcgm", said(text)), "dcgm.verdict")
        assert {part for part, result in got.items() if result != "PASS"} == held


@needs_captures
@pytest.mark.parametrize(
    "file", ["dcgm423_r2_l40s_pcie_FAIL.txt", "dcgm339_r3_targeted_power_FAIL.txt", "glimmer_gb10-level2-partial-skip.json"]
)
@pytest.mark.parametrize("code", [0, 226])
def test_successfully_ran_above_a_failing_table_fails(file: str, code: int) -> None:
    text = capture(f"dcgmi-diag/{file}")
    assert Result.FAIL in {m.result for m in judge("dcgm", said(text, code)).values()}


# ---------------------------------------------------------------- whatever the tool: nothing shown is never a pass

BROKEN = [
    said("", 127, stderr="sh: 1: dcgmi: not found"),
    said("", None, signal="SIGKILL"),
    said("{", 0),
    said("\x00\xff garbage", 0),
    said("", 0, ended="time"),
    said("", 1, stderr="error: no"),
]


@pytest.mark.parametrize("tool", toolbox.TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_tool_that_is_missing_killed_cut_or_garbled_is_unknown_everywhere(tool: Tool, number: int) -> None:
    got = judge(tool.name, BROKEN[number])
    assert got
    assert {m.result for m in got.values()} == {Result.UNKNOWN}
    assert all(m.why for m in got.values())


@pytest.mark.parametrize("tool", toolbox.TOOLS, ids=lambda tool: tool.name)
def test_a_tool_that_was_not_run_is_unknown(tool: Tool) -> None:
    got = CHECKS[tool.name].judge(context(tool.name), Evidence())
    assert got
    assert {m.result for m in got} == {Result.UNKNOWN}


@pytest.mark.parametrize("more", [{"cut": True}, {"ended": "lease"}, {"ended": "margin"}, {"exit": 1}, {"exit": None}])
def test_good_rows_of_a_tool_that_was_cut_or_ended_are_not_a_pass(more: dict[str, Any]) -> None:
    whole = said(diag(("pcie", "Pass", ALL)))
    assert {m.result for m in judge("dcgm", {**whole, **more}).values()} == {Result.UNKNOWN}


def test_what_it_found_bad_before_it_was_ended_stands() -> None:
    got = judge("dcgm", said(diag(("pcie", "Fail", {**ALL, 1: "Fail"})), None, ended="lease"))
    assert got["dcgm.verdict", "t07.g0"].result is Result.FAIL


# ---------------------------------------------------------------- nvbandwidth


def bandwidths(h2d: dict[int, float] | None = None, pair: dict[tuple[int, int], float] | None = None) -> str:
    def case(name: str, matrix: Sequence[Sequence[float | None]]) -> dict[str, Any]:
        text = [["N/A" if v is None else f"{v:.2f}" for v in row] for row in matrix]
        total = sum(v for row in matrix for v in row if v is not None)
        return {
            "name": name,
            "status": "Passed",
            "bandwidth_description": f"{name} (GB/s)",
            "bandwidth_matrix": text,
            "sum": total,
        }

    up: list[list[float | None]] = [[(h2d or {}).get(i, 205.0) for i in range(4)]]
    pairs: list[list[float | None]] = [[None if a == b else (pair or {}).get((a, b), 770.0) for b in range(4)] for a in range(4)]
    cases = [
        case("host_to_device_memcpy_ce", up), case("device_to_host_memcpy_ce", [[190.0] * 4]),
        case("device_local_copy", [[3300.0] * 4]), case("device_to_device_memcpy_read_ce", pairs),
        case("device_to_device_memcpy_write_ce", [[None if a == b else 770.0 for b in range(4)] for a in range(4)]),
    ]  # fmt: skip
    return json.dumps(
        {"nvbandwidth": {"git_version": "v0.8", "GPU Device list": [f"{i}: GB300" for i in range(4)], "testcases": cases}}
    )


def test_a_healthy_tray_passes_nvbandwidth() -> None:
    got = judge("nvbandwidth", said(bandwidths()))
    assert {m.result for m in got.values()} == {Result.PASS}
    assert ("copy.h2d", "t07.g2") in got
    assert ("p2p.bandwidth", "t07") in got


@pytest.mark.parametrize(("index", "part"), [(1, "t07.g0"), (3, "t07.g2")])
@pytest.mark.parametrize("speed", [185.0, 60.0])
def test_a_slow_way_into_a_gpu_is_that_gpus(index: int, part: str, speed: float) -> None:
    got = judge("nvbandwidth", said(bandwidths(h2d={index: speed})))
    assert {key for key, m in got.items() if m.result is not Result.PASS} == {("copy.h2d", part)}


@pytest.mark.parametrize("ends", [(0, 1), (2, 3)])
def test_a_slow_pair_is_pinned_on_neither_end(ends: tuple[int, int]) -> None:
    got = judge("nvbandwidth", said(bandwidths(pair={ends: 300.0})))
    assert {key for key, m in got.items() if m.result is not Result.PASS} == {("p2p.bandwidth", "t07")}


# ---------------------------------------------------------------- nccl-tests


def nccl(busbw: float, wrong: int = 0, ranks: int = 4, end: bool = True) -> str:
    size = 16 << 30
    rank_lines = "".join(
        f"#  Rank  {i} Group  0 Pid {100 + i} on t07 device  {i} [0008:01:00] NVIDIA GB300\n" for i in range(ranks)
    )
    row = f" {size} {size // 4} float sum -1 30000.0 500.0 {busbw} {wrong} 30000.0 500.0 {busbw} {wrong}\n"
    tail = f"# Out of bounds values : {2 * wrong} {'FAILED' if wrong else 'OK'}\n# Avg bus bandwidth    : {busbw}\n#\n"
    head = "# nThread 1 nGpus 4 minBytes 1 maxBytes 2\n#\n# Using devices\n"
    columns = (
        "#\n#      size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       \n"
    )
    return head + rank_lines + columns + row + (tail if end else "")


def test_busbw_is_judged_by_the_ranks_that_took_part() -> None:
    assert {m.result for m in judge("nccl-tests", said(nccl(680.0))).values()} == {Result.PASS}
    slow = judge("nccl-tests", said(nccl(610.0)))["nccl-tests.busbw", "t07"]
    assert (slow.result, slow.value, slow.limit) == (Result.FAIL, 610.0, ">= 616 GB/s")
    fewer = judge("nccl-tests", said(nccl(680.0, ranks=3)))["nccl-tests.busbw", "t07"]
    assert fewer.result is Result.UNKNOWN


def test_exit_0_with_wrong_results_inside_fails_and_without_its_end_it_is_unknown() -> None:
    assert judge("nccl-tests", said(nccl(680.0, wrong=3)))["nccl-tests.verdict", "t07"].result is Result.FAIL
    assert {m.result for m in judge("nccl-tests", said(nccl(680.0, end=False))).values()} == {Result.UNKNOWN}


# ---------------------------------------------------------------- nvidia-smi


def nvlink(inactive: dict[tuple[int, int], str] | None = None, links: int = 18) -> str:
    out = []
    for gpu in range(4):
        out.append(f"GPU {gpu}: NVIDIA GB300 (UUID: GPU-{gpu}-1-2-3)")
        out += [f"\t Link {n}: {(inactive or {}).get((gpu, n), '53.125 GB/s')}" for n in range(links)]
    return "\n".join(out) + "\n"


@needs_captures
def test_a_real_gb300_report_is_read_and_its_gpus_are_found_by_their_address() -> None:
    text = capture("nvidia-smi/real_qx_gb300.xml")
    bdfs = re.findall(r'<gpu id="([^"]+)"', text)
    who = {"gpus": [{"gpu": f"g{3 - i}", "index": i, "bdf": bdf.lower()} for i, bdf in enumerate(bdfs)]}
    rounds = [
        [Answer(Order("t07", "identify"), True, who)],
        *([Answer(Order("t07", "script"), True, said(t))] for t in (text, nvlink())),
    ]
    got = CHECKS["nvidia-smi"].judge(context("nvidia-smi"), Evidence(answers=rounds))
    assert {(m.name, m.part): str(m.result) for m in got if m.result is not Result.PASS} == {}
    assert {m.part for m in got} == {"t07", "t07.g0", "t07.g1", "t07.g2", "t07.g3"}


@needs_captures
@pytest.mark.parametrize("file", ["mocknvml_qx_gb200-fabric-degraded.xml", "mocknvml_qx_gb200-lost.xml"])
def test_a_fabric_that_is_completed_and_unhealthy_or_a_lost_gpu_fails(file: str) -> None:
    got = judge("nvidia-smi", said(capture(f"nvidia-smi/{file}")), said(nvlink()))
    assert Result.FAIL in {m.result for m in got.values()}


@pytest.mark.parametrize(("gpu", "link", "part"), [(0, 3, "t07.g1"), (3, 17, "t07.g2")])
def test_an_inactive_link_fails_on_its_own_gpu(gpu: int, link: int, part: str) -> None:
    got = judge("nvidia-smi", said(nvlink()), said(nvlink({(gpu, link): "<inactive>"})))
    assert got["nvidia-smi.verdict", f"{part}.l{link}"].result is Result.FAIL
    assert {p for p, r in results(got, "nvidia-smi.links").items() if r == "FAIL"} == {part}


def test_all_links_inactive_is_not_healthy() -> None:
    got = judge("nvidia-smi", said(nvlink()), said(nvlink({(g, n): "<inactive>" for g in range(4) for n in range(18)})))
    assert set(results(got, "nvidia-smi.links").values()) == {"FAIL"}


def test_fewer_links_than_the_gpu_has_are_not_a_pass() -> None:
    got = judge("nvidia-smi", said(nvlink(links=17)), said(nvlink(links=17)))
    assert set(results(got, "nvidia-smi.links").values()) == {"FAIL"}


# ---------------------------------------------------------------- gpu-burn, logs


def burned(*words: str) -> str:
    lines = "".join(f"\tGPU {i}: {word}\n" for i, word in enumerate(words))
    done, errors, temps = ("10 (9 Gflop/s)", "0", "60 C")
    said = [" - ".join(one for _ in words) for one in (done, errors, temps)]
    return f"100.0%  proc'd: {said[0]}   errors: {said[1]}   temps: {said[2]}\nTested {len(words)} GPUs:\n{lines}"


def test_a_faulty_gpu_is_named_and_fewer_gpus_are_not_a_pass() -> None:
    got = results(judge("gpu-burn", said(burned("OK", "OK", "FAULTY", "OK"))), "gpu-burn.verdict")
    assert {part for part, result in got.items() if result == "FAIL"} == {"t07.g3"}
    few = results(judge("gpu-burn", said(burned("OK", "OK", "OK"))), "gpu-burn.verdict")
    assert few["t07.g2"] == "UNKNOWN"


@needs_captures
def test_an_old_log_condemns_nobody() -> None:
    got = judge("ipmi-sel", said(capture("ipmi/gcm_sel_fail.txt")))
    assert {m.result for m in got.values()} == {Result.UNKNOWN}


# ---------------------------------------------------------------- orders


def test_heavy_tools_are_leashed_on_all_gpus_of_the_tray_and_light_ones_go_by_the_shell() -> None:
    asked = [[Answer(Order("t07", "identify"), True, WHO)]]
    (order,) = CHECKS["dcgm"].orders(context("dcgm", level=4, max="30 min"), asked)
    assert (order.via, order.verb, order.args["argv"]) == ("agent", "program", ["dcgmi", "diag", "-r", "4", "-j"])
    assert (order.args["gpus"], order.args["max_s"], order.timeout_s) == (["g0", "g1", "g2", "g3"], 1800.0, 1830.0)
    (light,) = CHECKS["ibstat"].orders(context("ibstat", program="/opt/my tools/ibstat"), [])
    assert light.via == "shell"
    assert light.args["script"].endswith("'/opt/my tools/ibstat'")


def test_every_tool_that_loads_is_declared_to_heat() -> None:
    asked = [[Answer(Order("t07", "identify"), True, WHO)]]
    for tool in toolbox.TOOLS:
        (order,) = CHECKS[tool.name].orders(context(tool.name), asked if tool.gpus or tool.indices else [])
        assert CHECKS[tool.name].heats == (order.verb == "program")


@pytest.mark.parametrize("args", [{"device": "/dev/nvme0n1; rm -rf /"}, {"file": "/tmp/$(x)"}, {"size": "4G --rw=write"}])
def test_fio_takes_no_shell_from_a_step(args: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        CHECKS["fio"].args.model_validate(args)


def test_fio_only_reads_a_device_unless_it_may_be_wiped() -> None:
    (read,) = CHECKS["fio"].orders(context("fio", device="/dev/nvme1n1"), [])
    assert "--readonly" in read.args["script"] and "--rw=read " in read.args["script"]
    (wipe,) = CHECKS["fio"].orders(context("fio", device="/dev/nvme1n1", wipe_ok=True), [])
    assert "refused" in wipe.args["script"] and "--rw=rw" in wipe.args["script"]


def test_indices_and_addresses_are_positions() -> None:
    assert names("t07", WHO)["GPU 0"] == "t07.g1"
    assert names("t07", WHO)["19:01:00.0"] == "t07.g2"
    assert names("t07", {}) == {}


# ---------------------------------------------------------------- imex, ib_write_bw


def domain(trays: int, status: str = "UP", bad: int | None = None) -> str:
    def node(i: int) -> dict[str, Any]:
        links = {
            str(j): {"host": f"10.0.0.{j}", "status": "DISCONNECTED" if bad in (i, j) else "CONNECTED", "changed": True}
            for j in range(trays) if j != i
        }  # fmt: skip
        return {"status": "UNAVAILABLE" if i == bad else "READY", "host": f"10.0.0.{i}", "connections": links, "version": "580.1"}

    return json.dumps({"nodes": {str(i): node(i) for i in range(trays)}, "timestamp": "5/22/2025 19:46:40.891", "status": status})


def imex(local: dict[str, str], text: str) -> dict[tuple[str, str], str]:
    trays = tuple(f"t{n:02}" for n in range(18))
    ctx = replace(context("imex"), tray="rack", trays=trays)
    first = [Answer(Order(t, "script"), True, said(local.get(t, "READY") + "\n")) for t in trays]
    second = [Answer(Order(t, "script"), True, said(text)) for t in trays]
    return {(m.name, m.part): str(m.result) for m in CHECKS["imex"].judge(ctx, Evidence(answers=[first, second]))}


def test_a_domain_that_is_up_passes_and_one_tray_that_is_not_is_named() -> None:
    assert set(imex({}, domain(18)).values()) == {"PASS"}
    for tray, word in (("t03", "UNAVAILABLE"), ("t11", "NOT_READY")):
        got = imex({tray: word}, domain(18, "DEGRADED", bad=int(tray[1:])))
        assert got["imex.local", tray] != "PASS"
        assert {part for (_, part), result in got.items() if result != "PASS"} == {tray, "rack"}
        assert got["imex.domain", "rack"] == "FAIL"


def test_a_domain_of_fewer_nodes_than_trays_is_unknown() -> None:
    assert imex({}, domain(17))["imex.domain", "rack"] == "UNKNOWN"


@needs_captures
def test_a_pair_is_measured_and_a_missing_end_is_unknown() -> None:
    pairs = [{"from": "t00", "to": "t01", "address": "10.2.0.1"}]
    ctx = replace(context("ib-write-bw", pairs=pairs), tray="rack", trays=("t00", "t01"))
    server, client = CHECKS["ib-write-bw"].orders(ctx, [])
    assert (server.to, client.to) == ("t01", "t00")
    text = capture("perftest/sb_ib_write_bw_loopback_8M.txt")
    done = [[Answer(Order("t01", "script"), True, said(text)), Answer(Order("t00", "script"), True, said(text))]]
    (one,) = CHECKS["ib-write-bw"].judge(ctx, Evidence(answers=done))
    assert one.value == pytest.approx(24056.72 * 2**20 / 1e9), "its MB are MiB"
    assert one.result is Result.FAIL, "200 Gb/s of a port that should have 400"
    (nobody,) = CHECKS["ib-write-bw"].judge(replace(ctx, profile=load_profile("vr200-nvl72")), Evidence(answers=done))
    assert isinstance(nobody.value, float) and nobody.result is Result.UNKNOWN, "nobody has published a limit"
    (none,) = CHECKS["ib-write-bw"].judge(ctx, Evidence())
    assert none.result is Result.UNKNOWN
