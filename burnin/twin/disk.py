"""The file system of a tray's home where it is to fill up: one of its own, in a mount namespace of the tray's process.

Real errors of a real file system (ENOSPC), no rights needed where the kernel lets users have namespaces. Linux only. What lies
on it goes with the tray's process: a tray that boots again finds its home as it was made.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from burnin.twin.faults import Plant
from burnin.twin.rackstate import FloatRow
from burnin.twin.wallclock import begun

KIND = "tray_disk_full"
_SIZE_KB = 16 * 1024
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000


class Disk:
    """A small file system that holds the home. Fills up at once, or so long after the rack's first load began."""

    def __init__(self, at: Path, plant: Plant, head: FloatRow | None) -> None:
        """Mounts: for a process of one thread. `at`: the tray's folder; `head`: the rack's. Raises OSError where nobody may."""
        self._plant, self._head, self._full = plant, head, False
        self._mount = at / "disk"
        self._mount.mkdir(parents=True, exist_ok=True)
        _own_mounts()
        _mount("tmpfs", self._mount, "tmpfs", 0, f"size={_SIZE_KB}k,mode=0700")
        (self._mount / "home").mkdir(mode=0o700)
        (at / "home").mkdir(mode=0o700, exist_ok=True)
        _mount(str(self._mount / "home"), at / "home", None, _BIND, None)

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


def can_mount() -> bool:
    """True where a process of ours may have a file system of its own: tried, in one that ends at once."""
    pid = os.fork()
    if pid == 0:
        try:
            _own_mounts()
            _mount("tmpfs", Path("/"), "tmpfs", 0, "size=4k")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _own_mounts() -> None:
    """Mounts of this process are seen by it and its children from now on. Without root's rights: as this user in a namespace."""
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEWNS)
    except PermissionError:
        _call("unshare", _NEWUSER | _NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
    _mount("none", Path("/"), None, _REC | _PRIVATE, None)


def _mount(what: str, at: Path, kind: str | None, flags: int, options: str | None) -> None:
    words = (what.encode(), os.fsencode(at), kind.encode() if kind else None)
    _call("mount", *words, ctypes.c_ulong(flags), options.encode() if options else None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
