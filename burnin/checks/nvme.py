"""Do the drives read and write without error, and do they feel well themselves?

From each drive's own health log, which needs root. Media errors are judged by their growth; alarms and spare as they stand.
"""

from __future__ import annotations

from burnin.checks import around
from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement
from burnin.telemetry.series import Series

_REPLACE = "replace the drive"
_COUNT = "re-seat the drives of this tray; if it was built with fewer, say so in the step (with: {count: ...})"
COUNT = Quantity("nvme.count", "1", "drives on the bus", advisory=True, action=_COUNT)
MEDIA = Quantity(
    "nvme.media_errors.growth", "1", "reads and writes that the drive could not do, since the run began", action=_REPLACE
)
WARNING = Quantity("nvme.critical_warning", "1", "the drive's own alarms", action=_REPLACE)
SPARE = Quantity("nvme.spare", "1", "share of the spare blocks that is left", action=_REPLACE)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every drive that must be there, and the count."""
    count = around.expected(context, context.profile.topology.nvmes_per_tray)
    out = [around.counted(context, evidence, COUNT, "host.nvmes", count, usual=True)]
    drives = around.parts(context, evidence, "d", "nvme.media_errors", count)
    for part in drives:
        out.append(around.growth(context, evidence, MEDIA, part, "nvme.media_errors"))
        out.append(around.of(context, evidence, WARNING, part, "nvme.critical_warning", Series.highest))
        out.append(around.of(context, evidence, SPARE, part, "nvme.spare", Series.lowest))
    if not drives and count != 0:
        out.append(MEDIA.unknown(context.tray, "lost" if evidence.lost else "missing", "no drive was read on this tray"))
    return out


CHECK = Check(
    name="nvme",
    about="media errors, alarms and spare of every NVMe drive, by its own health log",
    quantities=(COUNT, MEDIA, WARNING, SPARE),
    judge=judge,
    metrics=("host.nvmes", "nvme.media_errors", "nvme.critical_warning", "nvme.spare"),
    explains=("nvme.temp",),
    args=around.Count,
    equipment=("root",),
)
