"""The rack's power shelves: all there, every supply working, redundancy whole, load shared.

Supplies share a load well only when there is one: below `psu.share.from` of their rating sharing is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from burnin.checks import asked
from burnin.checks.base import RACK, TO_DO, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.bmc import CHASSIS
from burnin.telemetry.facility import Shelf, Supply, shelf

_PSU = "re-seat this supply and its feed; replace it if it stays"
COUNT = Quantity("shelf.count", "1", "power shelves that were read", action="name every shelf's BMC in the rack file")
WORKING = Quantity("shelf.supplies", "1", "supplies of the shelf that work", action=_PSU)
SUPPLY = Quantity("psu.works", "1", "a supply that does not work", action=_PSU)
REDUNDANCY = Quantity(
    "shelf.redundancy", "1", "redundancy and health, as the shelf says", action="see which supply or feed is lost"
)
SHARE = Quantity("psu.share", "1", "how far a supply's output is from the mean of its shelf / that mean", action=_PSU)
FROM = "psu.share.from"
NAMES = ("PowerSubsystem", "PowerSupplies", "Metrics", "Sensors")
_KEEP = (
    "Members", "PowerSupplyRedundancy", "OutputPowerWatts", "PowerCapacityWatts", "CapacityWatts", "PowerState", "SerialNumber",
    "FirmwareVersion", "Model", "Reading", "ReadingType", "ReadingUnits", "Thresholds",
)  # fmt: skip


def _shelves(context: Context) -> list[str]:
    return [f"p{i}" for i in range(context.profile.topology.power_shelves or 0)]


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Each shelf that the rack file names."""
    named = [part for part in _shelves(context) if part in context.rack.bmc]
    return [] if answers else [asked.walk(part, (CHASSIS,), 4, NAMES, _KEEP) for part in named]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Shelf by shelf; one that nobody can ask is unknown."""
    wanted = context.profile.topology.power_shelves
    if wanted is None:
        return [COUNT.unknown(RACK, "missing", "nobody has published how many shelves this rack has")]
    out, read = list[Measurement](), 0
    for part in _shelves(context):
        why = refused(context, evidence, part)
        if why:
            out.append(COUNT.unknown(part, "missing", why, f"= {wanted}"))
        else:
            found = shelf(asked.bodies(evidence, part))
            read += bool(found.supplies)
            out += _shelf(context, evidence, part, found)
    whole = read == wanted
    return [asked.good(COUNT, RACK, float(read), f"= {wanted}"), *out] if whole else out


def refused(context: Context, evidence: Evidence, part: str) -> str:
    """Why a shelf gave nothing."""
    if part not in context.rack.bmc:
        return f"the rack file names no BMC of {part}{TO_DO}write it into the rack file (bmc:), then run again"
    return asked.refused(evidence, part)


def _shelf(context: Context, evidence: Evidence, part: str, found: Shelf) -> Iterator[Measurement]:
    wanted = context.profile.topology.psus_per_shelf
    limit = "none" if wanted is None else f"= {wanted}"
    for one in found.supplies:
        if one.works is not True:
            make = asked.bad if one.works is False else asked.hold
            yield make(SUPPLY, _name(part, one), "no" if one.works is False else "unknown", f"{part}: {one.why}")
    works = sum(one.works is True for one in found.supplies)
    if wanted is not None and works < wanted and any(one.works is False for one in found.supplies):
        yield asked.bad(WORKING, part, float(works), f"{works} of {wanted} supplies work", limit)
    elif wanted is None or works < wanted or found.unread:
        why = found.unread[0] if found.unread else f"{works} of {wanted or 'nobody knows how many'} supplies say that they work"
        yield asked.hold(WORKING, part, float(works), why, limit)
    else:
        yield asked.good(WORKING, part, float(works), limit)
    if not found.supplies:
        return
    for why in (*found.redundancy, *found.unhealthy):
        yield asked.hold(REDUNDANCY, part, "lost", f"{part}: {why}")
    if not found.redundancy and not found.unhealthy:
        yield asked.good(REDUNDANCY, part, "OK")
    yield from _sharing(context, evidence, part, found)


def _name(part: str, one: Supply) -> str:
    return part if one.number is None or not 0 <= one.number <= 9 else f"{part}.u{one.number}"


def _sharing(context: Context, evidence: Evidence, part: str, found: Shelf) -> Iterator[Measurement]:
    """Only under load, and only where the shelf carries enough."""
    if context.stage.load is None:
        return
    watts = {}
    for one in found.supplies:
        mean = evidence.window(_name(part, one), "psu.power").mean()
        value = mean if mean == mean else one.watts
        if one.works is True and value is not None:
            watts[_name(part, one)] = value
    rated = [one.capacity_w for one in found.supplies if one.capacity_w]
    least = context.limits.get(FROM)
    if len(watts) < 2 or not rated or least is None or least.min is None:
        yield SHARE.unknown(part, "missing", "the output of its supplies, or what they are rated for, was not read")
        return
    mean = sum(watts.values()) / len(watts)
    if mean < least.min * min(rated):
        yield SHARE.unknown(part, "not_attained", f"its supplies carry {mean:.0f} W each: too little to see how they share")
        return
    off = {name: abs(value - mean) / mean for name, value in watts.items()}
    worst = max(off, key=lambda name: (off[name], name))
    judged = SHARE.judge(worst, off[worst], context.limits)
    yield judged if judged.result is Result.FAIL else replace(judged, part=part)


CHECK = Check(
    name="power",
    about="power shelves: supplies, redundancy, and how they share the load",
    quantities=(COUNT, WORKING, SUPPLY, REDUNDANCY, SHARE),
    judge=judge,
    orders=orders,
    metrics=("psu.power",),
    scope="rack",
    equipment=("power shelves",),
)
