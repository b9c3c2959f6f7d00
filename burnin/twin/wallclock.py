"""A compute tray's clock of the day where it is to be wrong: a file of one int64, nanoseconds, that its programs add.

`python3` on the tray adds it to time.time(), clock_gettime(CLOCK_REALTIME) and the like, `date` to what it prints. The monotonic
clock, and with it the kernel log and every time since boot, is as ever.
"""

from __future__ import annotations

import mmap
import os
import shlex
import shutil
from pathlib import Path

from burnin.twin.faults import Plant
from burnin.twin.rackstate import FloatRow

KIND, FILE = "clock_skew", "clock"
_DATE = """#!/bin/sh
# What asks for another time than now is answered as ever.
for word in "$@"; do
    case "$word" in -d*|-s*|-r*|-f*|--date*|--set*|--reference*|--file*) exec {date} "$@" ;; esac
done
now=$(( $({date} +%s%N) + $(od -An -t d8 {file}) ))
exec {date} -d "@$((now / 1000000000)).$(printf %09d $((now % 1000000000)))" "$@"
"""


class WallClock:
    """Off from the beginning, or from so long after the rack's first load began."""

    def __init__(self, at: Path, plant: Plant, head: FloatRow | None) -> None:
        """`at`: the tray's folder, with its `bin`; `head`: the rack's."""
        self._plant, self._head, self._off = plant, head, False
        path = at / FILE
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._word = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
        script = at / "bin/date"
        date = shlex.quote(shutil.which("date", path=os.defpath) or "/bin/date")
        script.write_text(_DATE.format(date=date, file=shlex.quote(str(path))))
        script.chmod(0o755)

    def step(self, now_s: float) -> None:
        """Be off when the time has come; `now_s`: CLOCK_MONOTONIC."""
        if not self._off and begun(self._plant, self._head, now_s):
            self._off, self._word[0] = True, round(self._plant.severity * 1e9)


def begun(plant: Plant, head: FloatRow | None, now_s: float) -> bool:
    """True once a fault's time has come: at once, or so long after the rack's first load began."""
    if plant.start_s is None:
        return True
    load_s = head["load_s"] if head is not None else 0.0
    return load_s > 0 and now_s >= load_s + plant.start_s
