"""Heat beyond the path that `thermal` looks at: memory that is not coupled to its plate, and what a whole rack shares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median, theil_sen
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Stretch

HBM, RACK = "thermal.hbm", "thermal.rack"


def hbm(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Memory that warms more under load than its core explains.

    The plate warms both, so what the core's rise predicts in this rack is taken away first (Theil-Sen over all GPUs); and
    memory must have come up against its own core too, or it is the plate.
    """
    many = []
    for idle, load in readings.pairs():
        core, memory = (_rise(readings, metric, idle, load) for metric in ("gpu.temp", "hbm.temp"))
        least = number(row, "sigma_min")
        core_own = readings.family(f"{HBM}.core", load.phase, core, least).own
        memory_own = readings.family(f"{HBM}.memory", load.phase, memory, least).own
        share = min(1.0, max(0.0, theil_sen(core_own.ravel(), memory_own.ravel())))
        gap = memory_own - core_own >= number(row, "floor")
        family = readings.spread(HBM, load.phase, memory_own - share * core_own, least)
        many.append(zones.among(readings, row, load.stage, memory - core, family, gap))
    return zones.findings(
        HBM, row, zones.collect(many),
        lambda s: f"its memory warms {s.excess:.1f} K more under load than its core and its peers explain",
    )  # fmt: skip


def _rise(readings: Readings, metric: str, idle: Stretch, load: Stretch) -> Floats:
    rise = readings.mean(metric, load) - readings.mean(metric, idle)
    return np.where(readings.loaded(idle, load), rise, np.nan)


def rack(readings: Readings, row: SignatureRow) -> list[Finding]:
    """What all GPUs share is the coolant's: a rack that idles hot, or that got hotter at equal power, as a whole.

    Half of all GPUs and at least half of the trays must be measured: one warm tray is not the rack.
    """
    texts = [*_idles_hot(readings, row), *_got_hotter(readings, row)]
    if not texts:
        return []
    worst = max(value for value, _ in texts)
    return [zones.policy(RACK, row, "cdu", Severity.HOLD, worst, "; ".join(text for _, text in texts))]


def _idles_hot(readings: Readings, row: SignatureRow) -> list[tuple[float, str]]:
    out = []
    for idle in readings.telemetry.phase("idle")[:1]:
        temp = readings.mean("gpu.temp", idle)
        middle, most = median(temp.ravel()), number(row, "idle_temp")
        if _most(readings, temp) and middle >= most:
            out.append((middle - most, f"the rack idles at {middle:.1f} Cel (median of its GPUs), limit {most:g} Cel"))
    return out


def _got_hotter(readings: Readings, row: SignatureRow) -> list[tuple[float, str]]:
    """Between load stretches, and from the first third of one to its last: the median GPU's rise at equal power.

    Phases that end in -hot (the suite hot-inlet) were made warm on purpose: they are compared with one another only.
    """
    loads = readings.telemetry.phase("load")
    kinds = ([load for load in loads if load.phase.endswith("-hot") is hot] for hot in (False, True))
    return [found for kind in kinds for found in _hotter(readings, row, [w for load in kind for w in _thirds(load)])]


def _hotter(readings: Readings, row: SignatureRow, windows: list[Stretch]) -> list[tuple[float, str]]:
    looks = [(w, readings.mean("gpu.temp", w), readings.mean("gpu.power", w)) for w in windows]
    looks = [look for look in looks if _most(readings, look[1]) and _most(readings, look[2])]
    if len(looks) < 2:
        return []
    worst = 0.0
    text = ""
    for i, (window, warm, heat) in enumerate(looks):
        for first, temp, power in looks[:i]:
            equal = np.abs(heat / power - 1) <= number(row, "equal_power")
            if np.count_nonzero(equal) * 2 < equal.size:  # another load: a locked clock is no control of a free one
                continue
            rise = median(np.where(equal, warm - temp, np.nan).ravel())
            if rise >= max(worst, number(row, "floor"), 3 * _rising(readings, row, first)):
                worst = rise
                text = f"all GPUs together got {rise:.1f} K warmer at equal power, from {first.stage} to {window.stage}"
            break
    return [(worst, text)] if text else []


def _rising(readings: Readings, row: SignatureRow, first: Stretch) -> float:
    """By how much the median GPU still warmed from one half of a load's first window to the other, where the load had not lasted
    long enough to be at rest. What comes after a warm-up that goes on is no more than twice that, a change of the coolant is."""
    begin = next((load.t0_s for load in readings.telemetry.phase("load") if load.stage == first.stage), -math.inf)
    if first.t0_s - begin >= number(row, "rest_s", 0.0):
        return 0.0
    middle = (first.t0_s + first.t1_s) / 2
    halves = (replace(first, t1_s=middle), replace(first, t0_s=middle))
    early, late = (readings.mean("gpu.temp", half) for half in halves)
    rise = median((late - early).ravel())
    return max(rise, 0.0) if rise == rise else 0.0


def _thirds(load: Stretch) -> tuple[Stretch, Stretch]:
    t0, t1 = load.judged
    third = max(0.0, (t1 - t0) / 3)
    return Stretch(load.stage, load.phase, t0, t0 + third), Stretch(f"{load.stage}'s end", load.phase, t1 - third, t1)


def _most(readings: Readings, values: Floats) -> bool:
    known = ~np.isnan(values)
    return readings.enough(values) and int(np.count_nonzero(known)) * 2 >= known.size
