"""Who keeps a run, and is that process still there? A number alone does not say: it may be another process's by now."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnin.errors import NotReady
from burnin.store import RUNNING, Run, Session, Store

_PROC = Path("/proc")
_HIDDEN = ""
_ETHERNET = "1\n"


@dataclass(frozen=True, slots=True)
class Process:
    """One process for all time: host, its boot (namespace, machine), its number, and when it began (kernel ticks since boot)."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Process:
        """This process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def of(cls, session: Session) -> Process:
        """The one that kept this session."""
        return cls(session.host, session.boot, session.pid, session.pid_started)

    def gone(self) -> bool | None:
        """True when it is provably not there any more, False when it is. None when that cannot be known from here: of another
        machine (also one of the same name), of other process numbers (a container), of a process that this user cannot see."""
        here, there = _boot().split("."), self.boot.split(".")
        if self.host != socket.gethostname() or not self.started or len(here) < 3 or len(there) < 2:
            return None
        if there[0] != here[0]:
            return True if here[2] and there[2:] == here[2:] else None  # this machine was started again since
        if there[1] != here[1]:
            return None
        now = _started(self.pid)
        return None if now == _HIDDEN else now != self.started

    def as_who(self) -> dict[str, Any]:
        """As trays are told: see `burnin.agent.claims`."""
        where = {"host": self.host, "boot": self.boot, "pid": self.pid, "started": self.started}
        return {"id": f"{self.pid}@{self.host}/{self.boot}/{self.started}", **where}

    @classmethod
    def who_is_gone(cls, who: Mapping[str, Any]) -> bool | None:
        """The same question about one that a tray named."""
        try:
            return cls(str(who["host"]), str(who["boot"]), int(who["pid"]), str(who["started"])).gone()
        except (KeyError, ValueError, TypeError):
            return None


def _boot() -> str:
    """BOOT.NAMESPACE.MACHINE: what a process's number counts in."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}.{_machine()}"
    except OSError:
        return ""


def _machine() -> str:
    """Which machine this is, across boots: by the addresses of its network cards, since images are cloned with host name and
    machine-id. Empty where it has none that can be seen (a container)."""
    cards = [path.parent for path in Path("/sys/class/net").glob("*/device")]
    known = sorted((card / "address").read_text() for card in cards if (card / "type").read_text() == _ETHERNET)
    return hashlib.sha256("".join(known).encode()).hexdigest()[:16] if known else ""


def _started(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its remains; _HIDDEN when there is one that the
    kernel shows to others only (hidepid)."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _HIDDEN if _there(pid) else None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def keeper(store: Store, run: Run) -> Process | None:
    """Who keeps this run, as far as the database knows; None when it has ended."""
    sessions = store.sessions(run.id)
    if run.status != RUNNING or not sessions or sessions[-1].t1_s is not None:
        return None
    return Process.of(sessions[-1])


def refuse_second(store: Store, rack: str, run: str | None = None) -> None:
    """Raises NotReady when a controller that is alive here keeps a run of this rack (`run`: also that one, to go on with it).

    A controller elsewhere cannot be seen from here: the trays know it, and refuse (burnin.agent.claims).
    """
    for one in store.runs():
        if one.rack == rack and (who := keeper(store, one)) is not None and who.gone() is False:
            what = "it still lives" if one.id == run else f"one controller at a time: wait for it, or `burnin stop {one.id}`"
            began = store.sessions(one.id)[-1].started
            raise NotReady(f"rack {rack} is held by run {one.id} (process {who.pid} on {who.host}, since {began}): {what}")


def unfinished(store: Store, rack: str, suite: str) -> Run | None:
    """The rack's latest run of this suite, when it was stopped or its controller is gone."""
    run = store.last_run(rack, suite)
    if run is None or run.status == "COMPLETE":
        return None
    who = keeper(store, run)
    return run if who is None or who.gone() else None
