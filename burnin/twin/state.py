"""What a tray's processes share: one memory-mapped file of int64 words, written by the physics and read by the emulations.

    head     magic, layout, number of GPUs, when the physics last wrote, how many events there were
    GPUs     one row of FIELDS each, in module order (g0, g1 ...)
    links    LINKS rows of LINK_FIELDS for each GPU
    slots    demand: one row per (process, GPU) that has a CUDA context, written by that process
    events   a ring of NVML events

Every word has one writer at a time and is read and written whole, so no lock is needed but to take a slot.
Standard library only, Python 3.9: it travels into every process of the tray.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_MAGIC, _LAYOUT = 0x6E69776E72756201, 7
_HEAD = ("magic", "layout", "gpus", "beat_ns", "events")
FIELDS = (
    "temp_c", "margin_c", "hbm_c", "power_mw", "power_avg_mw", "hbm_power_mw", "module_power_mw", "energy_mj",
    "clock_mhz", "clock_busy_mhz", "reasons", "util_pct", "sw_power_ns", "sw_thermal_ns", "hw_thermal_ns",
    "ecc_ce_volatile", "ecc_ce_aggregate", "ecc_ue_volatile", "ecc_ue_aggregate", "remap_unc", "remap_pending", "recovery_action",
    "lost", "hung", "poisoned",
    "locked_mhz", "sdc_ppm", "sdc_launches", "bw_lost_ppm", "slow_ppm", "nccl_fault", "deaf_to", "pcie_replays", "stuck",
    "bad_cells", "reset_ppm", "resets", "unhealthy",
)  # fmt: skip
"""Of one GPU. `poisoned` counts contained memory errors: contexts made before the last one are dead.
`locked_mhz`: the SM clock is held there, 0 when it is not.
`sdc_ppm`: probability of a wrong tile per launch, `sdc_launches` how often that was asked; `bw_lost_ppm`: of copies.
`slow_ppm`: share of its speed that a GPU lacks among others. `nccl_fault`: what it does in a collective, 1 hangs, 2 dies, 3 sums
wrong. `deaf_to`: 1 + the number in the rack (tray x GPUs + position) of the one GPU from which nothing arrives here. `bad_cells`
of its memory are stuck; `reset_ppm`: probability that it is away after a reset, of which there were `resets`; `unhealthy` in the
NVLink fabric."""
LINK_FIELDS = (
    "down", "tx_bytes", "rx_bytes", "rx_errors", "integrity_errors", "recovery_ok", "recovery_failed", "effective_errors",
    "effective_ber", "symbol_errors", "symbol_ber", "raw_ber",
)  # fmt: skip
"""Of one NVLink. Error rates stand as parts of 10^-18; 0 is none."""
LINKS = 18
_SLOT = ("pid", "born", "gpu", "mem_bytes", "busy_ns", "end_ns", "activity_ppm", "cpu_ns")
"""Of one process on one GPU. `cpu_ns`: what its threads took of the tray's cores."""
_EVENT = ("gpu", "type", "data")
SLOTS, RING = 64, 256
_AT = {name: i for i, name in enumerate(FIELDS)}
_LINK_AT = {name: i for i, name in enumerate(LINK_FIELDS)}
_SLOT_AT = {name: i for i, name in enumerate(_SLOT)}


class Event(NamedTuple):
    """One NVML event: GPU position, event type bit, event data (the XID)."""

    gpu: int
    type: int
    data: int


