"""A whole rack, or a whole lot, that is off: no part is an outlier, so only other racks can tell. Needs a baseline."""

from __future__ import annotations

import math
from dataclasses import replace

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median
from burnin.signatures.tails import worst
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Series

SHIFT = "fleet.shift"


def shift(readings: Readings, row: SignatureRow) -> list[Finding]:
    """The rack's medians against those of a baseline, either way: significant against the spread of racks, and larger than the
    floor. What depends on the inlet (temperatures themselves) is not compared."""
    out = []
    for name, kind, value in _levels(readings):
        known = readings.level(f"{SHIFT}.{name}", kind, value)
        if known is None or known.racks < number(row, "racks"):
            continue
        off = value - known.level if name == "decades" else value / known.level - 1
        scale = max(known.levels * math.sqrt(1 + 1 / known.racks), number(row, "sigma_min") * abs(known.level))
        z = abs(value - known.level) / scale
        if abs(off) >= number(row, "decades" if name == "decades" else "floor") and z >= worst(
            len(_NAMES), number(row, "hold") / 2, known.racks - 1
        ):
            why = f"{_NAMES[name]} of the whole rack is {value:.4g}, of {known.racks} others {known.level:.4g} (z {z:.1f})"
            out.append(zones.policy(SHIFT, row, "rack", Severity.HOLD, off, why, what=name, z=zones.short(z)))
    return _together(out)


_NAMES = {
    "slope": "thermal resistance in K/W",
    "clock": "clock at the power limit in MHz",
    "work": "work per clock",
    "watts": "power at a locked clock in W",
    "decades": "raw bit error rate (decades)",
    "bandwidth": "bandwidth in GB/s",
}


def _together(found: list[Finding]) -> list[Finding]:
    """One finding for the rack, with all that is off."""
    if not found:
        return []
    return [replace(found[0], why="; ".join(one.why for one in found), evidence={"what": [one.evidence for one in found]})]


def _levels(readings: Readings) -> list[tuple[str, str, float]]:
    """(what, kind of phase, median over the rack's parts) of every first look."""
    out: dict[tuple[str, str], float] = {}

    def note(name: str, phase: str, values: Floats) -> None:
        value = median(values.ravel())
        if value == value and readings.enough(values.reshape(len(readings.trays), -1)):
            out.setdefault((name, phase.split("-")[0]), value)

    for idle, load in readings.pairs():
        note("slope", load.phase, readings.slopes(idle, load))
        done = readings.once("launch rate", load, lambda load=load: readings.of("load.launches", load, Series.rate))  # type: ignore[misc]
        done = done / readings.mean("gpu.clock_sm", load)
        note("work", load.phase, done)
        locked = "@" in load.phase
        metric = "gpu.power" if locked else "gpu.clock_sm"
        note("watts" if locked else "clock", load.phase, readings.mean(metric, load))
        decades = readings.seen("nvlink.margin", load)
        if decades is not None and decades.size:
            note("decades", load.phase, decades)
        note("bandwidth", load.phase, readings.mean("gpu.bandwidth", load))
    return [(name, kind, value) for (name, kind), value in out.items()]
