"""The clock of the day where it is wrong: what module `time` says on such a tray. datetime looks for itself, and is as ever."""

from __future__ import annotations

import mmap
import time
from typing import Any


def replace_clock(path: str) -> None:
    """Add the nanoseconds that stand in this file, whenever they change, to every time of day that is asked for."""
    with open(path, "rb") as file:
        word = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("q")
    real_ns, real_clock_ns = time.time_ns, time.clock_gettime_ns
    real_strftime = time.strftime

    def clock_gettime_ns(clock: int) -> int:
        return real_clock_ns(clock) + (word[0] if clock == time.CLOCK_REALTIME else 0)

    def from_now(real: Any) -> Any:
        return lambda seconds=None: real(time.time() if seconds is None else seconds)

    def strftime(text: str, when: Any = None) -> str:
        return real_strftime(text, time.localtime() if when is None else when)

    new = {
        "time_ns": lambda: real_ns() + word[0],
        "time": lambda: (real_ns() + word[0]) / 1e9,
        "clock_gettime_ns": clock_gettime_ns,
        "clock_gettime": lambda clock: clock_gettime_ns(clock) / 1e9,
        "strftime": strftime,
        **{name: from_now(getattr(time, name)) for name in ("gmtime", "localtime", "ctime")},
    }
    for name, function in new.items():
        setattr(time, name, function)
