"""Did anything slow a GPU down that should not have?

The driver's counters of clock event reasons are judged by their growth: a glance at the reasons would miss what happens
between glances, and their value at the start is the past of another system (non-zero on healthy idle GB200 trays).
The power cap is not judged: at full load it is where a GPU belongs.
"""

from __future__ import annotations

from burnin.checks.base import Check, Context, Evidence, Quantity, of_window
from burnin.events import Measurement
from burnin.telemetry.series import Series

SW_THERMAL = Quantity(
    "throttle.sw_thermal.fraction",
    "1",
    "share of the loaded time in software thermal slowdown",
    action="check coolant and cold plate of this GPU, then run again",
)
HW_THERMAL = Quantity(
    "throttle.hw_thermal.growth",
    "s",
    "time in hardware thermal slowdown",
    action="do not load it again before coolant and cold plate were checked",
)
HW_BRAKE = Quantity(
    "throttle.hw_brake.growth",
    "s",
    "time in hardware power brake: shelf, PSU or busbar",
    action="check power shelf, busbar contact and power brake cable of this tray",
)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Growth per GPU: of the hardware's counters in the whole stage, of software slowdown in the judged window."""
    return [
        *of_window(context, evidence, SW_THERMAL, "throttle.sw_thermal", Series.rate),
        *of_window(context, evidence, HW_THERMAL, "throttle.hw_thermal", Series.growth, whole=True),
        *of_window(context, evidence, HW_BRAKE, "throttle.hw_brake", Series.growth, whole=True),
    ]


CHECK = Check(
    name="throttling",
    about="growth of the thermal and power-brake slowdown counters under load",
    quantities=(SW_THERMAL, HW_THERMAL, HW_BRAKE),
    judge=judge,
    metrics=("throttle.sw_thermal", "throttle.hw_thermal", "throttle.hw_brake"),
    loaded=True,
)
