"""What only hours show: a part that creeps, one that jumps, and coolant that swings.

Temperatures are looked at as blocks of minutes less the rack's median of the same minutes, so inlet and load cancel. What a
tray shares is the tray's (its coolant dries up), and only what is left is the GPU's (its interface is pumped out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import MIN_TRAYS, Readings
from burnin.signatures.robust import median, medians, others, sigma
from burnin.signatures.tails import leaning, normal_limit, worst
from burnin.signatures.trend import Line, cusum, line, swing
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Stretch

DRIFT, STEP, SWING = "thermal.drift", "thermal.step", "thermal.swing"
_DAY_S = 86400.0


def drift(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Kelvin per day by which a tray, or a GPU within its tray, warms against the rack under load."""
    soak = _soak(readings, row)
    if soak is None:
        return []
    t, apart = soak
    apart = apart - medians(apart)[:, :, None]  # a tray shares how its GPUs move; a median of where they are follows one of them
    tray = medians(apart.transpose(0, 2, 1))
    trays = _creeping(readings, row, "tray", {name: line(t, y) for name, y in zip(readings.trays, tray, strict=True)})
    apart = _less_their_trays(readings, apart, tray, set(trays))
    gpus = {gpu: line(t, apart[i, j]) for i, row_ in enumerate(readings.gpus) for j, gpu in enumerate(row_)}
    found = {**trays, **_creeping(readings, row, "gpu", gpus)}
    return [_drifts(row, part, one, grade, t) for part, (one, grade) in sorted(found.items())]


def _soak(readings: Readings, row: SignatureRow) -> tuple[Floats, Floats] | None:
    """(times of the blocks in days, temperature of every GPU less the rack's median by block), over all load stretches.

    Blocks in which a GPU's power is not what it usually is are left out: a load that ended cools, one at a locked clock heats
    less, and the hotter a GPU is than the others, the more it cools against them. Neither is drift.
    """
    every = number(row, "block_s")
    t: list[Floats] = []
    many: list[Floats] = []
    for load in readings.telemetry.phase("load"):
        both = readings.once(f"blocks {every:g}", load, partial(_blocks, readings, load, every))
        t.append(np.asarray((load.judged[0] + every * (0.5 + np.arange(both.shape[3]))) / _DAY_S, float))
        many.append(both)
    if not t or sum(x.size for x in t) < number(row, "blocks"):
        return None
    temp, power = np.concatenate(many, axis=3)
    usual = medians(power)[:, :, None]
    values = np.where((usual > 0) & (np.abs(power / usual - 1) <= number(row, "equal_power", 0.05)), temp, np.nan)
    if np.count_nonzero((~np.isnan(values)).any(axis=(1, 2))) < MIN_TRAYS:
        return None
    middle = medians(values.reshape(-1, values.shape[2]).T)
    return np.concatenate(t), values - middle


def _blocks(readings: Readings, load: Stretch, every: float) -> Floats:
    """Block means of temperature and power: (2, trays, slots, blocks); no blocks where one of the two was not read."""
    temp, power = (readings.blocks(metric, load, every) for metric in ("gpu.temp", "gpu.power"))
    return np.stack([temp, power]) if temp.shape == power.shape else np.empty((2, *power.shape[:2], 0))


def _less_their_trays(readings: Readings, apart: Floats, tray: Floats, creeping: set[str]) -> Floats:
    """GPUs less their tray where the tray creeps as a whole; elsewhere as they are."""
    out = apart.copy()
    for i, name in enumerate(readings.trays):
        if name in creeping:
            out[i] = apart[i] - tray[i]
    return out


def _creeping(readings: Readings, row: SignatureRow, what: str, lines: Mapping[str, Line]) -> dict[str, tuple[Line, Severity]]:
    """Parts whose slope is above the floor, above its own error, and out of the family of slopes."""
    slopes = np.array([one.slope for one in lines.values()])
    n = int(np.count_nonzero(~np.isnan(slopes)))
    family = readings.spread(f"{DRIFT}.{what}", "load", slopes - median(slopes), number(row, "sigma_min"))
    out = {}
    for part, one in lines.items():
        above = one.slope - median(slopes)
        if above >= number(row, "floor") and above / max(one.error, 1e-12) >= normal_limit(n, number(row, "hold")):
            z = above / family.sigma
            tail = zones.excused(row, above, family.tail)
            if z >= leaning(worst(n, number(row, "watch"), family.dof, tail), family.skew):
                held = z >= zones.held_from(row, n, family.dof, tail, family.skew)
                out[part] = one, Severity.HOLD if held else Severity.WATCH
    return out


def _drifts(row: SignatureRow, part: str, one: Line, grade: Severity, t: Floats) -> Finding:
    hours = 24 * float(t[-1] - t[0])
    why = (
        f"it warms by {one.slope:.2f} +- {one.error:.2f} K a day against the rack at constant load, over {hours:.1f} h "
        f"(noise correlation {one.rho:.2f} taken into account)"
    )
    return zones.policy(DRIFT, row, part, grade, one.slope, why, error=zones.short(one.error), hours=zones.short(hours))


