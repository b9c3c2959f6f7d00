"""What stands around the GPUs of a compute tray, in motion: temperatures, counters, and the faults planted in them.

Time is passed in. CPU temperature follows the activity of the tray's GPUs; everything else is at rest unless a fault is
planted in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from random import Random

from burnin.rack.parts import tray_of
from burnin.twin import hosttree
from burnin.twin.emulate.traffic import Counters
from burnin.twin.faults import Plant
from burnin.twin.host import KernelLog
from burnin.twin.model import Model

SOON_S = 4.0
"""When the first error shows after the tray's first load began."""
FLAP_EVERY_S, _FLAP_FOR_S = 3.0, 1.0
_BREATH_NS = 1_000_000_000
_TAU_S = 20.0
_MOST_LINES = 8
_FEEDING = 0.03
"""Share of the cores that feeding fully loaded GPUs takes."""
_OWN_RISE = 0.5
"""What busy cores add to a CPU's rise, of what the GPUs beside it bring (assumption)."""


class Around:
    """One tray's surroundings: call `step` about ten times a second."""

    def __init__(
        self,
        name: str,
        root: Path,
        model: Model,
        plants: Sequence[Plant],
        log: KernelLog,
        seed: int,
        shared: Path | None = None,
        absent: Collection[str] = (),
    ) -> None:
        """`shared`: a tree that `furnish` made, for a tray in which nothing is planted here. `absent`: devices that did not
        come up (g2, n0, d1)."""
        self._model, self._log, machine = model, log, model.machine
        self._chance = Random(f"{model.profile}/{seed}/{name}/around")
        self._tree = hosttree.Tree(root)
        mine = [plant for plant in plants if tray_of(plant.part) == name and plant.kind in KINDS_HERE]
        self._at = hosttree.Devices({}, {})
        if shared is not None and not mine:
            hosttree.borrow(root, shared, model)
        else:
            self._at = hosttree.furnish(self._tree, model)
            for part in absent:
                hosttree.unplug(root, self._at, part)
            mine = [plant for plant in mine if plant.part.partition(".")[2] not in absent]
        hosttree.zones(self._tree, machine.sockets)
        self._over = Counters(str(root.parent / "nics"))
        self._went: dict[int, tuple[int, int]] = {}
        self._up = dict.fromkeys(self._at.downed, True)
        self._idle_c = [machine.cpu_idle_c + self._chance.gauss(0, 2) for _ in range(machine.sockets)]
        self.cpu_c = list(self._idle_c)
        self._hot_k = [sum(p.severity for p in mine if p.part == f"{name}.c{i}") for i in range(machine.sockets)]
        self._breathed_ns = 0
        self._cores = machine.sockets * hosttree.CPUS_SHOWN
        self._took_s = self._ran_s = self._busy_s = 0.0
        self._told = {plant: 0 for plant in mine if plant.kind in _DUE}
        for plant in mine:
            if plant.kind == "pcie_downtrain":
                self._downtrain(plant.part.rpartition(".")[2], plant.severity)

    def _downtrain(self, part: str, lost: float) -> None:
        machine = self._model.machine
        slot = machine.nics[int(part[1:])] if part.startswith("n") else machine.nvmes[int(part[1:])]
        self._tree.write(f"{self._at.pci[part]}/current_link_width", str(hosttree.fewer(slot.lanes, lost)))

    def step(self, now_ns: int, loaded_ns: int | None, activity: float, took_s: float = 0.0) -> None:
        """Bring it to `now_ns`. `loaded_ns`: when the first load began; `activity`: mean of the tray's GPUs, 0 to 1; `took_s`: of
        its cores, what processes took since the tray runs."""
        if now_ns - self._breathed_ns >= _BREATH_NS:
            dt_s = min((now_ns - self._breathed_ns) / 1e9, 60.0)
            self._breathe(dt_s, activity, self._compute(dt_s, activity, took_s))
            self._breathed_ns = now_ns
        if loaded_ns is not None:
            for plant in self._told:
                self._happen(plant, (now_ns - loaded_ns) / 1e9 - SOON_S)

    def _compute(self, dt_s: float, activity: float, took_s: float) -> float:
        """Share of the cores that was busy in these seconds; /proc/stat follows."""
        share = min((took_s - self._took_s) / (self._cores * dt_s) + _FEEDING * activity, 1.0)
        self._took_s, self._ran_s, self._busy_s = took_s, self._ran_s + dt_s, self._busy_s + share * dt_s
        self._tree.write("proc/stat", hosttree.stat(self._cores, self._ran_s, self._busy_s))
        return share

    def _breathe(self, dt_s: float, activity: float, busy: float) -> None:
        machine = self._model.machine
        rise = (machine.cpu_load_c - machine.cpu_idle_c) * (activity + _OWN_RISE * busy)
        for i, idle in enumerate(self._idle_c):
            self.cpu_c[i] += (idle + rise + self._hot_k[i] * activity - self.cpu_c[i]) * dt_s / (dt_s + _TAU_S)
            shown = round(self.cpu_c[i] + self._chance.gauss(0, 0.3))
            self._tree.write(f"sys/class/thermal/thermal_zone{i}/temp", f"{shown * 1000}")
        for i, card in enumerate(machine.nics):
            if (went := self._over.of(i)) != self._went.get(i, (0, 0)):
                self._went[i] = went
                sent, received, unit = hosttree.moved(card)
                self._tree.write(sent, str(went[0] // unit))
                self._tree.write(received, str(went[1] // unit))
        self._tree.write("proc/loadavg", f"{0.2 + 4 * activity + self._cores * busy:.2f} 0.30 0.25 1/1842 4711")
        self._tree.write("proc/meminfo", hosttree.meminfo(machine.memory_kb, machine.memory_kb - 20_000_000))

    # ---- what goes wrong

    def _happen(self, plant: Plant, since_s: float) -> None:
        """Bring a fault to where it should be so long after its first error is due; nothing counted is taken back."""
        due, told = _DUE[plant.kind](plant.severity, since_s) if since_s >= 0 else 0, self._told[plant]
        part = plant.part.rpartition(".")[2]
        if due > told:
            self._told[plant] = due
            if plant.kind == "cpu_edac":
                self._edac(due)
            elif plant.kind == "nvme_media":
                self._medium(int(part[1:]), due)
            elif plant.kind == "pcie_replay":
                self._tree.write(f"{self._at.pci[part]}/aer_dev_correctable", hosttree.aer(due, "correctable"))
            elif plant.kind == "nic_flap":
                self._tree.write(self._at.downed[part], str(due))
                self._port(part, up=False)
            elif plant.kind == "nic_down":
                self._tree.write(self._at.downed[part], "1")
                self._port(part, up=False)
        elif plant.kind == "nic_flap" and due and since_s % FLAP_EVERY_S >= _FLAP_FOR_S:
            self._port(part, up=True)

    def _edac(self, count: int) -> None:
        self._tree.write("sys/devices/system/edac/mc/mc0/ue_count", str(count))
        for _ in range(min(count, _MOST_LINES)):
            self._log.add("{1}[Hardware Error]: event severity: recoverable", level=3)
            self._log.add("EDAC MC0: 1 UE multi-bit ECC on unknown memory (node:0 page:0x2a5c91 offset:0x4c0 grain:1)", level=0)

    def _medium(self, drive: int, count: int) -> None:
        self._tree.write(f"dev/nvme{drive}", hosttree.health(hosttree.NVME_C + drive, count))
        for i in range(min(count, _MOST_LINES)):
            lba = 1_465_149_160 + 8 * i
            self._log.add(f"nvme{drive}n1: Read(0x2) @ LBA {lba}, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR")
            self._log.add(f"critical medium error, dev nvme{drive}n1, sector {lba} op 0x0:(READ) flags 0x0 phys_seg 1", level=3)

    def _port(self, part: str, up: bool) -> None:
        if self._up[part] == up:
            return
        self._up[part] = up
        card, folder = self._model.machine.nics[int(part[1:])], self._at.downed[part].rsplit("/", 1)[0]
        if card.fabric == "infiniband":
            self._tree.write(f"{folder.rsplit('/', 1)[0]}/state", "4: ACTIVE" if up else "1: DOWN")
            self._tree.write(f"{folder.rsplit('/', 1)[0]}/phys_state", "5: LinkUp" if up else "2: Polling")
        else:
            self._tree.write(f"{folder}/operstate", "up" if up else "down")
        self._log.add(f"mlx5_core {card.bdf} {card.device}: Link {'up' if up else 'down'}", level=6)


_DUE: dict[str, Callable[[float, float], int]] = {
    "cpu_edac": lambda severity, since_s: int(severity),
    "nic_flap": lambda severity, since_s: min(int(severity), 1 + int(since_s / FLAP_EVERY_S)),
    "nic_down": lambda severity, since_s: int(since_s + SOON_S >= severity),
    "nvme_media": lambda severity, since_s: int(severity),
    "pcie_replay": lambda severity, since_s: int(severity * since_s),
}
"""Kind -> how many errors there are so long after the first was due."""
KINDS_HERE = (*_DUE, "pcie_downtrain", "cpu_hot", "boot_intermittent")
"""Faults that happen here."""
