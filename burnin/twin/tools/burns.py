"""gpu_burn and HPL: what they would print at their end, of GPUs as they are. They end at once, and heat nothing.

A GPU with silent data corruption (`sdc`: probability of a wrong tile a launch) gets so many launches of it wrong, drawn from its
UUID. Forms: captures of gpu_burn, of HPL-NVIDIA 1.0.0; "( per GPU)" and HPL-MxP: reference/tool_formats.md and NVIDIA's manual.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from typing import Any

from ..state import Row, State
from .smi import Said
from .versions import version

_LAUNCHES_S = 25
"""Launches of a second, as of our own load."""
_STEPS = 10
_LATE = {"hpl": 0.5, "hpl-mxp": 8.0}
"""Rate as a multiple of our fp32 kernels' (assumption: nobody has published HPL of these GPUs)."""
_GOOD, _WRONG = 0.0029, 1.7e7
_RULE, _LINE = "=" * 80 + "\n", "-" * 80 + "\n"


def _rows(facts: Mapping[str, Any], state: State) -> list[tuple[Mapping[str, Any], Row]]:
    return [(own, state.gpus[own["position"]]) for own in facts["gpus"]]


def wrong(row: Row, who: str, launches: int) -> int:
    """How many of so many launches a GPU gets wrong; the same each time."""
    share = row["sdc_ppm"] / 1e6
    if not share or launches <= 0:
        return 0
    if share * launches > 30:
        return round(share * launches)
    chance = Random(f"{who}/{launches}")
    return sum(chance.random() < share for _ in range(launches))


def pace(facts: Mapping[str, Any], row: Row) -> float:
    """Speed of a GPU against one at its highest clock."""
    return float(max(row["clock_busy_mhz"], 1) / facts["facts"]["clock_max_mhz"] * (1 - row["slow_ppm"] / 1e6))


