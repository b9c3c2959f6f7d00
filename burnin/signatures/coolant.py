"""The coolant as the GPUs feel it: virtual sensors from their temperatures and powers alone. Pure.

Between idle and load a GPU's temperature goes along a line over its power. Where it meets 0 W is the coolant that reaches its
tray (what GPUs before it in the loop add goes with power, too, and falls out), its slope is the thermal resistance. What the
slopes of a tray share against the other trays is its flow, by the exponent of the catalogue; the powers are heat in the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median, medians
from burnin.signatures.thermal import GPU_ROW
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Stretch

VIRTUAL = "coolant.virtual"


@dataclass(frozen=True, slots=True, eq=False)
class Virtual:
    """By GPU (trays x slots): coolant in Cel, resistance in K/W. By tray: coolant, flow as a share of the middle tray's. Of the
    rack: coolant and its uncertainty in K (one sigma), resistance, heat of its GPUs in W and of how many of them.

    `meter`: what a real sensor of the supply read meanwhile; NaN without one.
    """

    stage: str
    coolant: Floats
    resistance: Floats
    tray_coolant: Floats
    tray_flow: Floats
    supply: float
    error: float
    slope: float
    heat: float
    gpus: int
    meter: float


def read(readings: Readings, row: SignatureRow) -> Virtual | None:
    """From the first load at the power limit (else the first at all); None where fewer than half of the trays were loaded."""
    for idle, load in [*readings.free(), *readings.pairs()]:
        slope = readings.slopes(idle, load)
        if readings.enough(slope) and 2 * np.count_nonzero(~np.isnan(slope)) >= slope.size:
            return _read(readings, row, idle, load, slope)
    return None


def _read(readings: Readings, row: SignatureRow, idle: Stretch, load: Stretch, slope: Floats) -> Virtual:
    coolant = readings.mean("gpu.temp", idle) - slope * readings.mean("gpu.power", idle)
    shared = readings.shared(GPU_ROW, load.phase, zones.relative(slope), 0.0).own
    watts = np.where(np.isnan(slope), np.nan, readings.mean("gpu.power", load))
    count = int(np.count_nonzero(~np.isnan(watts)))
    noise = number(row, "sensor") * math.sqrt(math.pi / 2 / count)  # of a median
    meter = median(np.array([readings.telemetry.window("cdu", "coolant.supply_temp", s).mean() for s in (idle, load)]))
    return Virtual(
        stage=load.stage,
        coolant=coolant,
        resistance=slope,
        tray_coolant=medians(coolant),
        tray_flow=np.maximum(1 + shared, 0.05) ** (-1 / number(row, "exponent")),
        supply=median(coolant),
        error=math.hypot(noise, number(row, "bias")),
        slope=median(slope),
        heat=float(np.nansum(watts)),
        gpus=count,
        meter=meter,
    )


def apart(readings: Readings, row: SignatureRow) -> list[Finding]:
    """The loop's own sensor of the supply against what the GPUs feel: HOLD where they are further apart than either may be."""
    one = read(readings, row)
    if one is None or not abs(one.meter - one.supply) >= number(row, "floor"):
        return []
    off = one.meter - one.supply
    felt = f"{one.supply:.1f} +- {one.error:.1f} Cel in {one.stage}"
    why = f"the loop says that {one.meter:.1f} Cel come in, {one.gpus} GPUs feel {felt}"
    return [zones.policy(VIRTUAL, row, "cdu", Severity.HOLD, off, why, stage=one.stage, felt=zones.short(one.supply))]


def sentence(one: Virtual) -> str:
    """For a person, uncertainties included."""
    beside = f", the loop's sensor says {one.meter:.1f}" if one.meter == one.meter else ", no sensor of the loop beside it"
    low, high = (float(x) for x in (np.nanmin(one.tray_flow), np.nanmax(one.tray_flow)))
    return (
        f"{one.supply:.1f} +- {one.error:.1f} Cel reach the trays by what {one.gpus} GPUs feel{beside}; {one.slope:.4f} K/W in "
        f"the middle; flows of trays {low:.2f} to {high:.2f} of the middle one's; {one.heat / 1000:.1f} kW of GPUs into the loop"
    )
