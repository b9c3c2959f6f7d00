"""Was everything loaded at once that the stage asked for, beside the GPUs' kernels?

A load that was not reached proves nothing: copies that did not flow, or slower than they must, and cores that did not work are
UNKNOWN `not_attained`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage

NVLINK = Quantity("together.nvlink", "GB/s", "copies from this GPU to the next of its tray while its kernel ran")
NIC = Quantity("together.nic", "GB/s", "traffic of this network card while the GPUs' kernels ran, in its slower direction")
CPU = Quantity("together.cpu", "1", "mean share of the tray's CPU time that was used while its GPUs' kernels ran")


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Per GPU, and of the tray: what was asked for. Where nothing was, so it says."""
    load = context.stage.load
    found = [_cores(context, evidence)] if load is not None and load.cpu else []
    found += [_traffic(context, evidence, f"{context.tray}.{card}") for card in _cards(context)]
    if load is not None and load.nic and not _cards(context):
        why = "the profile does not say how many network cards a tray has: name them (nic: [n0, n1])"
        found.append(NIC.unknown(context.tray, "missing", why))
    if found and load is not None and not load.nvlink:
        return found
    return [*found, *(_copies(context, evidence, part) for part in context.gpus)]


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Something must be loaded beside the kernels."""
    load = stage.load
    beside = load is not None and (load.nvlink or load.cpu or load.nic)
    return "" if beside else "it judges what is loaded beside the kernels, and nothing is (nvlink, cpu, nic)"


def _cores(context: Context, evidence: Evidence) -> Measurement:
    used = evidence.window(context.tray, "cpu.util")
    known = used.v[~(used.v != used.v)]
    said = "; ".join(
        dict.fromkeys(
            f"{part}: {line.text}" for part in context.gpus for line in evidence.logged(part, "cut", "load") if line.text
        )
    )
    if not known.size:
        return CPU.unknown(context.tray, evidence.why_absent(context.tray, "cpu.util"), said or "no share of CPU time was read")
    return _reached(CPU.judge(context.tray, round(float(known.mean()), 4), context.limits), "of the CPU time was used", said)


def _cards(context: Context) -> list[str]:
    wanted = context.stage.load.nic if context.stage.load is not None else False
    count = context.profile.topology.nics_per_tray or 0
    return list(wanted) if not isinstance(wanted, bool) else [f"n{i}" for i in range(count)] if wanted else []


def _traffic(context: Context, evidence: Evidence, part: str) -> Measurement:
    """By the card's own counters: what a process sent may have gone another way."""
    card = part.partition(".")[2]
    lines = [line.text for line in evidence.logged(part, "load") if line.text]
    lines += [line.text for gpu in context.gpus for line in evidence.logged(gpu, "cut", "load") if f"{card}: " in line.text]
    rates = [evidence.window(part, metric).rate() / 1e9 for metric in ("nic.tx_bytes", "nic.rx_bytes")]
    said = "; ".join(dict.fromkeys(lines))
    if any(math.isnan(one) for one in rates):
        return NIC.unknown(part, evidence.why_absent(part, "nic.tx_bytes"), said or "the card's bytes were not read")
    return _reached(NIC.judge(part, round(min(rates), 4), context.limits), "GB/s went over the card beside the load", said)


def _reached(one: Measurement, words: str, said: str) -> Measurement:
    """Too little is no fault of what was loaded: it says that the stage was not what it should be."""
    if one.result is not Result.FAIL:
        return one
    why = "; ".join(filter(None, [f"{one.value:.3g} {words}", said]))
    return replace(one, result=Result.UNKNOWN, reason="not_attained", why=why)


def _copies(context: Context, evidence: Evidence, part: str) -> Measurement:
    if context.stage.load is None or not context.stage.load.nvlink:
        return NVLINK.unknown(part, "missing", "this stage asks for no copies beside its load")
    value = evidence.window(part, "load.copied").rate() / 1e9
    said = "; ".join(dict.fromkeys(line.text for line in evidence.logged(part, "cut", "load") if line.text))
    if math.isnan(value):
        return NVLINK.unknown(part, evidence.why_absent(part, "load.copied"), said or "no load process counted what it copied")
    return _reached(NVLINK.judge(part, round(value, 3), context.limits), "GB/s were copied beside the load", said)


CHECK = Check(
    name="together",
    about="what a stage loads beside the kernels of its GPUs was loaded too: copies over NVLink, the cores, the network cards",
    quantities=(NVLINK, CPU, NIC),
    judge=judge,
    metrics=("load.copied", "cpu.util", "nic.tx_bytes", "nic.rx_bytes"),
    loaded=True,
    equipment=("nvlink, cpu or nic with it",),
    fits=fits,
)
