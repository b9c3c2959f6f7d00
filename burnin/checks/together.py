"""Was everything loaded at once that the stage asked for, beside the GPUs' kernels?

A load that was not reached proves nothing: copies that did not flow, or slower than they must, are UNKNOWN `not_attained`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.series import Series

NVLINK = Quantity("together.nvlink", "GB/s", "copies from this GPU to the next of its tray while its kernel ran")


def rate(copied: Series) -> float:
    """GB/s (10^9) between the first and the last reading of the bytes copied; NaN for fewer than two."""
    known = ~(copied.v != copied.v)
    t = copied.t_s[known]
    return copied.growth() / float(t[-1] - t[0]) / 1e9 if t.size > 1 and t[-1] > t[0] else math.nan


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Per GPU."""
    return [_copies(context, evidence, part) for part in context.gpus]


def _copies(context: Context, evidence: Evidence, part: str) -> Measurement:
    if context.stage.load is None or not context.stage.load.nvlink:
        return NVLINK.unknown(part, "missing", "this stage asks for no copies beside its load")
    value = rate(evidence.window(part, "load.copied"))
    said = "; ".join(dict.fromkeys(line.text for line in evidence.logged(part, "cut", "load") if line.text))
    if math.isnan(value):
        return NVLINK.unknown(part, evidence.why_absent(part, "load.copied"), said or "no load process counted what it copied")
    one = NVLINK.judge(part, round(value, 3), context.limits)
    if one.result is not Result.FAIL:
        return one
    why = "; ".join(filter(None, [f"{value:.3g} GB/s were copied beside the load", said]))
    return replace(one, result=Result.UNKNOWN, reason="not_attained", why=why)


CHECK = Check(
    name="together",
    about="what a stage loads beside the kernels of its GPUs was loaded too: copies over NVLink",
    quantities=(NVLINK,),
    judge=judge,
    metrics=("load.copied",),
    loaded=True,
)
