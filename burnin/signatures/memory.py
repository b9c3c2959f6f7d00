"""Memory errors as counts: too many for the fleet, ever faster, repairs used up. Exact tests, and rules where there are any."""

from __future__ import annotations

import math

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.parts import tray_of
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.counts import compare, fleet_at_least, growth_shape, poisson_bounds
from burnin.signatures.readings import MIN_TRAYS, Readings
from burnin.signatures.zones import number
from burnin.telemetry.series import Series

BURST = "memory.burst"
RATE, TREND, REPAIR, UNCORRECTED = "memory.rate", "memory.trend", "memory.repair", "memory.uncorrected"
_MOST = 10_000
"""Events that are looked at one by one; a counter that jumps by more is told by its growth alone."""
_CORRECTED = {"ecc.dram_ce": "HBM", "ecc.sram_ce": "cache and register"}


def rate(readings: Readings, row: SignatureRow) -> list[Finding]:
    """More corrected errors than any part of a healthy fleet has in that time, and than the rest of this rack has."""
    out = []
    for metric, what in _CORRECTED.items():
        counts = _counts(readings, metric)
        high = [gpu for gpu, (count, _) in counts.items() if count >= number(row, "floor")]
        if len(high) * 3 > len(counts) and len({tray_of(gpu) for gpu in high}) >= MIN_TRAYS:
            total = sum(counts[gpu][0] for gpu in high)
            why = f"{len(high)} of {len(counts)} GPUs have {what} errors ({total} in all): not one part's fault"
            out.append(zones.policy(RATE, row, "rack", Severity.HOLD, float(len(high)), why, metric=metric))
            continue
        for gpu in high:
            found = _too_many(readings, row, gpu, metric, counts)
            if found is not None:
                out.append(found)
    return out


def _counts(readings: Readings, metric: str) -> dict[str, tuple[int, float]]:
    """GPU -> (growth, hours watched) of those that were read at least twice."""
    out = {}
    for gpus in readings.gpus:
        for gpu in gpus:
            one = readings.telemetry.of(gpu, metric)
            growth = one.growth()
            if math.isfinite(growth):
                known = one.t_s[~np.isnan(one.v)]
                out[gpu] = (int(growth), float(known[-1] - known[0]) / 3600)
    return out


def _too_many(
    readings: Readings, row: SignatureRow, gpu: str, metric: str, counts: dict[str, tuple[int, float]]
) -> Finding | None:
    """Against the fleet's rate, or what the rest of this rack surely has (95 %) where that is higher: altitude is nobody's
    fault, and a neighbour's few errors are no altitude."""
    count, hours = counts[gpu]
    rest = [counts[other] for other in counts if other != gpu]
    others = sum(c for c, _ in rest)
    surely = poisson_bounds(others)[0] if others < _MOST else float(others)
    around = surely / max(sum(h for _, h in rest), 1e-9)
    mean = max(number(row, "fleet_mean"), around)
    chance = len(counts) * fleet_at_least(count, hours, mean, number(row, "fleet_shape"))
    if chance > number(row, "hold"):
        return None
    grade = Severity.FAIL if chance <= number(row, "fail") and count >= number(row, "far") else Severity.HOLD
    low, high = (bound / hours for bound in poisson_bounds(count, 0.025))
    why = (
        f"{count} corrected {_CORRECTED[metric]} errors in {hours:.3g} h ({low:.2g} to {high:.2g} an hour, 95 %); the chance of "
        f"it in a healthy rack is {chance:.1g}"
    )
    evidence = {"hours": hours, "chance": chance, "by_load": _by_load(readings, gpu, metric)}
    short = {name: zones.short(value) for name, value in evidence.items()}
    return zones.policy(RATE, row, gpu, grade, float(count), why, metric=metric, **short)


