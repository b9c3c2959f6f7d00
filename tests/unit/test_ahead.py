"""Priority on the controller: taken where it may be, and never somebody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = "import os; print(os.sched_getscheduler(0) == os.SCHED_RR, os.nice(0))"


def ask(call: str, *, own: bool = True) -> list[str]:
    text = f"from burnin.run import ahead\nahead.{call}()\n{LOOK}\nprint(open('/proc/self/autogroup').read().rpartition(' ')[2])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, start_new_session=own)
    return done.stdout.split()


def may(take: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"import os; {take}"], capture_output=True, check=False).returncode == 0


nicer = pytest.mark.skipif(not may("os.nice(-10)"), reason="nice is not ours to lower")
timed = pytest.mark.skipif(
    not may("os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"), reason="this scheduler is not ours to take"
)
grouped = pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups nothing by session")


@nicer
@grouped
def test_a_guard_goes_before_other_sessions_and_lifts_nobody_elses() -> None:
    nice = str(os.nice(0) - 10)
    assert ask("for_long") == ["False", nice, "-10"]
    mine = Path("/proc/self/autogroup").read_text()
    assert ask("for_long", own=False)[:2] == ["False", nice]
    assert Path("/proc/self/autogroup").read_text() == mine


@timed
@grouped
def test_a_command_of_a_moment_goes_by_the_clock() -> None:
    assert ask("for_a_moment") == ["True", str(os.nice(0)), "0"]


def test_without_the_right_nothing_changes() -> None:
    text = f"import os\nif os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n{{}}\n{LOOK}"
    from burnin.run import ahead

    for call in (ahead.for_long, ahead.for_a_moment):
        source = f"import sys; sys.path.insert(0, {os.path.dirname(ahead.__file__)!r}); import ahead"
        words = text.format("ahead." + call.__name__ + "()")
        done = subprocess.run([sys.executable, "-c", f"{source}\n{words}"], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["False", str(os.nice(0))], done.stderr
