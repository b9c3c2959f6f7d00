"""The die and its power: one that leaks, one that needs more volts for its clock, one that is held down.

Idle power is compared at one temperature (leakage grows exponentially with it), clocks at one temperature and at the same
power limit. Both carry the healthy spread of silicon, which is wide: small faults are not separable in one rack (WATCH).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import MIN_RISE_W, Readings
from burnin.signatures.robust import median
from burnin.signatures.zones import Seen, number
from burnin.telemetry.series import Floats, Series, Stretch

LEAK, WEAK, CEILING = "power.leak", "clock.weak", "clock.ceiling"


def leak(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Idle power above its peers once all are brought to one temperature."""
    per_k = number(row, "per_kelvin")
    many = []
    for idle in readings.telemetry.phase("idle"):
        power, temp = readings.mean("gpu.power", idle), readings.mean("gpu.temp", idle)
        even = power * np.exp(-per_k * (temp - median(temp.ravel())))
        family = readings.family(LEAK, idle.phase, zones.relative(even), number(row, "sigma_min"))
        many.append(zones.among(readings, row, idle.stage, power, family, per=median(power.ravel())))
    return zones.findings(
        LEAK, row, zones.collect(many),
        lambda s: f"idle power {s.value:.0f} W, {100 * s.excess:.0f} % above its peers at equal temperature",
    )  # fmt: skip


def clocks(readings: Readings, row: SignatureRow, idle: Stretch, load: Stretch) -> Floats:
    """Share by which each loaded GPU's clock is above the rack's, at one temperature and the same power limit."""
    clock, temp = readings.mean("gpu.clock_sm", load), readings.mean("gpu.temp", load)
    clock = np.where(readings.loaded(idle, load), clock, np.nan)
    return zones.relative(clock * (1 + number(row, "per_kelvin") * (temp - median(temp.ravel()))))


def weak(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Clock below its peers where all run at their power limit."""
    many = []
    for idle, load in readings.free():
        family = readings.family(WEAK, load.phase, clocks(readings, row, idle, load), number(row, "sigma_min"))
        clock = readings.mean("gpu.clock_sm", load)
        many.append(zones.among(readings, row, load.stage, clock, family, per=-median(clock.ravel()), sign=-1.0))
    return zones.findings(
        WEAK, row, zones.collect(many),
        lambda s: f"{s.value:.0f} MHz at its power limit, {100 * s.excess:.1f} % below its peers at equal temperature",
    )  # fmt: skip


def ceiling(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A clock that stands still below the others although neither power nor heat holds it: somebody or something caps it."""
    seen: dict[str, dict[str, Seen]] = {}
    for idle, load in readings.free():
        for part, one in _held(readings, row, idle, load).items():
            seen.setdefault(part, {})[load.stage] = one
    out = []
    for part, stages in sorted(seen.items()):
        one = max(stages.values(), key=lambda s: s.excess)
        why = (
            f"its clock stands at {one.value:.0f} MHz, {100 * one.excess:.1f} % below its peers, though neither its power limit "
            f"nor heat holds it"
        )
        evidence = {stage: {"value": zones.short(s.value), "excess": zones.short(s.excess)} for stage, s in stages.items()}
        out.append(zones.policy(CEILING, row, part, Severity.HOLD, one.value, why, **evidence))
    return out


def _held(readings: Readings, row: SignatureRow, idle: Stretch, load: Stretch) -> Mapping[str, Seen]:
    clock, capped = readings.mean("gpu.clock_sm", load), readings.of("throttle.sw_power", load, Series.rate)
    hot = readings.of("throttle.sw_thermal", load, Series.rate) + readings.of("throttle.hw_thermal", load, Series.rate)
    swing = readings.of("gpu.clock_sm", load, Series.highest) / readings.of("gpu.clock_sm", load, Series.lowest) - 1
    rise = readings.mean("gpu.power", load) - readings.mean("gpu.power", idle)
    usual = capped >= number(row, "capped")
    if not readings.enough(np.where(usual, clock, np.nan)) or np.count_nonzero(usual) * 2 < np.count_nonzero(~np.isnan(capped)):
        return {}
    low = 1 - clock / median(clock[usual])
    out = (low >= number(row, "floor")) & (capped <= number(row, "free")) & (hot <= number(row, "free"))
    out &= (swing <= number(row, "still")) & (rise >= MIN_RISE_W)
    return {
        readings.gpus[i][j]: Seen(load.stage, float(clock[i, j]), float(low[i, j]), 0.0, zones.Zone.HOLD, float(clock[i, j]))
        for i, j in zip(*np.nonzero(out), strict=True)
    }
