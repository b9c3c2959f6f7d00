"""Did the load load, and were its results right?

A load that was not reached proves nothing (design rule 3): below the suite's fraction of the enforced power limit this
is UNKNOWN `not_attained`, and so is everything that needed the load. Where a stage holds the SM clock (load@1500) power is
below the limit by intent: there the clock must have been that one, and the load kernel must have gone on. The load kernels
check their own results: independent chains of equal operands must end bit-identical.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from burnin.checks.base import TO_DO, Check, Context, Evidence, Quantity
from burnin.events import LogLine, Measurement, Result
from burnin.rack.parts import fold
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage, Suite

FRACTION = Quantity("gpu.power_fraction", "1", "mean power under load, of readings or energy counter / enforced power limit")
HELD = Quantity("gpu.clock_held", "1", "mean SM clock / the clock that the stage holds, while a load kernel ran")
KERNEL = Quantity("gpu.kernel", "1", "the load kernel that ran, where each GPU said it; the one that the suite names")
MISMATCHES = Quantity(
    "gpu.mismatches",
    "1",
    "results of the load kernel that disagreed",
    action="run again on this tray; if it computes wrong again, replace the board and keep it as silent corruption",
)

_SILENT_S = 10.0
"""For so long, and for three readings, nobody need have seen a load kernel go on at the end of its stage; an agent that died took
its load along."""
_END_S = 1.0
"""A load that ends so late ended with its stage: lines are placed to a quarter of a second."""


def power_fraction(evidence: Evidence, part: str) -> float:
    """Mean power / mean enforced limit in the judged window; NaN when either was not read.

    A single reading that falls into a tenth of a second without work can take a short window below the suite's fraction. So the
    energy counter, which knows what was between readings, may say more than their mean; never more than most of them say.
    """
    limit, power = evidence.window(part, "gpu.power_limit").mean(), evidence.window(part, "gpu.power")
    if not (limit > 0 and power.present):
        return math.nan
    spent = evidence.window(part, "gpu.energy").rate()
    return max(power.mean(), min(spent, power.median()) if spent > 0 else 0.0) / limit


def clock_held(evidence: Evidence, part: str, mhz: int) -> float:
    """Mean SM clock / the clock it was to be held at, in the judged window; NaN where it was not read, or nothing ran."""
    launched = evidence.window(part, "load.launches")
    ran = launched.present > 1 and launched.highest() > launched.lowest()
    return evidence.window(part, "gpu.clock_sm").mean() / mhz if ran else math.nan


def ended_early(evidence: Evidence, part: str, stage: Stage) -> str:
    """Why this GPU's load ended before its stage and did not come again, for a person; empty where it went on to the end."""
    if evidence.stretch is None:
        return ""
    began_s, ended_s = evidence.stretch.at(part)
    first: LogLine | None = None
    for line in evidence.log:
        if line.part != part or line.kind not in ("cut", "load") or line.t_s < began_s:
            continue
        if line.code == "burning":
            first = None
        elif line.kind == "cut" or line.code in ("failed", "gone"):
            first = first or line
    ended_s = min(ended_s, began_s + stage.duration)
    if first is not None and ended_s - first.t_s > _END_S:
        return f"the load ended {ended_s - first.t_s:.0f} s before its stage"
    launched = evidence.telemetry.of(part, "load.launches").between(began_s, ended_s)
    went_s, count = launched.t_s[~np.isnan(launched.v)], launched.known()
    if went_s.size > 1:
        grew = np.flatnonzero(np.diff(count) > 0)
        silent_s = ended_s - float(went_s[grew[-1] + 1] if grew.size else went_s[0])
        if silent_s > max(_SILENT_S, 3 * float(np.median(np.diff(went_s)))):
            return f"no load kernel was seen that went on in the last {silent_s:.0f} s of its stage"
    return ""


def attained(evidence: Evidence, part: str, stage: Stage, suite: Suite) -> bool:
    """Was this GPU loaded as the stage wants it, to its end? What is not known was not."""
    if ended_early(evidence, part, stage):
        return False
    if stage.locked_mhz is not None:
        return abs(clock_held(evidence, part, stage.locked_mhz) - 1) <= 1 - suite.load_fraction
    return power_fraction(evidence, part) >= suite.load_fraction


def not_reached(evidence: Evidence, part: str, stage: Stage) -> str:
    """Why a load proves nothing, for a person: how far it came, when it ended, and what the agent said about it."""
    early = ended_early(evidence, part, stage)
    if stage.locked_mhz is not None:
        return _not_held(evidence, part, stage.locked_mhz, early)
    reached = power_fraction(evidence, part)
    if math.isnan(reached):
        return "the load is not known to have been reached: its power was not read"
    clock = evidence.window(part, "gpu.clock_sm").mean()
    at = "" if math.isnan(clock) else f" at {clock:.0f} MHz"
    return "; ".join([f"{early or 'the load was not reached'}: {reached:.3g} of the power limit{at}", *_said(evidence, part)])


def _said(evidence: Evidence, part: str, *more: str) -> list[str]:
    """What the agent said about this load, each once."""
    return list(dict.fromkeys(line.text for line in evidence.logged(part, "cut", "load", *more) if line.text))


