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
    stretches, though the GPUs behind it, read at the same times, step by `step` each, and `seconds` are over since."""
    out: dict[str, Finding] = {}
    for one, two in pairwise(readings.telemetry.stretches):
        for service, metric, sensors, gpus in _services(readings):
            held = _held(readings, row, metric, sensors, one, two) if service not in out else None
            if held is None:
                continue
            value, (before, after) = held
            steps = np.array([_power(readings, gpu, two, after) - _power(readings, gpu, one, before) for gpu in gpus])
            moved = np.abs(steps) >= number(row, "step", MIN_RISE_W)  # False for NaN
            if 2 * np.count_nonzero(moved) <= moved.size:  # a few trays may not move what serves a rack
                continue
            step, over_s = median(np.abs(steps[moved])), after[-1] - two.t0_s
            why = (
                f"{metric} reads {value:g} in {one.stage} and for {over_s:.0f} s of {two.stage} while each GPU's power moves by "
                f"{step:.0f} W: it repeats what it said before, and so may all it says of leaks, flow and heat"
            )
            seen = {"metric": metric, "stages": [one.stage, two.stage]}
            out[service] = zones.policy(STALE, row, service, Severity.HOLD, value, why, **seen)
    return list(out.values())


def _services(readings: Readings) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(who answers, metric, its sensors, the GPUs that move it)."""
    for tray, gpus in zip(readings.trays, readings.gpus, strict=True):
        yield f"{tray}.bmc", "tray.power", [tray], gpus
    shelves: dict[str, list[str]] = {}
    for part in readings.telemetry.parts("psu.power"):
        shelves.setdefault(part.partition(".")[0], []).append(part)
    for shelf, supplies in sorted(shelves.items()):
        yield shelf, "psu.power", supplies, readings.all_gpus
    for part in readings.telemetry.parts("coolant.return_temp"):
        yield part, "coolant.return_temp", [part], readings.all_gpus


def _held(
    readings: Readings, row: SignatureRow, metric: str, sensors: list[str], one: Stretch, two: Stretch
) -> tuple[float, tuple[Floats, Floats]] | None:
    """The number that one of them gave all the time, and when it was read in both stretches; None where any of them moved, where
    all read nothing but 0 (what is off stands still), or where too little was read."""
    value, times = 0.0, None
    for sensor in sensors:
        windows = [readings.telemetry.window(sensor, metric, stretch) for stretch in (one, two)]
        known = [~np.isnan(window.v) for window in windows]
        values = [window.v[there] for window, there in zip(windows, known, strict=True)]
        if min(map(len, values)) < number(row, "readings") or np.ptp(np.concatenate(values)) != 0:
            return None
        before, after = (window.t_s[there] for window, there in zip(windows, known, strict=True))
        if after[-1] - two.t0_s < number(row, "seconds"):
            return None
        value, times = value or float(values[0][0]), (before, after)
    return (value, times) if value and times is not None else None


def _power(readings: Readings, gpu: str, stretch: Stretch, times: Floats) -> float:
    """Median power of a GPU in a stretch, as it was when the service was read; NaN where it was not."""
    power = readings.telemetry.window(gpu, "gpu.power", stretch)
    if not power.t_s.size:
        return float("nan")
    return median(power.v[np.clip(np.searchsorted(power.t_s, times, "right") - 1, 0, None)])