def step(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A GPU whose temperature against the rack jumped upwards and stayed (CUSUM of whitened blocks), and does not creep."""
    soak = _soak(readings, row)
    if soak is None:
        return []
    t, apart = soak
    apart = apart - medians(apart)[:, :, None]  # nor does a neighbour that is lost take its level with it
    rows = apart.transpose(0, 2, 1)
    alone = (rows - np.nan_to_num(others(rows.reshape(-1, rows.shape[2])), nan=0.0).reshape(rows.shape)).transpose(0, 2, 1)
    out = []
    for i, gpus in enumerate(readings.gpus):
        for j, gpu in enumerate(gpus):
            found = _jump(row, alone[i, j])
            if found is not None:
                height, high, at = found
                hours = 24 * float(t[at] - t[0])
                why = f"{height:.1f} K warmer against its tray since {hours:.1f} h, at constant load (CUSUM {high:.0f})"
                out.append(
                    zones.policy(STEP, row, gpu, Severity.HOLD, height, why, cusum=zones.short(high), hours=zones.short(hours))
                )
    return out


def _jump(row: SignatureRow, y: Floats) -> tuple[float, float, int] | None:
    known = y[~np.isnan(y)]
    if known.size < number(row, "blocks"):
        return None
    noise = max(number(row, "sigma_min"), sigma(np.diff(known), 0.0) / math.sqrt(2))
    up, down, at = cusum((y - median(y)) / noise, 0.5, 0.0)
    before, after = median(y[:at]), median(y[at:])
    if max(up, down) >= number(row, "cusum") and after - before >= number(row, "floor"):
        return after - before, max(up, down), at
    return None


def swings(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Oscillation of the temperatures of the whole rack, or of one tray against the rack, that the power does not show.

    With too few trays to be a rack each is looked at by itself.
    """
    out: dict[str, Finding] = {}
    for load in readings.telemetry.phase("load"):
        t0, t1 = load.judged
        if t1 - t0 < number(row, "lasting_s"):
            continue
        dt = _cadence(readings, load)
        if not dt > 0:
            continue
        temp, power = (_means(readings, metric, load, dt) for metric in ("gpu.temp", "gpu.power"))
        series = {tray: temp[i] for i, tray in enumerate(readings.trays)}
        if readings.enough(temp):
            middle = medians(temp.T)
            series = {"cdu": middle, **{tray: y - middle for tray, y in series.items()}}
        watts = medians(power.T)
        for part, y in series.items():
            found = _swing(row, part, y, watts, dt, len(series), load)
            if found is not None and part not in out:
                out[part] = found
    return [one for part, one in sorted(out.items()) if part == "cdu" or "cdu" not in out]


def _cadence(readings: Readings, load: Stretch) -> float:
    for gpus in readings.gpus:
        one = readings.telemetry.window(gpus[0], "gpu.temp", load)
        if one.t_s.size > 16:
            return max(1.0, float(np.median(np.diff(one.t_s))))
    return math.nan


def _means(readings: Readings, metric: str, load: Stretch, dt: float) -> Floats:
    """One row per tray: the mean of its GPUs, resampled at `dt`."""
    rows = []
    for grid in readings.blocks(metric, load, dt):
        known = np.count_nonzero(~np.isnan(grid), axis=0)
        rows.append(np.where(known > 0, np.nansum(grid, axis=0) / np.maximum(known, 1), np.nan))
    return np.array(rows)


def _swing(row: SignatureRow, part: str, y: Floats, power: Floats, dt: float, tests: int, load: Stretch) -> Finding | None:
    y, power = _filled(y), _filled(power)
    if y.size == 0 or power.size == 0:
        return None
    shortest, longest = max(number(row, "shortest_s"), 3 * dt), number(row, "longest_s")
    amplitude, period, ratio = swing(y, dt, shortest, longest)
    # the highest of n exponential bins over their median: P(> r) = n exp(-r ln 2)
    least = math.log(max(2.0, y.size / 2) * tests / number(row, "hold")) / math.log(2)
    if amplitude < number(row, "floor") or ratio < least:
        return None
    shown, at, _ = swing(power, dt, shortest, longest)
    loads = shown >= number(row, "power_w") and abs(at / period - 1) < 0.1
    why = f"temperatures swing by +-{amplitude:.2f} K every {period:.0f} s in {load.stage}"
    why += f", and so does the power by +-{shown:.0f} W: it is the load" if loads else " at steady power"
    grade = Severity.WATCH if loads else Severity.HOLD
    return zones.policy(SWING, row, part, grade, amplitude, why, period_s=zones.short(period), ratio=zones.short(ratio))


def _filled(y: Floats) -> Floats:
    """Gaps bridged by straight lines where at most a tenth is missing; empty otherwise."""
    known = ~np.isnan(y)
    if np.count_nonzero(known) < 0.9 * max(1, y.size):
        return np.empty(0)
    x = np.arange(y.size)
    out: Floats = np.interp(x, x[known], y[known])
    return out
