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

from collections.abc import Mapping

import numpy as np

from burnin.events import Finding
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median
from burnin.signatures.zones import Seen, number
from burnin.telemetry.series import Floats

GPU_ROW, TRAY_ROW = "thermal.rth", "thermal.tray"


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
