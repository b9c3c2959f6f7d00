"""Did the load load, and were its results right?

A load that was not reached proves nothing (design rule 3): below the suite's fraction of the enforced power limit this
is UNKNOWN `not_attained`, and so is everything that needed the load. The load kernels check their own results:
independent chains of equal operands must end bit-identical.
"""

from __future__ import annotations

import math

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result

FRACTION = Quantity("gpu.power_fraction", "1", "mean power under load / enforced power limit")
MISMATCHES = Quantity(
    "gpu.mismatches",
    "1",
    "results of the load kernel that disagreed",
    action="run again on this tray; if it computes wrong again, replace the board and keep it as silent corruption",
)


def power_fraction(evidence: Evidence, part: str) -> float:
    """Mean power / mean enforced limit in the judged window; NaN when either was not read."""
    limit = evidence.window(part, "gpu.power_limit").mean()
    return evidence.window(part, "gpu.power").mean() / limit if limit > 0 else math.nan


def not_reached(evidence: Evidence, part: str) -> str:
    """Why a load proves nothing, for a person: how far it came, and what the agent said about it."""
    reached = power_fraction(evidence, part)
    if math.isnan(reached):
        return "the load is not known to have been reached: its power was not read"
    clock = evidence.window(part, "gpu.clock_sm").mean()
    at = "" if math.isnan(clock) else f" at {clock:.0f} MHz"
    said = dict.fromkeys(line.text for line in evidence.logged(part, "cut", "load") if line.text)
    return "; ".join([f"the load was not reached: {reached:.3g} of the power limit{at}", *said])


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Power attained, and mismatches counted, per GPU."""
    return [m for part in context.gpus for m in (_fraction(context, evidence, part), _mismatches(context, evidence, part))]


def _fraction(context: Context, evidence: Evidence, part: str) -> Measurement:
    want = context.suite.load_fraction
    reached = power_fraction(evidence, part)
    limit = f">= {want:g}"
    if math.isnan(reached):
        silent = "gpu.power_limit" if evidence.window(part, "gpu.power").present else "gpu.power"
        return FRACTION.unknown(part, evidence.why_absent(part, silent), f"{silent} was not read", limit)
    value = round(reached, 6)
    if reached >= want:
        return Measurement(FRACTION.name, part, value, "1", limit, Result.PASS)
    return Measurement(FRACTION.name, part, value, "1", limit, Result.UNKNOWN, "not_attained", not_reached(evidence, part))


def _mismatches(context: Context, evidence: Evidence, part: str) -> Measurement:
    wrong = evidence.window(part, "load.wrong")
    if not wrong.present:
        return MISMATCHES.unknown(part, evidence.why_absent(part, "load.wrong"), "no load process reported its results")
    return MISMATCHES.judge(part, wrong.highest(), context.limits)


CHECK = Check(
    name="gpu-load",
    about="the load reached its power on every GPU, and computed right",
    quantities=(FRACTION, MISMATCHES),
    judge=judge,
    metrics=("gpu.power", "gpu.power_limit", "load.wrong"),
    explains=("gpu.clock_sm",),
    loaded=True,
)
