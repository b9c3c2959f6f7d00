"""The processes of a rack's trays: started together, started again when their BMC says so, ended together."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import asyncssh

from burnin.twin import tray
from burnin.twin.addresses import bound
from burnin.twin.rackfile import Place
from burnin.twin.rackstate import RackState
from burnin.twin.tray import Endpoint

START_S = 30.0
"""How long the trays may take until all of them listen."""
END_S = 8.0


class Trays:
    """The trays of one rack. `pids`: every child of this process that must end with it; trays are added to it."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        clients: asyncssh.SSHAuthorizedKeys,
        mask: set[signal.Signals | int],
        pids: set[int],
        rack: RackState | None,
    ) -> None:
        self._endpoints, self._clients, self._mask, self._pids, self._rack = endpoints, clients, mask, pids, rack
        self.where: dict[str, Place] = {}
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Fork one process per compute tray and one for all switch trays; returns when all of them listen."""
        groups = [[e] for e in self._endpoints if e.silicon is not None]
        groups += [[e for e in self._endpoints if e.silicon is None]]
        waiting: list[int] = []
        gc.freeze()  # what is loaded is shared by all: the collector shall not touch, and so copy, its pages
        try:
            for group in filter(None, groups):
                ready_r, ready_w = os.pipe()
                waiting.append(ready_r)
                self._fork(group, ready_w)
            await_all(waiting)
        finally:
            gc.unfreeze()
            for fd in waiting:
                os.close(fd)

    def look(self, now_s: float) -> float | None:
        """Start the trays that are down and shall run, once their time has come. Seconds until one is due; None if none is."""
        if self._rack is None:
            return None
        for endpoint in self._endpoints:
            if endpoint.silicon is None:
                continue
            row = self._rack.tray(endpoint.part)
            if row["hung"] and row["off"]:  # what is frozen must wake to die
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.where[endpoint.part].pid, signal.SIGCONT)
            if row["wish"] and self.where[endpoint.part].pid not in self._pids:
                due = self._due.setdefault(endpoint.part, now_s + endpoint.silicon.model.machine.boot_s)
                if now_s >= due and self._start_again(endpoint):
                    del self._due[endpoint.part]
            else:
                self._due.pop(endpoint.part, None)
        return max(0.05, min(self._due.values()) - now_s) if self._due else None

    def _start_again(self, endpoint: Endpoint) -> bool:
        """Boot a tray: only its home stays as it was. False where its address is not free yet."""
        assert self._rack is not None
        place = self.where[endpoint.part]
        try:
            sock = bound(place.host, place.port)
        except OSError:
            return False
        for entry in endpoint.at.iterdir():
            if entry.name != "home":
                _remove(entry)
        row = self._rack.tray(endpoint.part)
        row["boots"] += 1
        row["off"] = row["wish"] = row["hung"] = 0.0
        row["start_s"] = time.monotonic()
        nobody = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)  # nobody waits for this one
        self._fork([replace(endpoint, sock=sock)], nobody)
        return True

    def _fork(self, group: Sequence[Endpoint], ready_fd: int) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            own = {endpoint.part for endpoint in group}
            for other in self._endpoints:
                if other.part not in own:
                    other.sock.close()
            tray.run(group, self._clients, ready_fd, parent)
        os.close(ready_fd)
        self._pids.add(pid)
        for endpoint in group:
            host, port = endpoint.sock.getsockname()
            self.where[endpoint.part] = Place(pid, host, port, endpoint.at)
            endpoint.sock.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def await_all(waiting: Sequence[int]) -> None:
    """Wait for one byte on each. Raises RuntimeError when one does not come."""
    end = time.monotonic() + START_S
    for fd in waiting:
        readable, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        if not readable or not os.read(fd, 1):
            raise RuntimeError("a part of the twin did not start; its reason is on standard error")


def reap(pids: set[int]) -> None:
    """Take note of children that ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            pids.discard(ended)


def end(pids: set[int]) -> None:
    """SIGTERM to the children, which end what they run; then whatever is left below us gets SIGKILL."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)  # a frozen tray must hear it too
    until = time.monotonic() + END_S
    while pids and time.monotonic() < until:
        reap(pids)
        time.sleep(0.01)
    tray.kill_descendants()
