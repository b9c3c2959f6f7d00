"""What the rack is fed with: coolant whose heat must match the power, power supplies that share, loops that hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.parts import parent
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median, theil_sen
from burnin.signatures.zones import number
from burnin.telemetry.series import Stretch, Telemetry

BALANCE, SHARES, LEAK, PRESSURE, PUMP = "coolant.balance", "psu.share", "coolant.leak", "coolant.pressure", "coolant.pump"
FLOW_LAW = "thermal.flow"


def _of_rack(telemetry: Telemetry, metric: str, stretch: Stretch) -> float:
    """A metric of the loop, wherever in the rack it is read."""
    for part in ("cdu", "rack", "manifold"):
        mean = telemetry.window(part, metric, stretch).mean()
        if mean == mean:
            return mean
    return math.nan


def _power(telemetry: Telemetry, stretch: Stretch) -> float:
    """Power of the whole rack in W: what the supplies give, else what the trays draw; NaN where one of them was not read. All at
    the same time, as the loop has it, whatever phase a tray was in then."""
    stretch = replace(stretch, own=())
    for metric in ("psu.power", "tray.power"):
        parts = telemetry.parts(metric)
        total = math.fsum(telemetry.window(part, metric, stretch).mean() for part in parts) if parts else math.nan
        if total == total:
            return total
    return math.nan


def balance(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Heat that the coolant gains from idle to load against power that is gained: an offset of a temperature cancels, so what
    is left is the flow meter's factor. A loop of this rack alone (scope rack).

    With a baseline the share of the heat that goes into the coolant is known, so the limit is narrower, and what the loop shows
    beyond it at equal power is the offset of its temperatures.
    """
    gains, offsets = [], []
    steady = number(row, "seconds")  # a loop of tens of litres takes minutes to show the heat that it carries
    for idle, load in readings.pairs():
        if min(idle.judged[1] - idle.judged[0], load.judged[1] - load.judged[0]) < steady:
            continue
        (cold_w, cold_h, _), (hot_w, hot_h, per_k) = (
            readings.once(f"heat {number(row, 'heat'):g}", s, lambda s=s: np.array(_heat(readings.telemetry, row, s))).tolist()  # type: ignore[misc]
            for s in (idle, load)
        )
        if not (hot_w > 0 and hot_w != cold_w and per_k > 0):  # no power, no flow: there is nothing to compare
            continue
        gains.append((hot_h - cold_h) / ((hot_w - cold_w) * number(row, "share")))
        offsets.append((cold_h - (cold_w / hot_w) * hot_h) / per_k)
    gain, offset = median(np.array(gains)), median(np.array(offsets))
    if gain != gain:
        return []
    known, cold = readings.level(BALANCE, "load", gain), readings.level(f"{BALANCE}.offset", "load", offset)
    usual, limit = (known.level, number(row, "floor")) if known is not None else (1.0, number(row, "alone"))
    out = []
    if abs(gain / usual - 1) >= limit:
        why = f"the coolant gains {gain / usual:.2f} times the heat that the power says, from idle to load: its flow meter"
        out.append(zones.policy(BALANCE, row, "cdu", Severity.HOLD, gain / usual - 1, why, usual=zones.short(usual)))
    elif cold is not None and abs(offset - cold.level) >= number(row, "offset"):
        why = f"its temperatures are apart by {offset - cold.level:+.1f} K more than those of {cold.racks} racks, at any load"
        out.append(zones.policy(BALANCE, row, "cdu", Severity.HOLD, offset - cold.level, why, usual=zones.short(cold.level)))
    return out


def _heat(telemetry: Telemetry, row: SignatureRow, stretch: Stretch) -> tuple[float, float, float]:
    """(power of the rack in W, heat of the coolant in W, W per K of it)."""
    flow, supply, back = (_of_rack(telemetry, f"coolant.{x}", stretch) for x in ("flow", "supply_temp", "return_temp"))
    per_k = flow * number(row, "heat")
    return _power(telemetry, stretch), per_k * (back - supply), per_k