def _not_held(evidence: Evidence, part: str, mhz: int, early: str) -> str:
    clock = evidence.window(part, "gpu.clock_sm").mean()
    if math.isnan(clock_held(evidence, part, mhz)):
        what = "its clock was not read" if math.isnan(clock) else "no load ran"
    else:
        what = f"its clock was {clock:.0f} MHz"
    return "; ".join(filter(None, [early, f"not loaded at {mhz} MHz: {what}", *_said(evidence, part, "clock")]))


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Power attained, and mismatches counted, per GPU; which kernel it was, of the tray."""
    out = [m for part in context.gpus for m in (_fraction(context, evidence, part), _mismatches(context, evidence, part))]
    return [*out, *_kernel(context, evidence)]


def _kernel(context: Context, evidence: Evidence) -> Iterator[Measurement]:
    """`tensor` is whatever computes right here, and is written down; who names the tray's own library means it."""
    load, tray = context.stage.load, context.tray
    if load is None:
        return
    said = {line.part: line.text for line in evidence.log if line.kind == "load" and line.code == "burning"}
    ran: dict[str, list[str]] = {}
    for part in (part for part in context.gpus if part in said):
        ran.setdefault(re.split(", because |; ", said[part])[0], []).append(part)
    value = next(iter(ran), "") if len(ran) == 1 else "; ".join(f"{fold(parts)}: {name}" for name, parts in ran.items())
    own = load.kernel != "cublaslt"
    other = [part for part in context.gpus if not said.get(part, "").startswith("cublaslt_burn ")]
    if own or not other:
        if ran:
            yield Measurement(KERNEL.name, tray, value, "1", f"= {load.kernel}", Result.PASS)
        return
    why = "; ".join(dict.fromkeys(said.get(part, "it did not say which kernel it runs") for part in other))
    do = "install libcublasLt on this tray, or let the suite ask for kernel: tensor"
    whose = "" if len(other) == len(context.gpus) else f"{fold(other)}: "
    missed = KERNEL.unknown(tray, "not_attained", f"{whose}{why}{TO_DO}{do}", "= cublaslt")
    yield replace(missed, value=value or None)


def _fraction(context: Context, evidence: Evidence, part: str) -> Measurement:
    want = context.suite.load_fraction
    if context.stage.locked_mhz is not None:
        return _held(context, evidence, part, context.stage.locked_mhz)
    reached = power_fraction(evidence, part)
    limit = f">= {want:g}"
    if math.isnan(reached):
        silent = "gpu.power_limit" if evidence.window(part, "gpu.power").present else "gpu.power"
        return FRACTION.unknown(part, evidence.why_absent(part, silent), f"{silent} was not read", limit)
    value = round(reached, 6)
    if attained(evidence, part, context.stage, context.suite):
        return Measurement(FRACTION.name, part, value, "1", limit, Result.PASS)
    return Measurement(
        FRACTION.name, part, value, "1", limit, Result.UNKNOWN, "not_attained", not_reached(evidence, part, context.stage)
    )


def _held(context: Context, evidence: Evidence, part: str, mhz: int) -> Measurement:
    share = context.suite.load_fraction
    limit, held = f">= {share:g} and <= {2 - share:g}", clock_held(evidence, part, mhz)
    if attained(evidence, part, context.stage, context.suite):
        return Measurement(HELD.name, part, round(held, 6), "1", limit, Result.PASS)
    value = None if math.isnan(held) else round(held, 6)
    return Measurement(
        HELD.name, part, value, "1", limit, Result.UNKNOWN, "not_attained", not_reached(evidence, part, context.stage)
    )


def _mismatches(context: Context, evidence: Evidence, part: str) -> Measurement:
    wrong = evidence.window(part, "load.wrong")
    if not wrong.present:
        why = "; ".join(["no load process reported its results", *_said(evidence, part)])
        return MISMATCHES.unknown(part, evidence.why_absent(part, "load.wrong"), why)
    one = MISMATCHES.judge(part, wrong.highest(), context.limits)
    odd = _at_odds(evidence)
    if one.result is Result.PASS and part in odd and (len(odd) == 1 or 2 * len(odd) <= len(context.gpus)):
        # where most of several say so, the kernel does not fit the architecture
        why = f"it computed wrong, and not again with another kernel: {odd[part]}"
        return MISMATCHES.unknown(part, "missing", why, one.limit)
    return one


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """A mean over a load that comes and goes is never the limit."""
    comes = stage.load is not None and (stage.load.stagger or stage.load.pulse is not None)
    return "it judges a steady load, and this one comes and goes (stagger, pulse)" if comes else ""


def _at_odds(evidence: Evidence) -> dict[str, str]:
    """GPUs whose own kernel was left because it disagreed with itself in its trial, and the agent's words for it. Of the whole
    run: a load that goes on over stages says so once."""
    burning = (line for line in evidence.log if line.kind == "load" and line.code == "burning")
    return {line.part: line.text for line in burning if "disagreed with itself" in line.text}


CHECK = Check(
    name="gpu-load",
    about="the load reached its power on every GPU, and computed right",
    quantities=(FRACTION, HELD, MISMATCHES, KERNEL),
    judge=judge,
    metrics=("gpu.power", "gpu.power_limit", "load.wrong"),
    explains=("gpu.clock_sm", "gpu.energy", "load.launches"),
    loaded=True,
    fits=fits,
)
