"""nvbandwidth and nccl-tests: what they would find in a tray as it is. They end at once, and heat nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any

from ..state import Row, State
from .smi import Said
from .versions import version

_SPREAD = 0.0015


def _rows(facts: Mapping[str, Any], state: State) -> list[tuple[int, str, Any]]:
    return [(own["index"], own["uuid"], state.gpus[own["position"]]) for own in facts["gpus"]]


def nvbandwidth(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`[-j] -t TEST ...`"""
    rows, rates, kind = _rows(facts, state), facts["rates"], version(facts, "nvbandwidth")
    if any(row["hung"] for _, _, row in rows):
        return None
    as_json = "-j" in argv
    if any(row["lost"] for _, _, row in rows):
        said = {"nvbandwidth": {"git_version": kind, "error": "CUDA_ERROR_NO_DEVICE"}}
        return (json.dumps(said) if as_json else "[CUDA_ERROR_NO_DEVICE] no CUDA-capable device is detected") + "\n", "", 1

    def speed(way: str, *ends: int) -> float:
        value = float(rates[way])
        for index in ends:
            _, uuid, row = rows[index]
            value *= (1 - row["bw_lost_ppm"] / 1e6) * Random(f"{uuid}/{way}").gauss(1, _SPREAD)
        return round(value, 2)

    cases, count = [], range(len(rows))
    for name in [word for word in argv[argv.index("-t") + 1 :] if not word.startswith("-")] if "-t" in argv else []:
        if name.startswith("device_to_device"):
            about, matrix = "memcpy CE GPU(row) -> GPU(column)", [
                [None if a == b else speed("p2p_gbps", a, b) for b in count] for a in count
            ]  # fmt: skip
        else:
            way = {"host": "h2d_gbps", "devi": "d2h_gbps"}[name[:4]] if name != "device_local_copy" else "d2d_gbps"
            about, matrix = f"{name}", [[speed(way, i) for i in count]]
        cells = [["N/A" if v is None else f"{v:.2f}" for v in row] for row in matrix]
        total = round(sum(v for row in matrix for v in row if v is not None), 2)
        about = f"{about} bandwidth (GB/s)"
        cases.append({"name": name, "status": "Passed", "bandwidth_description": about, "bandwidth_matrix": cells, "sum": total})
    devices = [f"{index}: {facts['facts']['name']}: ({own['bdf']})" for index, own in enumerate(facts["gpus"])]
    if not as_json:
        return _bandwidth_text(kind, facts, cases), "", 0
    body = {"git_version": kind, "GPU Device list": devices, "testcases": cases}
    return json.dumps({"nvbandwidth": body}, indent=1) + "\n", "", 0


def _bandwidth_text(kind: str, facts: Mapping[str, Any], cases: list[dict[str, Any]]) -> str:
    cuda, name = facts["cuda"], facts["facts"]["name"]
    out = f"nvbandwidth Version: {kind}\nBuilt from Git version: {kind}\n\nCUDA Runtime Version: {cuda}\n"
    out += f"CUDA Driver Version: {cuda}\nDriver Version: {facts['driver']}\n\n"
    out += "".join(f"Device {index}: {name} ({own['bdf']})\n" for index, own in enumerate(facts["gpus"]))
    for case in cases:
        matrix = case["bandwidth_matrix"]
        out += f"\nRunning {case['name']}.\n{case['bandwidth_description']}\n"
        out += " " + "".join(f"{column:10}" for column in range(len(matrix[0]))) + "\n"
        out += "".join(f"{n} " + "".join(f"{cell:>10}" for cell in row) + "\n" for n, row in enumerate(matrix))
        out += f"\nSUM {case['name']} {case['sum']:.2f}\n"
    return (
        f"{out}\nNOTE: The reported results may not reflect the full capabilities of the platform.\n"
        "Performance can vary with software drivers, hardware clocks, and system topology.\n\n"
    )


def nccl(op: str, argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """OP_perf -e BYTES -g GPUS, on this tray's GPUs."""
    words = dict(zip(argv[::2], argv[1::2]))
    ranks = [("tray", own, state.gpus[own["position"]]) for own in facts["gpus"]]
    if any(row["hung"] for _, _, row in ranks):
        return None
    count = int(words.get("-g", 1))
    if count > len(ranks):
        return "", "tray: Test CUDA failure common.cu:1023 'invalid device ordinal'\n", 2
    return collective(op, argv, facts, ranks[:count])


Rank = tuple[str, Mapping[str, Any], Row]
"""Host, GPU, its words."""


def collective(op: str, argv: list[str], facts: Mapping[str, Any], ranks: list[Rank]) -> Said | None:
    """One row, of the largest size, over these GPUs; as fast as the slowest of them."""
    words, kind, count = dict(zip(argv[::2], argv[1::2])), version(facts, "nccl-tests"), len(ranks)
    faults = {row["nccl_fault"] for _, _, row in ranks}
    if 1 in faults:
        return None
    size, old = int(words["-e"]), kind == "2.12"
    head = f"# nccl-tests version {kind} (b4d5bee) nccl-headers=22807 nccl-library=22807\n" if kind >= "2.20" else ""
    head += f"# nThread 1 nGpus {words.get('-g', 1)} minBytes {size} maxBytes {size} iters: 20\n#\n# Using devices\n"
    for rank, (host, own, _) in enumerate(ranks):
        head += f"#  Rank {rank:2} Group  0 Pid {4000 + rank} on {host:>10} device {own['index']:2} [{own['bdf'][4:]}] "
        head += f"{facts['facts']['name']}\n"
    if 2 in faults or any(row["lost"] for _, _, row in ranks):
        return head, "tray: Test CUDA failure common.cu:1023 'invalid device ordinal'\n", 2
    slow = max((row["slow_ppm"] / 1e6 for _, _, row in ranks), default=0.0)
    lost = max((row["bw_lost_ppm"] / 1e6 for _, _, row in ranks), default=0.0)
    busbw = round(_busbw(facts["nccl"]["busbw"][op], count) * (1 - slow) * (1 - lost), 2)
    wrong = 128 if 3 in faults else 0
    time_us = round(size / max(busbw, 1e-3) / 1e3, 1)
    columns = "#\n#      size         count      type   redop" + ("" if old else "    root")
    columns += 2 * f"     time   algbw   busbw {' error' if old else '#wrong'}" + "\n"
    columns += "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
    half = f"{time_us} {busbw} {busbw} {f'{float(wrong):.0e}' if old else wrong}"
    row = f" {size} {size // 4} float sum {'' if old else '-1'} {half} {half}\n"
    bounds = f"# Out of bounds values : {2 * wrong} {'FAILED' if wrong else 'OK'}\n"
    return head + columns + row + bounds + f"# Avg bus bandwidth    : {busbw}\n#\n", "", 0


def _busbw(said: Mapping[str, Any], count: int) -> float:
    """Of so many GPUs: between the numbers given, along the logarithm of the number."""
    table = sorted((int(k), float(v)) for k, v in said.items())
    if count <= table[0][0]:
        return table[0][1]
    for (low, slow), (high, fast) in zip(table, table[1:]):
        if count <= high:
            return slow + (fast - slow) * math.log(count / low) / math.log(high / low)
    return table[-1][1]