def gpu_burn(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`gpu_burn [-tc] [-d] SECONDS`: errors start again from 0 after every summary, FAULTY stays."""
    rows, seconds = _rows(facts, state), next((int(word) for word in argv if word.isdigit()), 10)
    if any(row["hung"] for _, row in rows):
        return None
    out = f"Using compare file: compare.ptx\nBurning for {seconds} seconds.\n"
    if any(row["lost"] for _, row in rows):
        return out, 'Couldn\'t init a GPU test: Error in "Initing CUDA" (gpu_burn-drv.cpp:189): CUDA_ERROR_UNKNOWN\n', 1
    name, free = facts["facts"]["name"], facts["facts"]["memory_mib"] - facts["facts"]["reserved_mib"]
    out += "".join(f"GPU {own['index']}: {name} (UUID: {own['uuid']})\n" for own, _ in rows)
    size = f"{free} MB of memory ({free - 512} MB available, using {round(0.9 * (free - 512))} MB of it)"
    out += "".join(f"Initialized device {own['index']} with {size}, using FLOATS, using Tensor Cores\n" for own, _ in rows)
    rate = [facts["rates"]["gemm_tflops"] * 1000 * pace(facts, row) for _, row in rows]
    bad = [
        [wrong(row, f"{own['uuid']}/burn/{step}", seconds * _LAUNCHES_S // _STEPS) for step in range(_STEPS)] for own, row in rows
    ]
    for step in range(_STEPS):
        share = (step + 1) / _STEPS
        done = " - ".join(f"{int(seconds * share * gflops / 1.8e4)} ({gflops:.0f} Gflop/s)" for gflops in rate)
        counts = " - ".join(f"{37 * own[step]}" + ("  (WARNING!)" if own[step] else "") for own in bad)
        temps = " - ".join(f"{row['temp_c']} C" for _, row in rows)
        out += f"\r{100 * share:.1f}%  proc'd: {done}   errors: {counts}  temps: {temps} "
        out += f"\n\tSummary at:   {time.strftime('%a %b %d %H:%M:%S %Z %Y')}\n\n" if step + 1 < _STEPS else "\n"
    out += "Killing processes with SIGTERM (soft kill)\n"
    out += "".join(f"Freed memory for dev {own['index']}\nUninitted cublas\n" for own, _ in rows) + "done\n\n"
    verdicts = "".join(f"\tGPU {own['index']}: {'FAULTY' if any(n) else 'OK'}\n" for (own, _), n in zip(rows, bad))
    return out + f"Tested {len(rows)} GPUs:\n{verdicts}", "", 0


def hpl(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`hpl.sh --dat FILE`, `xhpl`: one problem over all GPUs, as fast as the slowest of them."""
    rows = _rows(facts, state)
    if any(row["hung"] for _, row in rows):
        return None
    if any(row["lost"] for _, row in rows):
        return "", "!!!! ERROR: RANK: 0 HOST: tray CUDA runtime error: unknown error\n", 1
    count, kind = len(rows), version(facts, "hpl")
    order, block = 92160 * max(1, round(count**0.5)), 1024
    gflops = count * facts["rates"]["fma_tflops"] * 1e3 * _LATE["hpl"] * min(pace(facts, row) for _, row in rows)
    seconds = 2 / 3 * order**3 / gflops / 1e9
    bad = any(wrong(row, f"{own['uuid']}/hpl", max(1, int(seconds * _LAUNCHES_S))) for own, row in rows)
    across = 2 if count % 2 == 0 else 1
    out = "".join(f"INFO: host=tray rank={n} lrank={n} cores=36 gpu={n} cpu={n} mem= net= bin=xhpl\n" for n in range(count))
    out += f"\n{_RULE}HPL-NVIDIA {kind}  -- NVIDIA accelerated HPL benchmark -- NVIDIA\n{_RULE}"
    out += "HPLinpack 2.1  --  High-Performance Linpack benchmark  --   October 26, 2012\n"
    out += "Written by A. Petitet and R. Clint Whaley,  Innovative Computing Laboratory, UTK\n" + _RULE
    out += f"\nN      : {order:7}\nNB     : {block:7}\nP      : {across:7}\nQ      : {count // across:7}\n\n{_LINE}"
    per = f" ( {gflops / count:.3e})" if not kind.startswith("1.") else " "
    head = " ( per GPU)" if not kind.startswith("1.") else ""
    out += f"{_RULE}T/V                N    NB     P     Q               Time                 Gflops{head}\n{_LINE}"
    cells = f"{order:7} {block:5} {across:5} {count // across:5} {seconds:18.2f} {gflops:22.3e}"
    residual = _WRONG if bad else _GOOD
    out += f"WR03L2L2     {cells}{per}\n{_LINE}"
    out += f"||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)= {residual:16.7f} ...... {'FAILED' if bad else 'PASSED'}\n{_RULE}"
    return out + _summary(bad), "", 0


def _summary(bad: bool) -> str:
    return (
        "\nFinished      1 tests with the following results:\n"
        f"              {int(not bad)} tests completed and passed residual checks,\n"
        f"              {int(bad)} tests completed and failed residual checks,\n"
        f"              0 tests skipped because of illegal input values.\n{_LINE}\nEnd of Tests.\n{_RULE}"
    )


def hpl_mxp(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`hpl-mxp.sh ...`: the result block of HPL-MxP."""
    rows = _rows(facts, state)
    if any(row["hung"] for _, row in rows):
        return None
    if any(row["lost"] for _, row in rows):
        return "", "!!!! ERROR: RANK: 0 HOST: tray CUDA runtime error: unknown error\n", 1
    rate = facts["rates"]["fma_tflops"] * 1e3 * _LATE["hpl-mxp"] * min(pace(facts, row) for _, row in rows)
    bad = any(wrong(row, f"{own['uuid']}/mxp", 100 * _LAUNCHES_S) for own, row in rows)
    mark = "****** HPL MxP Result    ******\n"
    residual = f"||Ax-b||_oo / (EPS * (||A||_oo * ||x||_oo + ||b||_oo) * N) = {_WRONG if bad else 5.6e-4:15.6E}"
    total = rate * len(rows)
    out = (
        f"{mark}\n   EPS   . . . =    2.000000E-16\n{residual} ...... {'FAILED' if bad else 'PASSED'}\n\n"
        f"   N = 258048, NB = 1024, NPROW = {len(rows)}, NPCOL = 1, SLOPPY-TYPE = 2\n"
        f"      GFLOPS = {total:.4e}, per GPU = {rate:10.2f} ------ The HPL-MxP performance to report\n"
        f"   LU GFLOPS = {5 * total:.4e}, per GPU = {5 * rate:10.2f} ------ The performance excluding the iterative solver part\n"
        f"\n{mark}"
    )
    return out, "", 0
