"""What the checks of the host's parts share: which parts there are, growth of a counter, a level that must hold.

A profile says how many CPUs, network cards and drives a tray has; a suite's step may say it for its site
(`{check: nic, with: {count: 6}}`). Where neither does, what the tray shows is judged, and the count itself is UNKNOWN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import Field

from burnin.checks.base import Context, Evidence, Quantity
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.telemetry.series import Series


class Count(Data):
    """How many of them each tray of this site has."""

    count: int | None = Field(default=None, ge=0, le=64)


def expected(context: Context, built: int | None) -> int | None:
    """How many there must be: as the step says, else as the profile does."""
    stated = context.args.get("count")
    return stated if isinstance(stated, int) and not isinstance(stated, bool) else built


def parts(context: Context, evidence: Evidence, letter: str, metric: str, count: int | None) -> list[str]:
    """Parts t07.n0 ... that must be there, and those that the tray spoke of."""
    begin = f"{context.tray}.{letter}"
    known = {part for part, name in (*evidence.telemetry.series, *evidence.telemetry.absent) if name == metric}
    seen = {part for part in known if part.startswith(begin) and part[len(begin) :].isdigit()}
    return sorted(seen | {f"{begin}{i}" for i in range(count or 0)})


def counted(
    context: Context, evidence: Evidence, quantity: Quantity, metric: str, count: int | None, usual: bool = False
) -> Measurement:
    """Fewer than expected, or fewer than there were, is FAIL; more, or nothing to compare with, is UNKNOWN.

    `usual`: the profile's number is what most builds have, so that only a step's own number makes fewer a FAIL.
    """
    end = evidence.stretch.t1_s if evidence.stretch else 0.0
    window, whole = evidence.window(context.tray, metric), evidence.telemetry.of(context.tray, metric).between(0.0, end)
    limit = "none" if count is None else f"= {count}"
    lowest, highest = whole.lowest(), whole.highest()
    sure = not usual or "count" in context.args
    if lowest < highest or (count is not None and sure and lowest < count):
        why = f"there were {highest:g} when the run began" if lowest < highest else ""
        return Measurement(quantity.name, context.tray, lowest, quantity.unit, limit, Result.FAIL, None, why)
    if not window.present:
        return _silent(context, evidence, quantity, context.tray, metric, window)
    if count is None:
        why = f"the tray has {lowest:g}, and the profile does not say how many: give the step a count"
        return quantity.unknown(context.tray, "missing", why)
    if lowest != count:
        why = f"the tray has {lowest:g}, expected are {count}: look for what is missing, or give the step its count"
        return quantity.unknown(context.tray, "missing", why, limit)
    return Measurement(quantity.name, context.tray, lowest, quantity.unit, limit, Result.PASS)


def growth(context: Context, evidence: Evidence, quantity: Quantity, part: str, metric: str) -> Measurement:
    """Growth since the run began, so that an error between two stages is not lost; it must still be read in this one."""
    return of(context, evidence, quantity, part, metric, Series.growth, so_far=True)


def of(
    context: Context,
    evidence: Evidence,
    quantity: Quantity,
    part: str,
    metric: str,
    value: Callable[[Series], float],
    so_far: bool = False,
) -> Measurement:
    """`value` of one series, in the whole stage or in the run so far, judged. A violation stands; else silence is UNKNOWN."""
    end = evidence.stretch.t1_s if evidence.stretch else 0.0
    window = evidence.window(part, metric)
    series = evidence.telemetry.of(part, metric).between(0.0, end) if so_far else evidence.whole(part, metric)
    number = value(series)
    one = quantity.judge(part, number, context.limits) if not math.isnan(number) else None
    if one is None or (not window.present and one.result is not Result.FAIL):
        return _silent(context, evidence, quantity, part, metric, window)
    return one


def _silent(context: Context, evidence: Evidence, quantity: Quantity, part: str, metric: str, window: Series) -> Measurement:
    why = f"{metric} has {window.present} readings in {context.stage.stage}"
    return quantity.unknown(part, evidence.why_absent(part, metric), why)
