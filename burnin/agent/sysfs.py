"""Attributes of /sys and /proc, and which devices stand there.

Files stay open: a pread at 0 makes the kernel ask the device anew. What cannot be read is a reason: `not_supported`
this kernel or device does not offer it, `no_permission`, `missing` it should be there and is not, or says nonsense.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from typing import Union

Reading = Union[float, str]
"""A number, or the reason why there is none."""
Read = Callable[[], float]
"""One value; raises Absent."""
Row = tuple[tuple[str, ...], Callable[[], Sequence[Reading]]]
Card = tuple[str, ...]
"""Bus addresses of the functions of one device, lowest first."""

_BDF = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,9})?", re.ASCII)
_NETWORK, _NVME = 0x02, 0x0108
_NEVER = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY)


class Absent(Exception):
    """There is no value; the text is the reason."""


class File:
    """One attribute, kept open. `scale` turns its number into ours."""

    def __init__(self, *path: str, scale: float = 1.0) -> None:
        self._path, self._scale, self._fd = os.path.join(*path), scale, -1

    def fd(self) -> int:
        """The open file. Raises Absent."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY)
            except OSError as error:
                raise Absent(self._reason(error)) from None
        return self._fd

    def text(self, most: int = 4096) -> str:
        """What it says now, at most so many bytes of it. Raises Absent."""
        fd = self.fd()
        try:
            return os.pread(fd, most, 0).decode("ascii", "replace").strip()
        except OSError as error:
            raise self.failed(error) from None

    def failed(self, error: OSError) -> Absent:
        """After a failed read: the next one opens the file again, as the device may have come back."""
        os.close(self._fd)
        self._fd = -1
        return Absent(self._reason(error))

    def word(self) -> str:
        """The first word of its first line, "" when there is none. Raises Absent."""
        words = self.text(128).split(None, 1)
        return words[0] if words else ""

    def number(self) -> float:
        """The first word as a number. Raises Absent."""
        word = self.word()
        if not _NUMBER.fullmatch(word):
            raise Absent("missing")
        return round(float(word) * self._scale, 6)

    def _reason(self, error: OSError) -> str:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "no_permission"
        unknown = error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(self._path))
        return "not_supported" if unknown or error.errno in _NEVER else "missing"


class Part:
    """A source of the sampler: `name` is what hangs when it does not come back; its metrics are those of `part` ("": the tray).

    `rows` are read one by one, so that what fails costs its own metrics only.
    """

    def __init__(self, name: str, part: str, rows: Sequence[Row]) -> None:
        self.name, self._rows = name, tuple(rows)
        self.columns = tuple((part, metric) for metrics, _ in self._rows for metric in metrics)

    def read(self) -> list[Reading]:
        """One value or reason per column."""
        out: list[Reading] = []
        for metrics, read in self._rows:
            try:
                out += read()
            except Absent as absent:
                out += [str(absent)] * len(metrics)
        return out


def one(metric: str, read: Read) -> Row:
    """A row of a single metric."""
    return (metric,), lambda: (read(),)


def never(reason: str = "not_supported") -> Read:
    """What cannot be read here, whatever is tried."""

    def read() -> float:
        raise Absent(reason)

    return read


def total(reads: Sequence[Read], none: str = "not_supported") -> Read:
    """The sum of readings that must all be there; with nothing to read there is no sum, for reason `none`."""
    return (lambda: sum(read() for read in reads)) if reads else never(none)


def highest(reads: Sequence[Read], none: str = "not_supported") -> Read:
    """The highest of readings that must all be there."""
    return (lambda: max(read() for read in reads)) if reads else never(none)


def listed(*path: str) -> list[str]:
    """Names in a folder, sorted; none when it cannot be read."""
    try:
        return sorted(os.listdir(os.path.join(*path)))
    except OSError:
        return []


def said(*path: str) -> str:
    """What a file says once, "" when it cannot be read: for what tells devices apart, never for a measurement."""
    try:
        with open(os.path.join(*path), encoding="ascii", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""


def bare(bdf: str) -> str:
    """`0008:06:00.1` -> `0008:06:00`, the device without its function."""
    return bdf.rsplit(".", 1)[0]


def numbered(names: Sequence[str]) -> list[str]:
    """hwmon2 before hwmon10."""
    return sorted(names, key=lambda name: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", name)])


class Found:
    """What stands in /sys at this moment: PCI cards by bus address, CPU sockets by package id."""

    def __init__(self, sys: str) -> None:
        self.sys = sys
        functions: dict[str, list[str]] = {}
        kinds: dict[str, int] = {}
        addresses = [bdf for bdf in listed(sys, "bus/pci/devices") if _BDF.fullmatch(bdf)]
        for bdf in sorted(addresses, key=lambda b: (int(b.split(":")[0], 16), b)):
            if os.path.exists(self.device(bdf, "physfn")):
                continue  # a virtual function is no part of its own
            kind = said(self.device(bdf, "class"))
            kinds[bdf] = int(kind, 16) if re.fullmatch(r"0x[0-9a-f]{1,8}", kind) else 0
            functions.setdefault(bare(bdf), []).append(bdf)
        self.cards: list[Card] = [tuple(f) for f in functions.values()]
        self.nics = [card for card in self.cards if any(kinds[bdf] >> 16 == _NETWORK for bdf in card)]
        self.nvmes = [card for card in self.cards if any(kinds[bdf] >> 8 == _NVME for bdf in card)]
        self.packages = self._packages()
        self._homes = {kind: self._homes_of(kind) for kind in ("net", "infiniband", "nvme", "hwmon")}

    def device(self, bdf: str, *path: str) -> str:
        """A file of one PCI function."""
        return os.path.join(self.sys, "bus/pci/devices", bdf, *path)

    def devices(self, kind: str, card: Card) -> list[str]:
        """Folders in /sys/class/`kind` that belong to this card."""
        return [os.path.join(self.sys, "class", kind, name) for name, bdf in self._homes[kind].items() if bdf in card]

    def _homes_of(self, kind: str) -> dict[str, str]:
        """Name -> the last bus address in the path of its device; what hangs on no bus (lo, bonds) is left out."""
        out = {}
        for name in numbered(listed(self.sys, "class", kind)):
            path = os.path.realpath(os.path.join(self.sys, "class", kind, name, "device"))
            on = [word for word in path.split(os.sep) if _BDF.fullmatch(word)]
            if on:
                out[name] = on[-1]
        return out

    def _packages(self) -> list[str]:
        cpus = [name for name in listed(self.sys, "devices/system/cpu") if re.fullmatch(r"cpu\d+", name)]
        ids = {said(self.sys, "devices/system/cpu", cpu, "topology/physical_package_id") for cpu in cpus}
        return sorted((package for package in ids if package.isdigit()), key=int)
