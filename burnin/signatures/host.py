"""What stands around the GPUs: CPU memory, C2C, PCIe, network cards, drives, parts that do not come up. Rules and counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from burnin.events import Finding, LogLine, Severity
from burnin.rack.parts import is_part, kind, tray_of
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.zones import number
from burnin.telemetry.series import Series

CPU_MEMORY, C2C, PCIE, WIDTH = "cpu.memory", "c2c.errors", "pcie.errors", "pcie.width"
NIC, NVME, BOOT, RANGE = "nic.flaps", "nvme.media", "boot.missing", "sensor.range"


def grown(name: str) -> Callable[[Readings, SignatureRow], list[Finding]]:
    """A signature that counts: growth of the row's signals per day watched (`per_day`) or in all (`floor`); `far` condemns.

    Where most parts of a kind show it, it is the rack's: nobody's part alone.
    """

    def look(readings: Readings, row: SignatureRow) -> list[Finding]:
        out = []
        for metric in row.signals:
            counts, watched = {}, 0
            for part in readings.telemetry.parts(metric):
                one = readings.telemetry.of(part, metric)
                count = readings.whole(part, metric, Series.growth)
                watched += 1
                if count >= _least(row, one.t_s):
                    counts[part] = count
            if len(counts) * 2 > watched and len({tray_of(part) for part in counts}) > 3:
                why = f"{metric} grew on {len(counts)} of {watched} parts: not one part's fault"
                out.append(zones.policy(name, row, "rack", Severity.HOLD, float(len(counts)), why, metric=metric))
                continue
            for part, count in counts.items():
                fail = metric in _HARD or ("far" in row.limits and count >= number(row, "far"))
                grade = Severity.FAIL if fail else Severity.HOLD
                out.append(zones.policy(name, row, part, grade, count, f"{metric} grew by {count:.0f}", metric=metric))
        return out

    return look


_HARD = ("cpu.edac_ue", "nvme.media_errors", "pcie.aer_fatal")


def _least(row: SignatureRow, t_s: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """The growth from which on it counts: `floor`, or `per_day` of the time watched where that is more."""
    days = float(t_s[-1] - t_s[0]) / 86400 if t_s.size > 1 else 0.0
    least = number(row, "floor")
    return max(least, number(row, "per_day") * days) if "per_day" in row.limits else least


def width(readings: Readings, row: SignatureRow) -> list[Finding]:
    """A PCIe link with fewer lanes than both ends have, than it had, or than the same place has in other trays."""
    parts = readings.telemetry.parts("pcie.width")
    lowest = {part: readings.whole(part, "pcie.width", Series.lowest) for part in parts}
    places: dict[str, Counter[float]] = {}
    for part, lanes in lowest.items():
        places.setdefault(_place(part), Counter())[lanes] += 1
    out = []
    for part, lanes in lowest.items():
        one = readings.telemetry.of(part, "pcie.width")
        able = [readings.telemetry.of(part, "pcie.width_max").lowest(), one.highest()]
        common, count = places[_place(part)].most_common(1)[0]
        able += [common] if count * 2 > places[_place(part)].total() and count > 2 else []
        most = max((x for x in able if x == x), default=lanes)
        if lanes < most:
            why = f"its PCIe link ran with {lanes:.0f} lanes of {most:.0f}"
            out.append(zones.policy(WIDTH, row, part, Severity.FAIL, lanes, why, lanes=most))
    return out


def _place(part: str) -> str:
    return part.split(".", 1)[-1]


def boots(log: Iterable[LogLine], row: SignatureRow) -> list[Finding]:
    """Parts that were missing or late after a start: events of kind `boot` with the code `missing` or `late`."""
    seen: dict[str, Counter[str]] = {}
    for line in log:
        if line.kind == "boot" and line.code in ("missing", "late") and is_part(line.part):
            seen.setdefault(line.part, Counter())[line.code] += 1
    out = []
    for part, codes in sorted(seen.items()):
        missing = codes["missing"]
        grade = Severity.FAIL if missing >= number(row, "far") else Severity.HOLD
        why = f"after a start it was missing {missing} times and late {codes['late']} times"
        out.append(zones.policy(BOOT, row, part, grade, float(missing + codes["late"]), why))
    return out


def limits(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Readings that cannot be: a GPU colder than the coolant that comes in, below freezing, or above what silicon survives.
    Where most of the rack's GPUs read so, one number that they were held against or written in is wrong, not so many sensors."""
    supply = [x for part in ("cdu", "rack") if (x := readings.telemetry.of(part, "coolant.supply_temp").mean()) == x]
    coldest = max([number(row, "lowest"), *(x - number(row, "below_supply") for x in supply[:1])])
    out: list[Finding] = []
    for metric in ("gpu.temp", "hbm.temp"):
        parts = [part for part in readings.telemetry.parts(metric) if kind(part) == "GPU"]
        found = []
        for part in parts:
            known = readings.telemetry.of(part, metric).known()
            odd = (known < coldest) | (known > number(row, "highest"))
            if np.count_nonzero(odd) >= max(number(row, "readings"), 0.01 * known.size):
                value = float(known[odd][0])
                why = f"{metric} reads {value:g} Cel, outside {coldest:.0f} to {number(row, 'highest'):.0f}"
                found.append(zones.policy(RANGE, row, part, Severity.HOLD, value, why, metric=metric))
        if len(found) > 2 and len(found) * 2 > len(parts):
            found = [_of_all(found, len(parts), coldest > number(row, "lowest"))]
        out += found
    return [one for one in out if math.isfinite(one.value or 0.0)]


def _of_all(found: list[Finding], of: int, supplied: bool) -> Finding:
    why = f"{len(found)} of {of} GPUs, {found[0].part} among them: {found[0].why}; so many sensors do not fail at once"
    held = supplied and (found[0].value or 0.0) < 100
    action = (
        "Compare the loop's supply sensor with a thermometer" if held else "See in which unit temperatures were written (Cel)"
    )
    one = replace(found[0], part="cdu" if held else "rack", why=why, action=f"{action}, then judge again.")
    return replace(one, fru="supply temperature sensor of the loop" if held else "none: how it was recorded")
