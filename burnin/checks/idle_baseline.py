"""Is the rack at rest before anything is measured: little power, no work, nobody else on the GPUs?

Everything that is judged by growth or by slope starts from this baseline, so a GPU that is busy here spoils what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnin.checks.base import Check, Context, Evidence, Quantity, of_window
from burnin.events import Measurement
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage
from burnin.telemetry.series import Series

POWER = Quantity(
    "gpu.idle_power",
    "W",
    "mean power of the GPU at idle",
    action="find what runs on this GPU at idle; if nothing does, run again and watch its leakage",
)
UTIL = Quantity(
    "gpu.idle_util", "1", "mean utilisation at idle, 0 to 1", action="find the process on this GPU and end it, then run again"
)
LIMIT = Quantity(
    "gpu.power_limit",
    "W",
    "enforced power limit: a lowered one hides weak cooling",
    action="set the power limit back to its default, then run again",
)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Means over the idle window, and the enforced power limit."""
    return [
        *of_window(context, evidence, POWER, "gpu.power", Series.mean),
        *of_window(context, evidence, UTIL, "gpu.util", Series.mean),
        *of_window(context, evidence, LIMIT, "gpu.power_limit", Series.lowest),
    ]


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Under load every GPU would fail it."""
    return "it judges GPUs at rest, and this stage loads them" if stage.load is not None else ""


CHECK = Check(
    name="idle-baseline",
    about="power, utilisation and power limit of every GPU at rest",
    quantities=(POWER, UTIL, LIMIT),
    judge=judge,
    metrics=("gpu.power", "gpu.util", "gpu.power_limit"),
    fits=fits,
)
