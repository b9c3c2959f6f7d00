"""Sensors that lie: off by a constant, wrong by a factor, at odds with each other, or stuck.

A sensor that lies is not a weak die, but every judgement that rests on it is worth nothing: HOLD, never FAIL. An offset shows
at idle and cancels in the slope; a gain error of the power sensor moves slope, clock and idle power together, each in its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import silicon, zones
from burnin.signatures.readings import MIN_RISE_W, Readings, unrest
from burnin.signatures.robust import median, own, sigma
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Series, Stretch

OFFSET, GAIN, METER, STUCK = "sensor.offset", "sensor.gain", "sensor.meter", "sensor.stuck"


def offset(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Idle temperature, less what its own heat makes of it, off its peers while the slope (which cancels an offset) is in family.

    The heat's share is slope x idle power: without it a GPU that is not quite idle, leaks or resists looks as if its sensor
    lied, and healthy parts differ by 3 % more. Too cold only beyond doubt: a healthy fleet's tail has two sides, and looking at
    both doubles the false alarms.
    """
    many = []
    for idle, load in readings.pairs():
        slopes = readings.slopes(idle, load)
        temp = readings.mean("gpu.temp", idle)
        relative = zones.relative(slopes)
        slope = readings.family("thermal.rth", load.phase, relative, number(row, "slope_sigma_min"), keep=False)
        agrees = np.abs(slope.own) <= number(row, "slope_z") * slope.sigma
        unheated = temp - slopes * readings.mean("gpu.power", idle)
        apart = readings.family(OFFSET, idle.phase, unheated, number(row, "sigma_min"))
        for sign in (1.0, -1.0):
            allowed = agrees if sign > 0 else agrees & (apart.own <= -number(row, "cold", number(row, "sure")))
            seen = zones.among(readings, row, idle.stage, temp, apart, allowed, sign, sign)
            many.append({part: one for part, one in seen.items() if one.excess > 0})
    seen_of = zones.collect(many)
    found = zones.findings(
        OFFSET, row, {part: _once_a_stage(seen) for part, seen in seen_of.items()},
        lambda s: f"idle at {s.value:.1f} Cel, {s.excess:.1f} K off its peers while its thermal resistance agrees with theirs",
    )  # fmt: skip
    return _shared_offset(readings, found)


def _shared_offset(readings: Readings, found: list[Finding]) -> list[Finding]:
    """Three of a tray's four GPUs that are off the same way have water in common, not sensors: the tray is named instead."""
    out = list(found)
    for tray, gpus in zip(readings.trays, readings.gpus, strict=True):
        for hot in (True, False):
            theirs = [f for f in found if f.part in gpus and ((f.value or 0.0) >= (f.limit or 0.0)) is hot]
            if len(theirs) < 2 or len(theirs) * 4 < 3 * len(gpus):
                continue
            worst = max(theirs, key=lambda one: (one.severity is Severity.HOLD, one.statistic or 0.0))
            why = f"{len(theirs)} of its {len(gpus)} GPUs are off together, so it is no sensor; {worst.part}: {worst.why}"
            action = (
                "Compare the coolant that reaches this tray with its neighbours' and see that nothing ran on it; then run again."
            )
            out = [one for one in out if one not in theirs]
            out.append(
                replace(worst, part=tray, why=why, action=action, fru="hose, quick disconnect or manifold port of this tray")
            )
    return out


def _once_a_stage(seen: list[zones.Seen]) -> list[zones.Seen]:
    """Several loads share one idle stretch: it is one look, not a re-test."""
    return list({one.stage: one for one in sorted(seen, key=lambda s: s.zone)}.values())