def shares(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A power supply that gives another share than the others of its shelf, or a shelf than the others."""
    parts = [part for part in readings.telemetry.parts("psu.power") if "." in part]
    seen: dict[str, list[float]] = {}
    for load in readings.telemetry.phase("load"):
        watts = {part: readings.telemetry.window(part, "psu.power", load).mean() for part in parts}
        shelves: dict[str, list[str]] = {}
        for part in parts:
            shelves.setdefault(parent(part) or "rack", []).append(part)
        means = {shelf: median(np.array([watts[part] for part in units])) for shelf, units in shelves.items()}
        for shelf, units in shelves.items():
            for part in units if len(units) > 2 else ():
                seen.setdefault(part, []).append(_above(watts[part], means[shelf]))
            if len(shelves) > 2:
                seen.setdefault(shelf, []).append(_above(means[shelf], median(np.array(list(means.values())))))
    out = []
    for part, off in sorted(seen.items()):
        middle = median(np.array(off))
        if abs(middle) >= number(row, "floor"):
            why = f"it gives {100 * middle:+.0f} % against its neighbours under load"
            out.append(zones.policy(SHARES, row, part, Severity.HOLD, middle, why, phases=len(off)))
    return out


def _above(value: float, usual: float) -> float:
    """By which share; NaN where the usual is nothing."""
    return value / usual - 1 if usual else math.nan


def leak(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A detector that reports a leak: a rule. One whose voltage is not that of a dry one is wet or broken: HOLD."""
    out: list[Finding] = []
    wet = [part for part in readings.telemetry.parts("leak.state") if readings.telemetry.of(part, "leak.state").highest() >= 1]
    out += [zones.policy(LEAK, row, part, Severity.FAIL, 1.0, "its detector reported a leak") for part in wet]
    told = {one.part for one in out}
    for part in readings.telemetry.parts("leak.voltage"):
        volts = readings.telemetry.of(part, "leak.voltage").known()
        outside = (volts < number(row, "dry_min")) | (volts > number(row, "dry_max"))
        if part not in told and np.count_nonzero(outside) >= number(row, "readings"):
            worst = float(volts[outside][-1])
            why = f"its leak detector read {worst:.2f} V, which is neither dry nor sound"
            out.append(zones.policy(LEAK, row, part, Severity.HOLD, worst, why))
    return out


def pressure(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Pressure of the loop that falls by the hour while nothing changes: within phases, so that load and temperature cancel."""
    for part in readings.telemetry.parts("coolant.pressure"):
        slopes = []
        for stretch in readings.telemetry.stretches:
            one = readings.telemetry.window(part, "coolant.pressure", stretch)
            read = np.isfinite(one.v)
            t_s, v = one.t_s[read], one.v[read]
            hours = float(t_s[-1] - t_s[0]) / 3600 if v.size > 8 else 0.0
            if hours >= number(row, "hours") and median(v) > 0:
                step = max(1, v.size // 60)
                slopes.append(theil_sen(t_s[::step] / 3600, v[::step]) / median(v))
        if slopes and -median(np.array(slopes)) >= number(row, "floor"):
            fall = -median(np.array(slopes))
            why = f"its pressure falls by {100 * fall:.2f} % an hour in steady phases"
            return [zones.policy(PRESSURE, row, part, Severity.HOLD, fall, why, phases=len(slopes))]
    return []


def pump(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A pump that turns faster for the same flow, or delivers less at the same speed, than at the run's beginning."""
    first: float | None = None
    for load in readings.telemetry.phase("load"):
        turns, flow = _of_rack(readings.telemetry, "pump.speed", load), _of_rack(readings.telemetry, "coolant.flow", load)
        effort = turns / flow if flow else math.nan
        if effort == effort and effort > 0:
            first = first or effort
            if effort / first - 1 >= number(row, "floor"):
                why = f"it turns {100 * (effort / first - 1):.0f} % faster for the same flow in {load.stage} than at first"
                return [zones.policy(PUMP, row, "cdu", Severity.HOLD, effort / first - 1, why)]
    return []


def flow_law(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Thermal resistance at two flows: a gap to peers that grows as the flow falls is in the water (clog), one that stays is not.

    Needs two loads between which the rack's flow differs by `apart`.
    """
    looks = [(load, _of_rack(readings.telemetry, "coolant.flow", load)) for _, load in readings.pairs()]
    known = [(load, flow) for load, flow in looks if flow > 0]
    if len(known) < 2:
        return []
    (high, most), (low, least) = max(known, key=lambda x: x[1]), min(known, key=lambda x: x[1])
    if most / least - 1 < number(row, "apart"):
        return []
    idles = {load: idle for idle, load in readings.pairs()}
    a, b = (readings.slopes(idles[load], load) for load in (high, low))
    steeper = np.log(b / a) / math.log(most / least)
    family = readings.family(FLOW_LAW, low.phase, steeper, number(row, "sigma_min"))
    seen = zones.among(readings, row, low.stage, steeper, family)
    return zones.findings(
        FLOW_LAW, row, zones.collect([seen]),
        lambda s: f"its thermal resistance goes with flow^-{s.value:.2f}, more than its peers': the fault is on the water's side",
    )  # fmt: skip
