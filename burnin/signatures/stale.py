"""Services that repeat themselves: what a BMC, power shelf or CDU reads stands still while the load makes a step.

What such a service says of leaks, flow and temperatures is what it said before, so it is worth nothing: HOLD, however healthy it
reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import MIN_RISE_W, Readings
from burnin.signatures.robust import median
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Stretch

STALE = "sensor.stale"


def stale(readings: Readings, row: SignatureRow) -> list[Finding]:
    """What follows the load (a tray's power, a shelf's outputs, the coolant's return) is the same number in all readings of two
    stretches between which the GPUs behind it step by MIN_RISE_W each, for `seconds` after the step."""
    out: dict[str, Finding] = {}
    for one, two in pairwise(readings.telemetry.stretches):
        before, after = readings.mean("gpu.power", one), readings.mean("gpu.power", two)
        change = np.abs(after - before)
        for service, metric, sensors, trays in _services(readings):
            moved = change[trays].ravel() >= MIN_RISE_W  # False for NaN
            if service in out or 2 * np.count_nonzero(moved) <= moved.size:  # a few trays may not move what serves a rack
                continue
            held = _held(readings, row, metric, sensors, one, two)
            if held is not None:
                (value, seconds), step = held, median(change[trays].ravel()[moved])
                why = (
                    f"{metric} reads {value:g} in {one.stage} and for {seconds:.0f} s of {two.stage} while each GPU's power "
                    f"moves by {step:.0f} W: it repeats what it said before, and so may all it says of leaks, flow and heat"
                )
                seen = {"metric": metric, "stages": [one.stage, two.stage]}
                out[service] = zones.policy(STALE, row, service, Severity.HOLD, value, why, **seen)
    return list(out.values())


def _services(readings: Readings) -> Iterator[tuple[str, str, list[str], list[int]]]:
    """(who answers, metric, its sensors, the rows of the trays that move it)."""
    every = list(range(len(readings.trays)))
    for part in readings.telemetry.parts("tray.power"):
        if part in readings.trays:
            yield f"{part}.bmc", "tray.power", [part], [readings.trays.index(part)]
    shelves: dict[str, list[str]] = {}
    for part in readings.telemetry.parts("psu.power"):
        shelves.setdefault(part.partition(".")[0], []).append(part)
    for shelf, supplies in sorted(shelves.items()):
        yield shelf, "psu.power", supplies, every
    for part in readings.telemetry.parts("coolant.return_temp"):
        yield part, "coolant.return_temp", [part], every


def _held(
    readings: Readings, row: SignatureRow, metric: str, sensors: list[str], one: Stretch, two: Stretch
) -> tuple[float, float] | None:
    """A number that one of them gave all the time, and for how long after the step; None where any of them moved, where all read
    nothing but 0 (what is off stands still), or where too little was read."""
    seconds: list[float] = []
    value = 0.0
    for sensor in sensors:
        a, b = (_known(readings, sensor, metric, stretch) for stretch in (one, two))
        if min(len(a), len(b)) < number(row, "readings") or np.ptp(np.concatenate([a, b])) != 0:
            return None
        window = readings.telemetry.window(sensor, metric, two)
        seconds.append(float(window.t_s[~np.isnan(window.v)][-1]) - two.t0_s)
        value = value or float(b[0])
    return (value, min(seconds)) if value and min(seconds) >= number(row, "seconds") else None


def _known(readings: Readings, sensor: str, metric: str, stretch: Stretch) -> Floats:
    values = readings.telemetry.window(sensor, metric, stretch).v
    known: Floats = values[~np.isnan(values)]
    return known
