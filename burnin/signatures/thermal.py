"""Thermal resistance against peers: a bad cold plate and a kinked hose, told apart.

Per GPU the slope (T_load - T_idle) / (P_load - P_idle) in K/W: a sensor's offset and the inlet temperature cancel out.
Slots differ (a GPU behind another breathes its warm water) and trays differ (manifold position), so places are taken off, as
learned or as this rack shows them; what the four GPUs of a tray share is the tray's (hose, quick disconnect), what two of one
board share is the board's loop, and only what remains after taking that away is the GPU's own (thermal interface, cold
plate): parents first.

Two gates, always: out of family (robust z) and practically large (relative excess). Only the hot side is judged.
Statistics: reference signatures 1, 9 and 10; slot medians and leave-one-out tray medians with shrinkage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from burnin.events import Finding
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median
from burnin.signatures.zones import Seen, number
from burnin.telemetry.series import Floats, Stretch

GPU_ROW, TRAY_ROW = "thermal.rth", "thermal.tray"
BOARD, TRANSIENT = "thermal.board", "thermal.transient"


def find(readings: Readings, rows: Mapping[str, SignatureRow]) -> list[Finding]:
    """Trays and GPUs over all load stretches of a run."""
    trays: list[Mapping[str, Seen]] = []
    gpus: list[Mapping[str, Seen]] = []
    for idle, load in readings.pairs():
        slope = readings.slopes(idle, load)
        if readings.enough(slope):
            hot, own = excess(readings, slope, load.stage, load.phase, rows)
            trays.append(hot)
            gpus.append(own)
    return [
        *zones.findings(TRAY_ROW, rows[TRAY_ROW], zones.collect(trays), _of_tray),
        *zones.findings(GPU_ROW, rows[GPU_ROW], zones.collect(gpus), _of_gpu),
    ]


def board(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Two GPUs of one board that resist more, together, than the other two of their tray: the board's loop. The tray is named,
    as there is no part id for a board. Each must be above the rack's middle, too: beside a GPU that seems cold all are hot."""
    many: list[Mapping[str, Seen]] = []
    for idle, load in readings.pairs():
        relative = zones.relative(readings.slopes(idle, load))
        if relative.shape[1] != 4 or not readings.enough(relative):
            continue
        halves = readings.placed(GPU_ROW, load.phase, relative).reshape(-1, 2, 2)
        other = halves.mean(axis=2)[:, ::-1]
        apart = halves.mean(axis=2) - other
        both = np.minimum(halves.min(axis=2) - other, halves.min(axis=2)) >= number(row, "both") * apart
        family = readings.spread(BOARD, load.phase, apart, number(row, "sigma_min"))
        names = [f"{tray} g{2 * half},g{2 * half + 1}" for tray in readings.trays for half in (0, 1)]
        many.append(zones.parts(row, load.stage, names, apart.ravel(), family, both.ravel()))
    found = zones.findings(
        BOARD,
        row,
        zones.collect(many),
        lambda s: f"together they resist {100 * s.excess:.0f} % more than the other board of their tray",
    )
    return [zones.on(one, one.part[:3], f"{one.part[4:]}: ") for one in found]


def transient(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Time to 63 % of the rise after the load began, against peers; only where readings are quick enough to see it."""
    many: list[Mapping[str, Seen]] = []
    for idle, load in readings.pairs():

        def time(gpu: str, idle: Stretch = idle, load: Stretch = load) -> float:
            one = readings.telemetry.of(gpu, "gpu.temp").between(load.t0_s, load.t0_s + number(row, "window_s"))
            if one.present < number(row, "window_s") / number(row, "every_s"):
                return math.nan
            cold, hot = readings.telemetry.window(gpu, "gpu.temp", idle).mean(), one.between(load.t0_s + 30, math.inf).mean()
            if not hot - cold > 10:
                return math.nan
            above = np.flatnonzero(one.v >= cold + 0.632 * (hot - cold))
            return float(one.t_s[above[0]] - load.t0_s) if above.size else math.nan

        took = readings.grid(time)
        if readings.enough(took):
            family = readings.family(TRANSIENT, load.phase, took, number(row, "sigma_min"))
            many.append(zones.among(readings, row, load.stage, took, family))
    return zones.findings(
        TRANSIENT,
        row,
        zones.collect(many),
        lambda s: f"it takes {s.value:.1f} s to 63 % of its rise, {s.excess:.1f} s more than peers",
    )


def _of_tray(s: Seen) -> str:
    return f"thermal resistance {s.value:.4f} K/W over its GPUs together, {100 * s.excess:.0f} % above the other trays"


def _of_gpu(s: Seen) -> str:
    far = f"{100 * s.excess:.0f} % above its peers once its tray's share is taken out"
    return f"thermal resistance {s.value:.4f} K/W, {far}"


def excess(
    readings: Readings, slope: Floats, stage: str, phase: str, rows: Mapping[str, SignatureRow]
) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """Every measured tray, and every measured GPU, against its peers in one load stretch.

    A tray that is hot as a whole is taken away from its GPUs as a whole.
    """
    row, parent = rows[GPU_ROW], rows[TRAY_ROW]
    relative, middle = zones.relative(slope), median(slope.ravel())
    shared = readings.shared(GPU_ROW, phase, relative, number(parent, "sigma_min"))
    mean = np.array([np.mean(x[~np.isnan(x)]) if (~np.isnan(x)).any() else np.nan for x in slope])
    trays = zones.parts(parent, stage, readings.trays, mean, shared, per=middle)
    hot = (shared.own >= number(parent, "floor")).astype(float)
    family = readings.family(GPU_ROW, phase, relative, number(row, "sigma_min"), hot)
    return trays, zones.among(readings, row, stage, slope, family, per=middle)
