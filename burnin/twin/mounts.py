"""File systems of a process's own: a mount namespace, and mounts in it. Linux only.

Root may; others where the kernel lets users have namespaces, then as themselves in one of users.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000


def can_mount(kind: str = "tmpfs") -> bool:
    """True where a process of ours may have a file system of this kind: tried, in one that ends at once."""
    if kind == "fuse" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    pid = os.fork()
    if pid == 0:
        try:
            own_mounts()
            mount("tmpfs", Path("/"), "tmpfs", 0, "size=4k")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def own_mounts() -> None:
    """Mounts of this process, which must have one thread, are seen by it and its children alone from now on. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEWNS)
    except PermissionError:
        _call("unshare", _NEWUSER | _NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
    mount("none", Path("/"), None, _REC | _PRIVATE, None)


def mount(what: str, at: Path, kind: str | None, flags: int, options: str | None) -> None:
    """mount(2). Raises OSError."""
    words = (what.encode(), os.fsencode(at), kind.encode() if kind else None)
    _call("mount", *words, ctypes.c_ulong(flags), options.encode() if options else None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
