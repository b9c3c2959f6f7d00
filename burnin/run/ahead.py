"""Before everything else on a busy controller, where we may: otherwise nothing changes.

Nice alone does not do it where the kernel groups processes by session (autogroup, on in most distributions' kernels): there it
counts among those of one session only.
"""

from __future__ import annotations

import contextlib
import os

NICE = -10
AUTOGROUP = "/proc/self/autogroup"


def for_long() -> None:
    """This process, which leads a session of its own."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    if os.getsid(0) == os.getpid():  # else it would be the session of whoever started us
        with contextlib.suppress(OSError), open(AUTOGROUP, "w") as group:
            group.write(str(NICE))


def for_a_moment() -> None:
    """This process, which ends in a few seconds: by the clock, not by its share."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):
            os.nice(NICE)
