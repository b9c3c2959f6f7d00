"""The file system of a tray's home where it is to fill up: one of its own, in a mount namespace of the tray's process.

Real errors of a real file system (ENOSPC), no rights needed where the kernel lets users have namespaces. Linux only. What lies
on it goes with the tray's process: a tray that boots again finds its home as it was made.
"""

from __future__ import annotations

import os
from pathlib import Path

from burnin.twin.faults import Plant
from burnin.twin.mounts import BIND, mount, own_mounts
from burnin.twin.rackstate import FloatRow
from burnin.twin.wallclock import begun

KIND = "tray_disk_full"
_SIZE_KB = 16 * 1024


class Disk:
    """A small file system that holds the home. Fills up at once, or so long after the rack's first load began."""

    def __init__(self, at: Path, plant: Plant, head: FloatRow | None) -> None:
        """Mounts: for a process of one thread. `at`: the tray's folder; `head`: the rack's. Raises OSError where nobody may."""
        self._plant, self._head, self._full = plant, head, False
        self._mount = at / "disk"
        self._mount.mkdir(parents=True, exist_ok=True)
        own_mounts()
        mount("tmpfs", self._mount, "tmpfs", 0, f"size={_SIZE_KB}k,mode=0700")
        (self._mount / "home").mkdir(mode=0o700)
        (at / "home").mkdir(mode=0o700, exist_ok=True)
        mount(str(self._mount / "home"), at / "home", None, BIND, None)

    def step(self, now_s: float) -> None:
        """Fill it when its time has come; `now_s`: CLOCK_MONOTONIC."""
        if not self._full and begun(self._plant, self._head, now_s):
            self._full = True
            at = os.statvfs(self._mount)
            more = at.f_bavail * at.f_frsize - int(self._plant.severity) * 1024
            if more > 0:
                fd = os.open(self._mount / "logs", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, more)
                finally:
                    os.close(fd)
