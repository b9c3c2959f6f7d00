"""All load off, at once: by the run's guard, which has a channel to every tray; where no guard answers, straight over SSH.

Idempotent: what is off stays off, and no agent of this run loads again until a person starts a run. The guard is told by the
standard library alone: what else there is to import takes longer than all that follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from burnin.errors import BurninError, NotReady
from burnin.run import beside

ANSWER_S = 0.5
"""A guard that has not said that it ordered load off by then is not waited for: SSH is tried instead."""
PATIENCE_S = 0.25
"""Until then nothing is imported for SSH: it would take the cores from the agents that are being told."""
CONFIRM_S = 6.0


def stop_now(run: str, db: Path, by: str) -> list[str]:
    """What was done, a line each. Raises InputError for a run that is not there, NotReady when load may still be on somewhere."""
    begin = time.monotonic() - _age_s()
    asked = _ask_guard(run, db, by, begin)
    if isinstance(asked, list):
        return asked
    from burnin.run.straight import halt

    try:
        return halt(run, db, by, begin)
    except BurninError as error:
        if not asked:
            raise
        took = "the run's guard took the order, and has not said what became of it"
        raise NotReady(f"{took}; straight over SSH: {error}") from None


def _age_s() -> float:
    """Since this process was started: by then the interpreter has taken its part."""
    try:
        with open("/proc/self/stat", "rb") as file:
            began = int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError):
        return 0.0


def _ask_guard(run: str, db: Path, by: str, begin: float) -> list[str] | bool:
    """What the guard did; else whether it took the order, at least: False where no guard of this run answers in time."""
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with guard:
        guard.settimeout(ANSWER_S)
        try:
            with beside.reachable(beside.guard(db)) as short:
                guard.connect(short)
            if not beside.trusted(_whose(guard), db):
                return False
        except (OSError, NotReady):
            return False
        try:
            with guard.makefile("rb") as said:
                return _order(guard, said, run, by, begin)
        except (OSError, ValueError, LookupError, TypeError):  # not in time, or in riddles
            return False


def _whose(guard: socket.socket) -> int:
    """The user who listens there."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", guard.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def _order(guard: socket.socket, said: IO[bytes], run: str, by: str, begin: float) -> list[str] | bool:
    if not select.select([guard], [], [], PATIENCE_S)[0]:
        threading.Thread(target=_import, daemon=True).start()  # what SSH needs is made ready meanwhile
    going = str(_heard(said).get("run", ""))
    if not going or (run != "last" and not going.startswith(run)):
        return False
    guard.sendall(json.dumps({"do": "emergency", "run": going, "by": by}).encode() + b"\n")
    if not _heard(said):
        return False
    ordered_s = time.monotonic() - begin
    end = time.monotonic() + CONFIRM_S
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # not in time, or in riddles
        while (left_s := end - time.monotonic()) > 0:
            guard.settimeout(left_s)
            if not (line := _heard(said)):
                break
            outcome = line.get("outcome")
            if outcome is not None and outcome["name"] == "emergency":
                return _told(going, outcome, ordered_s)
    return True


def _heard(said: IO[bytes]) -> dict[str, Any]:
    """The next line; nothing at the end. Raises ValueError for what is none of ours, OSError when it does not come in time."""
    line = json.loads(said.readline() or b"{}")
    if not isinstance(line, dict):
        raise ValueError(line)
    return line


def _import() -> None:
    import burnin.run.straight  # noqa: F401


def _told(run: str, said: Mapping[str, Any], ordered_s: float) -> list[str]:
    lines = [
        f"run {run}: load was ordered off on every tray {ordered_s:.2f} s after this command began; {said['answered']} answered"
    ]
    if said["last_gone_s"] is not None:
        lines.append(f"the last load process was gone {said['last_gone_s']:.2f} s after the order")
    if said["cold_s"] is not None:
        lines.append(f"every GPU was read at idle power {said['cold_s']:.2f} s after the order")
    trouble = [f"{tray} did not answer: {why}" for tray, why in said["unanswered"].items()]
    if said["still"]:
        trouble.append(f"still loaded: {', '.join(said['still'])}")
    if said["cold_s"] is None:
        trouble.append("not every GPU was read at idle power yet: look at its power")
    if trouble:
        raise NotReady("\n".join([*lines, *trouble]))
    return lines
