"""Did the power really swing, on every GPU, edge by edge, and did anything trip over it?

A pulse that was not reached proves nothing: a swing below its limit, a missed edge, a clock that is not known well enough are
UNKNOWN `not_attained`. Power brakes and thermal slowdown of the hardware, and XIDs, are what pulses are there to provoke.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from burnin.checks import xid
from burnin.checks.base import Check, Context, Evidence, Quantity, of_window
from burnin.checks.throttling import HW_BRAKE, HW_THERMAL
from burnin.events import LogLine, Measurement, Result
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage
from burnin.telemetry.series import Series

SWING = Quantity("pulse.swing", "1", "swing of power, from its lowest to its highest tenth of readings / enforced limit")
MISSED = Quantity("pulse.missed", "1", "pulses that did not begin, or only with a tenth of them gone")
SYNC = Quantity("pulse.sync", "ms", "how far edges may be from their moment: bound of the tray's clock, and the latest edge")
LEAST = 20
"""Readings, of which the lowest and the highest two are left out."""


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Swing and missed edges per GPU, synchronisation per tray, and what the hardware did about it."""
    out = [m for part in context.gpus for m in (_swing(context, evidence, part), _missed(context, evidence, part))]
    out.append(_sync(context, evidence))
    out += of_window(context, evidence, HW_BRAKE, "throttle.hw_brake", Series.growth, whole=True)
    out += of_window(context, evidence, HW_THERMAL, "throttle.hw_thermal", Series.growth, whole=True)
    return [*out, *_xids(context, evidence)]


def power(evidence: Evidence, part: str) -> Series:
    """Readings of power as often as the stage asked for them, else those of every stage."""
    quick = evidence.window(part, "transient.power")
    return quick if quick.present else evidence.window(part, "gpu.power")


def swing(power: Series, limit_w: float) -> float:
    """(highest tenth - lowest tenth) / limit; NaN for too few readings."""
    known = power.known()
    if known.size < LEAST or not limit_w > 0:
        return math.nan
    low, high = np.percentile(known, (10, 90))
    return float(high - low) / limit_w


def _attained(one: Measurement, said: str) -> Measurement:
    """What was not reached is not bad, it is not known."""
    if one.result is not Result.FAIL:
        return one
    return replace(one, result=Result.UNKNOWN, reason="not_attained", why=said)


def _said(evidence: Evidence, part: str) -> str:
    tray = part.partition(".")[0]
    lines = [*evidence.logged(part, "cut", "load", "ramp"), *evidence.logged(tray, "load"), *evidence.logged("rack", "ramp")]
    return "; ".join(dict.fromkeys(line.text for line in lines if line.text and line.code not in ("up", "down")))


def _swing(context: Context, evidence: Evidence, part: str) -> Measurement:
    value = swing(power(evidence, part), evidence.window(part, "gpu.power_limit").mean())
    if math.isnan(value):
        unread = {"gpu.power": not power(evidence, part).present}
        unread["gpu.power_limit"] = not evidence.window(part, "gpu.power_limit").present
        silent = next((metric for metric, so in unread.items() if so), "")
        reason = evidence.why_absent(part, silent) if silent else "not_attained"
        why = f"{silent} was not read" if silent else f"fewer than {LEAST} readings of its power in {context.stage.stage}"
        return SWING.unknown(part, reason, why)
    one = SWING.judge(part, round(value, 6), context.limits)
    return _attained(one, "; ".join(filter(None, [f"its power swung by {value:.3g} of the limit", _said(evidence, part)])))


def _missed(context: Context, evidence: Evidence, part: str) -> Measurement:
    """Edges of the whole stage; pulses that were never begun are missed too."""
    edges, missed = (evidence.whole(part, metric) for metric in ("load.edges", "load.edges_missed"))
    pulse = context.stage.load.pulse if context.stage.load is not None else None
    if pulse is None:
        return MISSED.unknown(part, "missing", "this stage has no pulses")
    if not missed.present or not edges.present:
        why = _said(evidence, part) or "no load process counted its edges"
        return MISSED.unknown(part, evidence.why_absent(part, "load.edges_missed"), why)
    window = evidence.window(part, "load.edges")
    begin, end = evidence.stretch.judged if evidence.stretch is not None else (0.0, 0.0)
    due = int((end - begin) / pulse.period) - 2  # what is begun or told at the window's ends
    done = window.highest() - window.lowest() if window.present else 0.0
    absent = max(due - done, 0.0)
    one = MISSED.judge(part, missed.highest() + absent, context.limits)
    return _attained(one, f"{missed.highest():g} edges late, {absent:g} of {due} absent in {end - begin:g} s")


def _sync(context: Context, evidence: Evidence) -> Measurement:
    said = [line for line in evidence.logged(context.tray, "pulse") if line.code == "sync_ms"]
    late = [evidence.whole(part, "load.edge_late").highest() for part in context.gpus]
    if not said:
        return SYNC.unknown(context.tray, "not_attained", "this tray was not pulsed: its clock was not compared")
    if any(math.isnan(one) for one in late):
        return SYNC.unknown(context.tray, "missing", "not every GPU of it told how late its edges were")
    bound = max(_number(line) for line in said)
    if math.isnan(bound):
        return SYNC.unknown(context.tray, "missing", "what was written of its clock cannot be read")
    one = SYNC.judge(context.tray, round(bound + max(late), 3), context.limits)
    return replace(_attained(one, ""), why=f"its clock is known to {bound:.3g} ms, its latest edge came {max(late):.3g} ms late")


def _number(line: LogLine) -> float:
    try:
        return float(line.text)
    except ValueError:
        return math.nan


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Only pulses can be missed."""
    return "" if stage.load is not None and stage.load.pulse is not None else "it judges pulses, and this stage has none"


def _xids(context: Context, evidence: Evidence) -> Iterator[Measurement]:
    """Those of this stage only; whether they were watched at all is the check xid's."""
    begin = evidence.stretch.t0_s if evidence.stretch is not None else 0.0
    stage = replace(evidence, log=[line for line in evidence.log if line.t_s >= begin])
    yield from (one for one in xid.judge(context, stage) if one.name == xid.XID.name and one.result is not Result.PASS)


CHECK = Check(
    name="pulse",
    about="power pulses: every GPU's power swung, edge by edge, on all trays together, and nothing tripped",
    quantities=(SWING, MISSED, SYNC, HW_BRAKE, HW_THERMAL, xid.XID),
    judge=judge,
    metrics=(
        "gpu.power",
        "gpu.power_limit",
        "load.edges",
        "load.edges_missed",
        "load.edge_late",
        "throttle.hw_brake",
        "throttle.hw_thermal",
    ),
    explains=("transient.power",),
    equipment=("pulses in its stage",),
    fits=fits,
)
