"""dcgmi diag, nvbandwidth, nccl-tests: what they would find in a tray as it is. They end at once, and heat nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from ..state import State
from .smi import Said

_BW_FAILS = 0.2
"""Share of its PCIe or NVLink bandwidth that a GPU may lack before DCGM's pcie test fails (assumption)."""
_SPREAD = 0.0015
_TESTS = {"software": 1, "memory": 2, "pcie": 2, "diagnostic": 3, "targeted_power": 3, "memtest": 4}
"""Test of DCGM 4 -> the lowest level that has it."""


def _rows(facts: Mapping[str, Any], state: State) -> list[tuple[int, str, Any]]:
    return [(own["index"], own["uuid"], state.gpus[own["position"]]) for own in facts["gpus"]]


def _complaint(test: str, row: Any) -> str:
    """What a test finds in a GPU; "" is nothing."""
    if row["lost"]:
        return "GPU is lost. Drain the GPU and run a field diagnostic." if test == "software" else ""
    if test == "memory" and (row["ecc_ue_volatile"] or row["remap_pending"]):
        return "There are uncorrectable memory errors or pending row remappings."
    if test == "pcie" and row["bw_lost_ppm"] / 1e6 > _BW_FAILS:
        return "The bandwidth between host and GPU is below the minimum."
    return "A computation gave a wrong result." if test == "diagnostic" and row["sdc_ppm"] else ""


def dcgmi(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`diag -r LEVEL -j` of DCGM 4; exit 226 where a test failed."""
    rows = _rows(facts, state)
    if any(row["hung"] for _, _, row in rows):
        return None
    if argv[:2] != ["diag", "-r"] or "-j" not in argv:
        return "", f"dcgmi: error: unknown arguments {' '.join(argv)}\n", 1
    level, gone, tests = int(argv[2]), any(row["lost"] for _, _, row in rows), list[dict[str, Any]]()
    failed = False
    for name in [test for test, least in _TESTS.items() if least <= level]:
        results, worst = list[dict[str, Any]](), "Pass"
        for index, _, row in rows:
            said = _complaint(name, row)
            status = "Fail" if said else "Skip" if gone and name != "software" else "Pass"
            result = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": index, "status": status}
            if said:
                result["warnings"] = [{"warning": f"GPU {index}: {said}", "error_id": 1}]
            results.append(result)
            worst = "Fail" if "Fail" in (worst, status) else "Skip" if "Skip" in (worst, status) else "Pass"
        failed = failed or worst == "Fail"
        tests.append({"name": name, "results": results, "test_summary": {"status": worst}})
    body = {
        "DCGM Diagnostic": {"test_categories": [{"category": "Integration", "tests": tests}]},
        "entity_groups": [{"entity_group": "GPU", "entity_group_id": 1, "entities": [{"entity_id": i} for i, _, _ in rows]}],
        "metadata": {"version": "4.4.2", "Driver Version Detected": facts["driver"]},
    }
    return json.dumps(body, indent=2) + "\n", "", 226 if failed else 0


def nvbandwidth(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`-j -t TEST ...` of version 0.8."""
    rows, rates = _rows(facts, state), facts["rates"]
    if any(row["hung"] for _, _, row in rows):
        return None
    if any(row["lost"] for _, _, row in rows):
        return json.dumps({"nvbandwidth": {"git_version": "v0.8", "error": "CUDA_ERROR_NO_DEVICE"}}) + "\n", "", 1

    def speed(way: str, *ends: int) -> float:
        value = float(rates[way])
        for index in ends:
            _, uuid, row = rows[index]
            value *= (1 - row["bw_lost_ppm"] / 1e6) * Random(f"{uuid}/{way}").gauss(1, _SPREAD)
        return round(value, 2)

    cases, count = [], range(len(rows))
    for name in argv[argv.index("-t") + 1 :] if "-t" in argv else []:
        if name.startswith("device_to_device"):
            matrix = [[None if a == b else speed("p2p_gbps", a, b) for b in count] for a in count]
        else:
            way = {"host": "h2d_gbps", "devi": "d2h_gbps"}[name[:4]] if name != "device_local_copy" else "d2d_gbps"
            matrix = [[speed(way, i) for i in count]]
        cells = [["N/A" if v is None else f"{v:.2f}" for v in row] for row in matrix]
        total = round(sum(v for row in matrix for v in row if v is not None), 2)
        about = f"{name} bandwidth (GB/s)"
        cases.append({"name": name, "status": "Passed", "bandwidth_description": about, "bandwidth_matrix": cells, "sum": total})
    devices = [f"{index}: {facts['facts']['name']}: ({own['bdf']})" for index, own in enumerate(facts["gpus"])]
    return (
        json.dumps({"nvbandwidth": {"git_version": "v0.8", "GPU Device list": devices, "testcases": cases}}, indent=1) + "\n",
        "",
        0,
    )


def nccl(op: str, argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """OP_perf -e BYTES -g GPUS: one row, of the largest size."""
    rows, words = _rows(facts, state), dict(zip(argv[::2], argv[1::2]))
    faults = {row["nccl_fault"] for _, _, row in rows}
    if 1 in faults or any(row["hung"] for _, _, row in rows):
        return None
    size, count = int(words["-e"]), int(words["-g"])
    head = f"# nThread 1 nGpus {count} minBytes {size} maxBytes {size} iters: 20\n#\n# Using devices\n"
    name = facts["facts"]["name"]
    for rank, own in enumerate(facts["gpus"][:count]):
        head += f"#  Rank {rank:2} Group  0 Pid {4000 + rank} on       tray device {rank:2} [{own['bdf'][4:]}] {name}\n"
    if count > len(rows) or 2 in faults or any(row["lost"] for _, _, row in rows):
        return head, "tray: Test CUDA failure common.cu:1023 'invalid device ordinal'\n", 2
    table = {int(k): float(v) for k, v in facts["nccl"]["busbw"][op].items()}
    slow = max((row["slow_ppm"] / 1e6 for _, _, row in rows), default=0.0)
    lost = max((row["bw_lost_ppm"] / 1e6 for _, _, row in rows), default=0.0)
    busbw = round(table[min(table, key=lambda n: abs(n - count))] * (1 - slow) * (1 - lost), 2)
    wrong = 128 if 3 in faults else 0
    time_us = round(size / max(busbw, 1e-3) / 1e3, 1)
    columns = (
        "#\n#      size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
    )
    half = f"{time_us} {busbw} {busbw} {wrong}"
    row = f" {size} {size // 4} float sum -1 {half} {half}\n"
    bounds = f"# Out of bounds values : {2 * wrong} {'FAILED' if wrong else 'OK'}\n"
    return head + columns + row + bounds + f"# Avg bus bandwidth    : {busbw}\n#\n", "", 0