class Row:
    """One GPU's or one slot's words, by name."""

    __slots__ = ("_at", "_base", "_words")

    def __init__(self, words: memoryview, base: int, at: dict[str, int]) -> None:
        self._words, self._base, self._at = words, base, at

    def __getitem__(self, name: str) -> int:
        return self._words[self._base + self._at[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._words[self._base + self._at[name]] = value

    def fill(self, first: str, values: Sequence[int]) -> None:
        """Set the words from this name on."""
        at = self._base + self._at[first]
        self._words[at : at + len(values)] = memoryview(array("q", values))


class State:
    """The mapped file. `create` makes one (all zero), `open` joins it. Raises OSError, or ValueError for another layout."""

    def __init__(self, fd: int, gpus: int) -> None:
        self._fd = fd
        self._gpus_at = len(_HEAD)
        links_at = self._gpus_at + gpus * len(FIELDS)
        self._slots_at = links_at + gpus * LINKS * len(LINK_FIELDS)
        self._events_at = self._slots_at + SLOTS * len(_SLOT)
        self._map = mmap.mmap(fd, _size(gpus))
        self._words = memoryview(self._map).cast("q")
        self.gpus = tuple(Row(self._words, self._gpus_at + i * len(FIELDS), _AT) for i in range(gpus))
        self.links = tuple(
            tuple(Row(self._words, links_at + (i * LINKS + link) * len(LINK_FIELDS), _LINK_AT) for link in range(LINKS))
            for i in range(gpus)
        )
        self._slots = tuple(Row(self._words, self._slots_at + i * len(_SLOT), _SLOT_AT) for i in range(SLOTS))

    @classmethod
    def create(cls, path: str, gpus: int) -> State:
        """A new file, for its physics."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _size(gpus))
        state = cls(fd, gpus)
        state._words[1], state._words[2] = _LAYOUT, gpus
        state._words[0] = _MAGIC  # last: who sees it, sees all
        return state

    @classmethod
    def open(cls, path: str) -> State:
        """An existing file, for an emulation."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = memoryview(os.pread(fd, 24, 0)).cast("q")
        if len(head) < 3 or head[0] != _MAGIC or head[1] != _LAYOUT:
            os.close(fd)
            raise ValueError(f"{path} is not a twin's state of layout {_LAYOUT}")
        return cls(fd, int(head[2]))

    def close(self) -> None:
        """Give up the mapping."""
        self._words.release()
        self._map.close()
        os.close(self._fd)

    # ---- the physics' clock, and events

    @property
    def beat_ns(self) -> int:
        """CLOCK_MONOTONIC of the last step of the physics."""
        return int(self._words[3])

    @beat_ns.setter
    def beat_ns(self, now_ns: int) -> None:
        self._words[3] = now_ns

    @property
    def events(self) -> int:
        """How many events there were since the file was made."""
        return int(self._words[4])

    def add_event(self, event: Event) -> None:
        """Append to the ring."""
        count = self.events
        at = self._events_at + count % RING * len(_EVENT)
        self._words[at], self._words[at + 1], self._words[at + 2] = event
        self._words[4] = count + 1

    def event(self, number: int) -> Event:
        """Event `number`, 0 <= number < events; the ring keeps the last RING of them."""
        at = self._events_at + number % RING * len(_EVENT)
        return Event(int(self._words[at]), int(self._words[at + 1]), int(self._words[at + 2]))

    # ---- demand

    def take_slot(self, pid: int, gpu: int) -> Row:
        """A slot for this process on this GPU. Raises OSError when all are taken."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            for slot in self._slots:
                if not slot["pid"]:
                    for name in _SLOT[2:]:
                        slot[name] = 0
                    slot["born"], slot["gpu"] = born(pid), gpu
                    slot["pid"] = pid
                    return slot
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        raise OSError("all slots of this tray are taken")

    def slots(self) -> Iterator[tuple[int, Row]]:
        """Slots in use, with their number."""
        pids = self._words[self._slots_at : self._events_at : len(_SLOT)].tolist()
        return ((i, self._slots[i]) for i, pid in enumerate(pids) if pid)

    def sweep(self) -> None:
        """Free the slots of processes that are no more."""
        for _, slot in self.slots():
            if born(slot["pid"]) != slot["born"]:
                slot["pid"] = 0


def _size(gpus: int) -> int:
    return 8 * (len(_HEAD) + gpus * (len(FIELDS) + LINKS * len(LINK_FIELDS)) + SLOTS * len(_SLOT) + RING * len(_EVENT))


def born(pid: int) -> int:
    """Start time of a living process in clock ticks since boot; 0 when it is dead or a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else 0


def starved(pid: int) -> bool:
    """Whether a process could run: where it does not, this machine has no core for it, which its tray would have had."""
    return _stat(pid)[:1] == ["R"]


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process from its state on; empty where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
