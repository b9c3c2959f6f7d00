"""One rack before and after: what changed of a part that was re-seated, re-greased or moved, more than of its peers. Pure.

Each part is its own control, so what parts differ by, offsets and gains fall out, and what moved the whole rack (inlet, firmware)
is taken away as the median of all changes. What is left is noise of readings, and the repair: trays first, then GPUs, then links.
A part that was replaced has no before: it is given in `new` and not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.parts import within
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.links import decades_of, lost_db
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median, medians, sigma
from burnin.signatures.tails import MAD_DOF, worst
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats

CHANGED = "repair.change"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of each part of a run, larger where it is worse. `key`: of its limits in the catalogue; `said`: in words."""

    key: str
    said: str
    unit: str
    read: Callable[[Readings], Sequence[Floats]]


@dataclass(frozen=True, slots=True)
class Compared:
    """What changed, worst first; of how many parts each quantity was compared (0: it was not, which says nothing); and of which
    it was not, though of others it was: what died in a repair is no better for it."""

    findings: tuple[Finding, ...]
    parts: dict[str, int]
    missing: dict[str, tuple[str, ...]]


def _slopes(readings: Readings) -> list[Floats]:
    return [zones.relative(readings.slopes(idle, load)) for idle, load in readings.free()]


def _idle(readings: Readings) -> list[Floats]:
    temps = [readings.mean("gpu.temp", idle) for idle in readings.telemetry.phase("idle")]
    return [temp - median(temp) for temp in temps]


def _power(readings: Readings) -> list[Floats]:
    return [zones.relative(readings.mean("gpu.power", idle)) for idle in readings.telemetry.phase("idle")]


def _clocks(readings: Readings) -> list[Floats]:
    free = readings.free()
    return [-zones.relative(np.where(readings.loaded(*pair), readings.mean("gpu.clock_sm", pair[1]), np.nan)) for pair in free]


def _margins(readings: Readings) -> list[Floats]:
    many = [decades_of(readings, load) for load in readings.telemetry.phase("load") if "@" not in load.phase]
    return [lost_db(one) for one in many if one.size]


QUANTITIES = (
    Quantity("slope", "thermal resistance, as a share of the rack's", "1", _slopes),
    Quantity("idle", "temperature at idle against the rack", "K", _idle),
    Quantity("power", "power at idle, as a share of the rack's", "1", _power),
    Quantity("clock", "clock lost at the power limit, as a share of the rack's", "1", _clocks),
    Quantity("margin", "margin lost on its links", "dB", _margins),
)


def compare(before: Readings, after: Readings, row: SignatureRow, new: Collection[str] = ()) -> Compared:
    """Parts that changed by more than their peers: worse is HOLD, better WATCH (it says that the repair did it).

    `new`: GPUs and trays that are other ones now. Both runs must be of one topology.
    """
    found: list[Finding] = []
    parts: dict[str, int] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for what in QUANTITIES:
        one, two = (_mean(what.read(readings)) for readings in (before, after))
        ok = one is not None and two is not None and one.shape == two.shape
        change = _paired(before, one, two, new) if ok and one is not None and two is not None else np.empty((0, 0))
        if change.ndim < 2 or not change.size or not before.enough(change.reshape(change.shape[0], -1)):
            parts[what.said] = 0
            continue
        parts[what.said] = int(np.count_nonzero(~np.isnan(change)))
        if lost := tuple(_missing(before, change, new)):
            missing[what.said] = lost
        found += (_told(what, row, part, value, z) for part, value, z in _out(before, row, what.key, change))
    found.sort(key=lambda f: (f.severity != Severity.HOLD, f.part, -(f.statistic or 0.0)))
    return Compared(tuple(found), parts, missing)


def _mean(looks: Sequence[Floats]) -> Floats | None:
    """Over the looks of a run, of what is known."""
    if not looks:
        return None
    stack = np.stack(looks)
    known = ~np.isnan(stack)
    out: Floats = np.where(known.any(axis=0), np.where(known, stack, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    return out


def _paired(readings: Readings, one: Floats, two: Floats, new: Collection[str]) -> Floats:
    change = two - one
    for i, gpus in enumerate(readings.gpus):
        for j, gpu in enumerate(gpus):
            if any(within(gpu, part) for part in new):
                change[i, j] = np.nan
    out: Floats = change - median(change)
    return out


def _missing(readings: Readings, change: Floats, new: Collection[str]) -> Iterator[str]:
    """GPUs, or some links of one, that are the same ones and were not compared."""
    unknown = np.isnan(change).reshape(len(readings.all_gpus), -1)
    for gpu, links in zip(readings.all_gpus, unknown.tolist(), strict=True):
        if any(within(gpu, part) for part in new):
            continue
        if all(links):
            yield gpu
        else:
            yield from (f"{gpu}.l{i}" for i, lost in enumerate(links) if lost)


def _out(readings: Readings, row: SignatureRow, key: str, change: Floats) -> Iterator[tuple[str, float, float]]:
    """(part, change, z), parents first; what a parent explains is taken off its children."""
    floor, least = number(row, key), number(row, f"{key}_sigma")
    gpus = medians(change) if change.ndim == 3 else change
    trays = medians(gpus)
    yield from _beyond(row, readings.trays, trays, floor, least)
    told = {part for part, _, _ in _beyond(row, readings.trays, trays, floor, least)}
    shared = np.where([tray in told for tray in readings.trays], trays, 0.0)
    gpus = gpus - shared[:, None]
    yield from _beyond(row, readings.all_gpus, gpus.ravel(), floor, least)
    if change.ndim == 3:
        lost = {part for part, _, _ in _beyond(row, readings.all_gpus, gpus.ravel(), floor, least)}
        own = np.where(np.array([gpu in lost for gpu in readings.all_gpus]).reshape(gpus.shape), gpus, 0.0)
        names = [f"{gpu}.l{i}" for gpu in readings.all_gpus for i in range(change.shape[2])]
        yield from _beyond(row, names, (change - shared[:, None, None] - own[:, :, None]).ravel(), floor, least)


def _beyond(
    row: SignatureRow, names: Sequence[str], values: Floats, floor: float, least: float
) -> Iterator[tuple[str, float, float]]:
    known = int(np.count_nonzero(~np.isnan(values)))
    values = values - median(values)
    scale = sigma(values, least)
    limit = worst(known, number(row, "rate") / 2, max(1.0, MAD_DOF * (known - 1)))
    for i in np.flatnonzero((np.abs(values) >= floor) & (np.abs(values) >= limit * scale)).tolist():
        yield names[i], float(values[i]), float(abs(values[i]) / scale)


def _told(what: Quantity, row: SignatureRow, part: str, value: float, z: float) -> Finding:
    worse = value > 0
    much = f"{100 * value:+.0f} %" if what.unit == "1" else f"{value:+.1f} {what.unit}"
    why = f"{what.said}: {much} since the run before, more than its peers changed (z {z:.1f})"
    return Finding(
        part=part,
        signature=CHANGED,
        severity=Severity.HOLD if worse else Severity.WATCH,
        value=zones.short(value),
        limit=number(row, what.key),
        unit=what.unit,
        why=f"{'worse' if worse else 'better'}: {why}",
        action=row.action if worse else "none: it is what a repair that helped looks like",
        fru=row.fru,
        statistic=zones.short(z),
        evidence={"quantity": what.key},
    )
