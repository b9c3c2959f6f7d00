"""The host around the GPUs: who it is, and what its kernel says.

HOST_PROC, HOST_SYS and HOST_DEV name other roots, as container-borne agents do.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

_DMI = {
    "serial": "product_serial",
    "vendor": "sys_vendor",
    "product": "product_name",
    "board_serial": "board_serial",
    "bios": "bios_version",
}
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2})(?:\.\d)?\): (\d+)(?:, |$)(.*)")
_UNKNOWN = re.compile(r"pid='?<unknown>'?, |name=<unknown>, ")
_TEXT_MAX = 400


class Roots(NamedTuple):
    """Where /proc, /sys and /dev are."""

    proc: str
    sys: str
    dev: str


def roots(environ: Mapping[str, str]) -> Roots:
    """The three roots, from the environment."""
    return Roots(environ.get("HOST_PROC", "/proc"), environ.get("HOST_SYS", "/sys"), environ.get("HOST_DEV", "/dev"))


def _line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip() or None
    except OSError:
        return None


def boot_id(at: Roots) -> str:
    """The kernel's id of this boot; a constant where /proc does not say (then a reboot shows as a new holder only)."""
    return _line(os.path.join(at.proc, "sys/kernel/random/boot_id")) or "unknown"


def identity(at: Roots) -> dict[str, Any]:
    """Who this host is. DMI serials need root; what cannot be read is null."""
    kernel = os.uname()
    dmi = {name: _line(os.path.join(at.sys, "class/dmi/id", file)) for name, file in _DMI.items()}
    return {
        **dmi,
        "host": kernel.nodename,
        "kernel": kernel.release,
        "machine": kernel.machine,
        "python": ".".join(map(str, sys.version_info[:3])),
        "uid": os.getuid(),
        "cpus": os.cpu_count(),
    }


class Xid(NamedTuple):
    """One XID line of the kernel log: `bdf` as `0008:06:00` in lower case, without the function."""

    bdf: str
    code: int
    text: str


def parse_xid(line: str) -> Xid | None:
    """An XID in a kernel log line of any origin (kmsg, dmesg, journal), or None."""
    found = _XID.search(line)
    return Xid(found[1].lower(), int(found[2]), _UNKNOWN.sub("", found[3]).strip()[:_TEXT_MAX]) if found else None


def same_device(bdf: str, nvml_bdf: str | None) -> bool:
    """True when the kernel's `0008:06:00` and NVML's `00000008:06:00.0` are one device: only leading zeros differ."""
    if nvml_bdf is None:
        return False
    ours, theirs = bdf.split(":"), nvml_bdf.lower().split(".")[0].split(":")
    return int(ours[0], 16) == int(theirs[0], 16) and ours[1:] == theirs[1:]


class KernelLog:
    """New lines of the kernel log since it was opened. `reason` says why there are none to be had."""

    def __init__(self, at: Roots) -> None:
        self.reason: str | None = None
        self._rest = b""
        try:
            self._fd: int | None = os.open(os.path.join(at.dev, "kmsg"), os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self._fd = None
            self.reason = "no_permission" if error.errno in (errno.EPERM, errno.EACCES) else "missing"

    def poll(self, most: int = 1000) -> list[str]:
        """Lines that came since the last call, at most `most`. EPIPE (overrun) is a line of its own: records were lost."""
        out: list[str] = []
        while self._fd is not None and len(out) < most:
            try:
                data = os.read(self._fd, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    out.append("burnin: the kernel log overran and lines were lost")
                    continue
                if error.errno != errno.EAGAIN:
                    self.reason, self._fd = "lost", None
                break
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b" "):
                    continue  # a record's dictionary, not its text
                out.append(line.decode("utf-8", "replace").split(";", 1)[-1])
        return out