def _by_load(readings: Readings, gpu: str, metric: str) -> float:
    """Chance that one constant rate of this part puts so many of its errors into the load phases; small: load brings them.

    The part is its own control, so its rate is one number and the exact test is the binomial one (shape -> infinity).
    """
    one = readings.telemetry.of(gpu, metric)
    inside = [one.between(load.t0_s, load.t1_s) for load in readings.telemetry.phase("load")]
    count = sum(_whole(part.growth()) for part in inside)
    seconds = sum(float(part.t_s[-1] - part.t_s[0]) for part in inside if part.t_s.size > 1)
    all_s = float(one.t_s[-1] - one.t_s[0])
    rest = max(0, _whole(one.growth()) - count)
    fewer = max(1, (count + rest) // _MOST)
    return compare(count // fewer, seconds, rest // fewer, max(all_s - seconds, 1e-9), 1.0, 1e7)


def trend(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Corrected errors that come ever faster: the lower bound of the Crow-AMSAA exponent is above 1."""
    out = []
    for metric, what in _CORRECTED.items():
        for gpus in readings.gpus:
            for gpu in gpus:
                one = readings.telemetry.of(gpu, metric)
                times, until = _arrivals(one)
                if len(times) < number(row, "floor"):
                    continue
                shape, low = growth_shape(times, until, number(row, "above"))
                if low > number(row, "exponent"):
                    why = f"{len(times)} corrected {what} errors, ever faster: rate ~ t^{shape - 1:.1f}, at least t^{low - 1:.2f}"
                    out.append(zones.policy(TREND, row, gpu, Severity.WATCH, shape, why, metric=metric, errors=len(times)))
    return out


def burst(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Many corrected errors within minutes: a row that fails, even where the count over hours is still in family."""
    out = []
    for gpus in readings.gpus:
        for gpu in gpus:
            times = np.array(_arrivals(readings.telemetry.of(gpu, "ecc.dram_ce"))[0])
            most = int(number(row, "floor"))
            if times.size < most:
                continue
            close = times[most - 1 :] - times[: times.size - most + 1]
            if close.size and close.min() <= number(row, "window_s"):
                at = int(np.argmin(close))
                why = f"{most} corrected errors within {close[at] / 60:.1f} min, {times[at] / 3600:.1f} h after the first reading"
                out.append(zones.policy(BURST, row, gpu, Severity.HOLD, float(times.size), why))
    return out


def _arrivals(one: Series) -> tuple[list[float], float]:
    """When a counter grew, since the first reading, spread evenly between the readings around it; and how long it was watched."""
    known = ~np.isnan(one.v)
    t, v = one.t_s[known], one.v[known]
    if t.size < 2:
        return [], 0.0
    out: list[float] = []
    for i in np.flatnonzero(np.diff(v)):
        grew = v[i + 1] - v[i] if v[i + 1] >= v[i] else v[i + 1]
        many = int(min(grew, _MOST)) if grew > 0 and math.isfinite(grew) and len(out) < _MOST else 0
        out += [float(t[i] - t[0] + (t[i + 1] - t[i]) * (k + 0.5) / many) for k in range(many)]
    return out, float(t[-1] - t[0])


def repair(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Spare rows that were used up, wait for a reset, or could not be used."""
    out = []
    for gpus in readings.gpus:
        for gpu in gpus:
            grown = {m: _whole(readings.telemetry.of(gpu, m).growth()) for m in ("remap.uncorrectable", "remap.correctable")}
            flags = {m: _whole(readings.telemetry.of(gpu, m).highest()) for m in ("remap.pending", "remap.failed")}
            bad, good = grown["remap.uncorrectable"], grown["remap.correctable"]
            said: list[tuple[Severity, str]] = []
            if flags["remap.failed"]:
                said.append((Severity.FAIL, "a row could not be remapped"))
            if bad:
                grade = Severity.FAIL if bad >= number(row, "rows") else Severity.HOLD
                said.append((grade, f"{bad} rows remapped for uncorrectable errors during the run"))
            if good:
                grade = Severity.HOLD if good >= number(row, "rows") else Severity.WATCH
                said.append((grade, f"{good} rows remapped for correctable errors during the run"))
            if flags["remap.pending"]:
                said.append((Severity.HOLD, "a row remap waits for a reset"))
            if said:
                grade = min((one for one, _ in said), key=list(Severity).index)
                value = float(bad + good)
                out.append(zones.policy(REPAIR, row, gpu, grade, value, "; ".join(text for _, text in said), **grown, **flags))
    return out


def uncorrected(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Errors that could not be corrected: any in a new part is a rule, not a statistic."""
    out = []
    for metric, what in (("ecc.sram_ue", "cache and register"), ("ecc.dram_ue", "HBM")):
        for gpus in readings.gpus:
            for gpu in gpus:
                count = _whole(readings.telemetry.of(gpu, metric).growth())
                if count >= number(row, "floor"):
                    why = f"{count} uncorrectable {what} errors during the run"
                    out.append(zones.policy(UNCORRECTED, row, gpu, Severity.FAIL, float(count), why, metric=metric))
    return out


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0
