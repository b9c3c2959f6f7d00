"""How close did each GPU come to its own temperature limit?

Judged by T.Limit, NVML's margin to the maximum operating temperature: the absolute limit differs from unit to unit
(86 to 88 Cel seen on one SKU), the margin does not.
"""

from __future__ import annotations

from burnin.checks.base import Check, Context, Evidence, Quantity, of_window
from burnin.events import Measurement
from burnin.telemetry.series import Series

MARGIN = Quantity(
    "gpu.tlimit.load",
    "Cel",
    "lowest T.Limit margin under load",
    action="check coolant and cold plate of this GPU, then run again",
)
HBM = Quantity(
    "hbm.temp.load",
    "Cel",
    "highest memory temperature under load",
    action="check the cold plate over the memory of this GPU, then run again",
)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Lowest margin and hottest memory of the whole stage, per GPU: what overheats is cut before it has settled."""
    return [
        *of_window(context, evidence, MARGIN, "gpu.tlimit", Series.lowest, whole=True),
        *of_window(context, evidence, HBM, "hbm.temp", Series.highest, whole=True),
    ]


CHECK = Check(
    name="thermal-margin",
    about="T.Limit margin and memory temperature of every GPU under load",
    quantities=(MARGIN, HBM),
    judge=judge,
    metrics=("gpu.tlimit", "hbm.temp"),
    loaded=True,
)
