"""What a rack's parts share: one memory-mapped file of doubles. Trays write their heat, the loop writes their coolant.

    head      magic, layout, how many of each, when the loop last moved
    cdu       one row of CDU_FIELDS: the loop as it truly is, and what its sensors say
    trays     one row of TRAY_FIELDS each, compute trays then switch trays
    psus      one row of PSU_FIELDS each, shelf by shelf

Every word has one writer and is read and written whole, so no lock is needed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

_MAGIC, _LAYOUT = 20260101.0, 1.0
_HEAD = ("magic", "layout", "compute", "switches", "psus", "beat_s", "load_s")
CDU_FIELDS = (
    "flow_lpm", "supply_c", "return_c", "dp_kpa", "pressure_kpa", "filter_kpa", "level", "heat_w", "speed",
    "says_flow_lpm", "says_supply_c", "says_return_c", "says_dp_kpa", "says_pressure_kpa", "says_filter_kpa",
    "pump0_rpm", "pump1_rpm",
)  # fmt: skip
"""True values first (`level` 0 to 1, `speed` of the pumps as a share of their highest), then what the sensors say."""
TRAY_FIELDS = (
    "beat_s", "power_w", "liquid_w", "activity", "cpu0_c", "cpu1_c", "absent", "hung",
    "flow_lpm", "supply_c", "return_c", "air_w", "leak0_v", "leak1_v", "leak2_v", "leak3_v", "leak4_v", "leak5_v", "leak6_v",
    "leak7_v", "off", "wish", "boots", "start_s",
)  # fmt: skip
"""Written by the tray: when it last did (CLOCK_MONOTONIC, s), its electrical power, the heat that its liquid carries, mean
activity of its GPUs, its CPUs, a bit for each GPU that did not come up, 1 once nothing
runs there any more. Written by the loop: the coolant at its port, heat to
the air, its leak detectors. By its BMC: 1 in `off` where it must go dark, 1 in `wish` where it shall start. By who starts it: how
often it did since the first time, and when (CLOCK_MONOTONIC, s)."""
PSU_FIELDS = ("out_w", "in_w", "lost", "off")
"""`off`: written by the shelf's Redfish service, 1 where it was told to switch it off."""


class FloatRow:
    """One part's words, by name."""

    __slots__ = ("_at", "_base", "_words")

    def __init__(self, words: memoryview[float], base: int, at: dict[str, int]) -> None:
        self._words, self._base, self._at = words, base, at

    def __getitem__(self, name: str) -> float:
        return self._words[self._base + self._at[name]]

    def __setitem__(self, name: str, value: float) -> None:
        self._words[self._base + self._at[name]] = value


class RackState:
    """The mapped file. `create` makes one (all zero), `open` joins it. Raises OSError, or ValueError for another layout."""

    def __init__(self, fd: int, compute: int, switches: int, psus: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, _size(compute, switches, psus))
        self._words = memoryview(self._map).cast("d")
        at = 0

        def rows(count: int, fields: Sequence[str]) -> list[FloatRow]:
            nonlocal at
            names = {name: i for i, name in enumerate(fields)}
            made = [FloatRow(self._words, at + i * len(fields), names) for i in range(count)]
            at += count * len(fields)
            return made

        self.head = rows(1, _HEAD)[0]
        self.cdu = rows(1, CDU_FIELDS)[0]
        both = rows(compute + switches, TRAY_FIELDS)
        self.trays, self.switches = both[:compute], both[compute:]
        self.psus = rows(psus, PSU_FIELDS)

    @classmethod
    def create(cls, path: str, compute: int, switches: int, psus: int) -> RackState:
        """A fresh file."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _size(compute, switches, psus))
        state = cls(fd, compute, switches, psus)
        head = state.head
        head["layout"], head["compute"], head["switches"], head["psus"] = _LAYOUT, compute, switches, psus
        head["magic"] = _MAGIC  # last: who sees it, sees all
        return state

    @classmethod
    def open(cls, path: str) -> RackState:
        """An existing file."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = memoryview(os.pread(fd, 40, 0)).cast("d") if os.fstat(fd).st_size >= 40 else memoryview(b"")
        if len(head) < 5 or (head[0], head[1]) != (_MAGIC, _LAYOUT):
            os.close(fd)
            raise ValueError(f"{path} is not a twin rack's state of layout {_LAYOUT:g}")
        return cls(fd, int(head[2]), int(head[3]), int(head[4]))

    def tray(self, part: str) -> FloatRow:
        """The row of t07 or s3."""
        return (self.trays if part.startswith("t") else self.switches)[int(part[1:])]

    def close(self) -> None:
        """Give up the mapping."""
        self._words.release()
        self._map.close()
        os.close(self._fd)


def _size(compute: int, switches: int, psus: int) -> int:
    words = len(_HEAD) + len(CDU_FIELDS) + (compute + switches) * len(TRAY_FIELDS) + psus * len(PSU_FIELDS)
    return 8 * words
