"""Thermal resistance against peers: a bad cold plate and a kinked hose, told apart.

Per GPU the slope (T_load - T_idle) / (P_load - P_idle) in K/W: a sensor's offset and the inlet temperature cancel out.
Slots differ (a GPU behind another breathes its warm water) and trays differ (manifold position), so each slope is
divided by its slot's median over the trays; what the four GPUs of a tray share is the tray's (hose, quick disconnect),
and only what remains after taking that away is the GPU's own (thermal interface, cold plate): parents first.

Two gates, always: out of family (robust z) and practically large (relative excess). Only the hot side is judged.
Statistics: reference signatures 1 and 9; slot medians and leave-one-out tray medians with shrinkage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow, Topology
from burnin.signatures.robust import others, shrinkage, sigma, without_trend
from burnin.telemetry.series import Floats, Stretch, Telemetry

GPU_ROW, TRAY_ROW = "thermal.rth", "thermal.tray"
MIN_RISE_W = 50.0
"""A GPU whose power rose by less was not loaded: a slope over it would be noise."""
MIN_TRAYS = 6
"""Fewer trays have no family to be out of."""


@dataclass(frozen=True, slots=True)
class Excess:
    """How far one part is above its peers in one load stretch: slope in K/W, relative excess, robust z, both gates."""

    stage: str
    slope: float
    relative: float
    z: float
    out: bool


def slopes(telemetry: Telemetry, idle: Stretch, load: Stretch, topology: Topology, unloaded: frozenset[str]) -> Floats:
    """Thermal resistance in K/W, one row per tray, one column per slot; NaN where it could not be measured.

    `unloaded`: GPUs whose load was not reached in this stretch; nothing is said about them.
    """
    out = np.full((topology.compute_trays, topology.gpus_per_tray), np.nan)
    for row, tray in enumerate(topology.trays()):
        for column, gpu in enumerate(topology.gpus(tray)):
            if gpu in unloaded:
                continue
            t_idle, t_load = (telemetry.window(gpu, "gpu.temp", s).mean() for s in (idle, load))
            p_idle, p_load = (telemetry.window(gpu, "gpu.power", s).mean() for s in (idle, load))
            if p_load - p_idle >= MIN_RISE_W:  # False for NaN
                out[row, column] = (t_load - t_idle) / (p_load - p_idle)
    return out


def excess(slope: Floats, stage: str, topology: Topology, rows: Mapping[str, SignatureRow]) -> dict[str, Excess]:
    """Every measured tray and GPU against its peers, in one load stretch. Empty when there are too few trays."""
    measured = ~np.isnan(slope)
    if np.count_nonzero(measured.any(axis=1)) < MIN_TRAYS:
        return {}
    slot = np.array([[np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else np.nan for column in slope.T]])
    relative = slope / slot - 1.0
    tray = np.array([np.median(r[~np.isnan(r)]) if (~np.isnan(r)).any() else np.nan for r in relative])
    return {
        **_trays(slope, tray, stage, topology, rows[TRAY_ROW]),
        **_gpus(slope, relative, tray, stage, topology, rows),
    }


def _trays(slope: Floats, tray: Floats, stage: str, topology: Topology, row: SignatureRow) -> dict[str, Excess]:
    rest = without_trend(tray, np.arange(tray.size, dtype=float))
    scale = sigma(rest, _limit(row, "sigma_min"))
    out = {}
    for index, part in enumerate(topology.trays()):
        # two GPUs or fewer say nothing about what four share
        if not math.isnan(rest[index]) and np.count_nonzero(~np.isnan(slope[index])) * 2 > topology.gpus_per_tray:
            mean = float(np.nanmean(slope[index]))
            out[part] = _judge(stage, mean, float(rest[index]), float(rest[index]) / scale, row)
    return out


def _gpus(
    slope: Floats, relative: Floats, tray: Floats, stage: str, topology: Topology, rows: Mapping[str, SignatureRow]
) -> dict[str, Excess]:
    row, parent = rows[GPU_ROW], rows[TRAY_ROW]
    least = _limit(row, "sigma_min")
    within = sigma((relative - tray[:, None]).ravel(), least)
    weight = np.full(tray.shape, shrinkage(within, sigma(tray, 0.0), topology.gpus_per_tray - 1))
    weight[tray >= _limit(parent, "floor")] = 1.0  # a tray that is hot as a whole is taken away as a whole
    shared = np.nan_to_num(others(relative), nan=0.0)
    own = relative - weight[:, None] * shared
    scale = sigma(own.ravel(), least)
    out = {}
    for i, name in enumerate(topology.trays()):
        for j, part in enumerate(topology.gpus(name)):
            if not math.isnan(own[i, j]):
                out[part] = _judge(stage, float(slope[i, j]), float(own[i, j]), float(own[i, j]) / scale, row)
    return out


def _judge(stage: str, slope: float, relative: float, z: float, row: SignatureRow) -> Excess:
    return Excess(stage, slope, relative, z, z >= _limit(row, "z") and relative >= _limit(row, "floor"))


def _limit(row: SignatureRow, name: str) -> float:
    bound = row.limits[name].min
    if bound is None:
        raise ValueError(f"signature limit {name} has no number")
    return bound


def find(
    telemetry: Telemetry,
    topology: Topology,
    rows: Mapping[str, SignatureRow],
    unloaded: Mapping[str, frozenset[str]],
) -> list[Finding]:
    """Findings over all load stretches of a run. `unloaded`: stage -> GPUs whose load was not reached there.

    A part that is out of family once waits for one re-test (HOLD); twice, it is reproduced: FAIL beyond the far limit,
    HOLD below it. Out of family once in three or more stretches is written down only (WATCH).
    """
    seen: dict[str, list[Excess]] = {}
    for load in telemetry.phase("load"):
        idle = [s for s in telemetry.phase("idle") if s.t1_s <= load.t0_s]
        if idle:
            slope = slopes(telemetry, idle[-1], load, topology, unloaded.get(load.stage, frozenset()))
            for part, one in excess(slope, load.stage, topology, rows).items():
                seen.setdefault(part, []).append(one)
    found = [_finding(part, all_of, rows) for part, all_of in sorted(seen.items()) if any(e.out for e in all_of)]
    return found


def _finding(part: str, all_of: Sequence[Excess], rows: Mapping[str, SignatureRow]) -> Finding:
    name = GPU_ROW if "." in part else TRAY_ROW
    row = rows[name]
    out = [e for e in all_of if e.out]
    least = min(e.relative for e in out)
    reproduced = len(out) >= 2
    if reproduced:
        severity = Severity.FAIL if least >= _limit(row, "far") else Severity.HOLD
    else:
        severity = Severity.HOLD if len(all_of) < 3 else Severity.WATCH
    worst = max(out, key=lambda e: e.relative)
    value = sum(e.slope for e in out) / len(out)
    peers = worst.slope / (1 + worst.relative)
    times = f"(z {worst.z:.1f}), in {len(out)} of {len(all_of)} load phases"
    far = f"{100 * worst.relative:.0f} % above"
    if name == TRAY_ROW:
        why = f"thermal resistance {value:.4f} K/W over its GPUs together, {far} the other trays {times}"
    else:
        why = f"thermal resistance {value:.4f} K/W, {far} its peers once its tray's share is taken out {times}"
    action = row.action if reproduced else f"repeat the load on the whole rack once; {row.action}"
    evidence = {
        e.stage: {"slope": _short(e.slope), "relative": _short(e.relative), "z": _short(e.z), "out": e.out} for e in all_of
    }
    return Finding(
        part=part,
        signature=name,
        severity=severity,
        value=_short(value),
        limit=_short(peers * (1 + _limit(row, "floor"))),
        unit="K/W",
        why=why,
        action=action,
        fru=row.fru,
        statistic=_short(worst.z),
        evidence=evidence,
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")