def gain(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A power sensor that reads g too high: slope falls by g, the clock by its share (the cap acts on what is metered),
    idle power rises by g. The best estimate of g from the three, and each of them must go its way."""
    many = []
    per_power = number(row, "clock_per_power")
    for idle, load in readings.free():
        least = number(row, "sigma_min")
        power = np.where(readings.loaded(idle, load), readings.mean("gpu.power", idle), np.nan)
        signs = (
            (-1.0, own(zones.relative(readings.slopes(idle, load)), least)),
            (-per_power, own(silicon.clocks(readings, row, idle, load), least)),
            (1.0, own(zones.relative(power), least)),
        )
        g = _estimate(signs, least)
        agree = np.ones(g.shape, dtype=bool)
        for factor, value in signs:
            agree &= value / factor * np.sign(g) >= np.abs(g) * number(row, "agree")
        family = readings.spread(GAIN, load.phase, g, least)
        for side in (1.0, -1.0):
            seen = zones.among(readings, row, load.stage, 100 * g, family, agree, 100 * side, side)
            many.append({part: one for part, one in seen.items() if one.excess > 0})
    return zones.findings(
        GAIN, row, zones.collect(many),
        lambda s: f"its power sensor reads {s.value:+.0f} % by slope, clock and idle power together",
    )  # fmt: skip


def _estimate(signs: tuple[tuple[float, Floats], ...], least: float) -> Floats:
    """Generalised least squares of one factor behind several residuals: a' C^-1 r / a' C^-1 a.

    C is the rack's robust covariance, because residuals share causes (leakage lowers the clock as it raises idle power):
    with them taken as independent, every leaky die would look like a lying sensor.
    """
    scale = [sigma(value.ravel(), least) for _, value in signs]
    unit = [value.ravel() / s for (_, value), s in zip(signs, scale, strict=True)]
    inverse = np.linalg.inv(np.array([[_alike(x, y) for y in unit] for x in unit]))
    toward = inverse @ np.array([factor / s for (factor, _), s in zip(signs, scale, strict=True)])
    total = sum(float(w) * factor / s for w, (factor, _), s in zip(toward, signs, scale, strict=True))
    mixed: Floats = toward @ np.array(unit) / total
    return mixed.reshape(signs[0][1].shape)


def _alike(x: Floats, y: Floats) -> float:
    """Robust correlation of two standardised series, from the spreads of their sum and difference; 0.95 at most."""
    if x is y:
        return 1.0
    plus, minus = sigma(x + y, 0.0) ** 2, sigma(x - y, 0.0) ** 2
    return 0.95 * (plus - minus) / (plus + minus) if plus + minus > 0 else 0.0


def meter(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Energy counter and power reading of one GPU that disagree more, either way, than those of its peers."""
    many = []
    for load in readings.telemetry.phase("load"):
        ratio = readings.once(METER, load, partial(_ratios, readings, load))
        apart = readings.family(METER, load.phase, zones.relative(ratio), number(row, "sigma_min"))
        steady = readings.once("unrest", load, partial(readings.of, "gpu.power", load, unrest)) <= number(row, "steady")
        for sign in (1.0, -1.0):
            seen = zones.among(readings, row, load.stage, ratio, apart, steady, sign * median(ratio.ravel()), sign)
            many.append({part: one for part, one in seen.items() if one.excess > 0})
    return zones.findings(
        METER, row, zones.collect(many),
        lambda s: f"its energy counter grows {s.value:.3f} times as fast as its power says, {100 * s.excess:.1f} % off its peers",
    )  # fmt: skip


def _ratios(readings: Readings, load: Stretch) -> Floats:
    """Growth of the energy counter over what the power says, of every GPU; all at once where both were read together."""
    energy, power = (readings.packs("gpu", readings.all_gpus, metric) for metric in ("gpu.energy", "gpu.power"))
    if len(energy) == len(power) == 1 and energy[0].t_s is power[0].t_s and not load.own:
        a, b = energy[0].window(load)
        grown, watts = energy[0].v[:, a:b], power[0].v[:, a : b - 1]
        mean = watts.mean(axis=1) if b - a > 1 else np.zeros(1)
        if not np.isnan(grown).any() and (mean > 0).all():  # False for NaN
            steps = np.diff(grown)
            total = np.where(steps >= 0, steps, grown[:, 1:]).sum(axis=1)
            out: Floats = (total / float(energy[0].t_s[b - 1] - energy[0].t_s[a]) / mean).reshape(len(readings.gpus), -1)
            return out
    return readings.grid(partial(_energy_over_power, readings, load))


def _energy_over_power(readings: Readings, load: Stretch, gpu: str) -> float:
    energy, power = (readings.telemetry.window(gpu, metric, load) for metric in ("gpu.energy", "gpu.power"))
    known = energy.t_s[~np.isnan(energy.v)]
    if known.size < 2 or power.present < 2:
        return math.nan
    mean = power.between(float(known[0]), float(known[-1])).mean()
    return energy.rate() / mean if mean > 0 else math.nan


def stuck(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A reading that is one and the same number on both sides of a step of the load.

    Temperatures are whole degrees and may stand still under constant load; over a step of MIN_RISE_W they cannot. Power
    itself is asked whether it moves when the temperature does.
    """
    out = []
    for metric in ("gpu.temp", "hbm.temp", "gpu.power"):
        told: set[str] = set()
        for one, two in pairwise(readings.telemetry.stretches):
            low, high = ([_extreme(readings, metric, s, value) for s in (one, two)] for value in (Series.lowest, Series.highest))
            same = (low[0] == high[0]) & (low[1] == high[1]) & (low[0] == low[1])  # False for NaN
            for gpu in (readings.all_gpus[i] for i in np.flatnonzero(same)):
                found = _frozen(readings, row, gpu, metric, one, two) if gpu not in told else None
                if found is not None:
                    told.add(gpu)
                    out.append(found)
    return out


def _extreme(readings: Readings, metric: str, stretch: Stretch, value: Callable[[Series], float]) -> Floats:
    return readings.once(f"{value.__name__} {metric}", stretch, partial(readings.of, metric, stretch, value)).ravel()


def _frozen(readings: Readings, row: SignatureRow, gpu: str, metric: str, one: Stretch, two: Stretch) -> Finding | None:
    a, b = (readings.telemetry.window(gpu, metric, s) for s in (one, two))
    if min(a.present, b.present) < number(row, "readings") or a.lowest() != b.highest() or a.highest() != b.lowest():
        return None
    witness, least = ("gpu.temp", number(row, "rise_k")) if metric == "gpu.power" else ("gpu.power", MIN_RISE_W)
    before, after = (readings.telemetry.window(gpu, witness, s) for s in (one, two))
    step = abs(median(after.v) - median(before.v))  # medians: a load that began with the last reading has heated nothing yet
    if not step >= least:
        return None
    many, unit = a.present + b.present, "W" if witness == "gpu.power" else "K"
    why = (
        f"{metric} reads {a.lowest():g} in all {many} readings of {one.stage} and {two.stage} while {witness} moves by "
        f"{step:.0f} {unit}"
    )
    return zones.policy(STUCK, row, gpu, Severity.HOLD, a.lowest(), why, metric=metric, stages=[one.stage, two.stage])
