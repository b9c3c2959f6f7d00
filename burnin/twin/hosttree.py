"""The trees of /sys, /proc and /dev of one compute tray: CPUs, network cards, drives and the PCIe links of all.

Shaped as Linux shapes them: devices stand below their root ports, classes are links to them. Values that move are written
in place, so that a reader that keeps a file open sees them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from burnin.twin.model import Model, Nic, Slot

_SPEED = {
    1: "2.5 GT/s PCIe",
    2: "5.0 GT/s PCIe",
    3: "8.0 GT/s PCIe",
    4: "16.0 GT/s PCIe",
    5: "32.0 GT/s PCIe",
    6: "64.0 GT/s PCIe",
}
_CORRECTED = ("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF")
_UNCORRECTED = (
    "Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO", "CmpltAbrt", "UnxCmplt", "RxOF", "MalfTLP", "ECRC", "UnsupReq",
    "ACSViol", "UncorrIntErr", "BlockedTLP", "AtomicOpBlocked", "TLPBlockedErr", "PoisonTLPBlocked",
)  # fmt: skip
_GPU, _ETHERNET, _INFINIBAND, _NVME = "0x030200", "0x020000", "0x020700", "0x010802"
NIC_C, NVME_C = 55.0, 40.0
CPUS_SHOWN = 4
"""Cores per socket that the tree shows: enough to tell the sockets, and few enough that a thread on each of a rack is borne."""
_TICKS_S = 100
_MEMINFO = "MemTotal:       {total} kB\nMemFree:        {free} kB\nMemAvailable:   {free} kB\nBuffers:            4096 kB"


class Tree:
    """Files below one tray's root."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def write(self, path: str, text: str | bytes) -> None:
        """Set a file's whole content, in place; its folder is made when it is not there."""
        full = f"{self._root}/{path}"
        try:
            fd = os.open(full, os.O_WRONLY | os.O_CREAT, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(full))
            fd = os.open(full, os.O_WRONLY | os.O_CREAT, 0o644)
        data = text if isinstance(text, bytes) else f"{text}\n".encode()
        try:
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def many(self, folder: str, **files: object) -> None:
        """Several files of one folder; `__` in a name is a slash."""
        for name, value in files.items():
            self.write(f"{folder}/{name.replace('__', '/')}", str(value))

    def link(self, path: str, to: str) -> None:
        """A symbolic link, relative as in sysfs; `to` is below the root as well."""
        folder = os.path.dirname(f"{self._root}/{path}")
        os.makedirs(folder, exist_ok=True)
        os.symlink(os.path.relpath(f"{self._root}/{to}", folder), f"{self._root}/{path}")


def aer(counts: int, kind: str) -> str:
    """One aer_dev_* file. Corrected errors are those of repeated packets: bad ones seen, and time-outs waited for."""
    if kind != "correctable":
        return "\n".join([*(f"{name} 0" for name in _UNCORRECTED), f"TOTAL_ERR_{kind.upper()} {counts}"])
    split = {"BadDLLP": counts // 2, "Timeout": counts - counts // 2}
    return "\n".join([*(f"{name} {split.get(name, 0)}" for name in _CORRECTED), f"TOTAL_ERR_COR {counts}"])


def fewer(lanes: int, lost: float) -> int:
    """The widest link that does without this share of the lanes: 16, 8, 4, 2, 1."""
    return next((width for width in (8, 4, 2, 1) if width < lanes and width <= lanes * (1 - lost)), 1)


def health(temp_c: float, media_errors: int) -> bytes:
    """A drive's health log (NVM Express, log page 02h): a drive with all its spare and 1 % of its life used."""
    page = bytearray(512)
    page[1:3] = round(temp_c + 273.15).to_bytes(2, "little")
    page[3:6] = bytes((100, 10, 1))
    page[160:176] = media_errors.to_bytes(16, "little")
    return bytes(page)


def meminfo(total_kb: int, free_kb: int) -> str:
    """/proc/meminfo, as far as it matters."""
    return _MEMINFO.format(total=total_kb, free=free_kb)


def stat(cores: int, since_s: float, busy_s: float) -> str:
    """/proc/stat of so many cores, all alike: what they did since they ran, in ticks. What niced threads took is `nice`."""
    busy, whole = round(busy_s * _TICKS_S), round(since_s * _TICKS_S)
    lines = [f"cpu  0 {busy * cores} 0 {(whole - busy) * cores} 0 0 0 0 0 0"]
    lines += [f"cpu{i} 0 {busy} 0 {whole - busy} 0 0 0 0 0 0" for i in range(cores)]
    return "\n".join([*lines, "intr 0", "ctxt 4711", "btime 1767225600", "processes 4711"])


def device(tree: Tree, number: int, slot: Slot, kind: str, functions: int = 1) -> str:
    """A card below a root port of its own: the folder of its first function. `number` tells the ports of a domain apart."""
    domain = slot.bdf.split(":")[0]
    port = f"sys/devices/pci{domain}:00/{domain}:00:{number % 32:02x}.{number // 32}"
    link = {"max_link_speed": _SPEED[slot.gen], "max_link_width": slot.lanes}
    tree.many(port, **link)
    for function in range(functions):
        bdf = f"{slot.bdf[:-1]}{function}"
        at = f"{port}/{bdf}"
        errors = {f"aer_dev_{k}": aer(0, k) for k in ("correctable", "nonfatal", "fatal")}
        tree.many(at, **{"class": kind}, **link, current_link_speed=_SPEED[slot.gen], current_link_width=slot.lanes, **errors)
        tree.link(f"sys/bus/pci/devices/{bdf}", at)
    return f"{port}/{slot.bdf}"


def hwmon(tree: Tree, at: str, number: int, name: str, label: str, temp_c: float) -> None:
    """A sensor chip of the device at `at`."""
    folder = f"{at}/hwmon/hwmon{number}"
    tree.many(folder, name=name, temp1_label=label, temp1_input=round(temp_c) * 1000)
    tree.link(f"{folder}/device", at)
    tree.link(f"sys/class/hwmon/hwmon{number}", folder)


def interface(card: Nic) -> str:
    """Name of a card's network interface; of InfiniBand the one for IP over it."""
    return f"ib_{card.device}" if card.fabric == "infiniband" else f"{card.device}f0"


def moved(card: Nic) -> tuple[str, str, int]:
    """Where a card's first port counts what it sent and received, and in how many bytes."""
    if card.fabric == "infiniband":
        counters = f"sys/class/infiniband/{card.device}/ports/1/counters"
        return f"{counters}/port_xmit_data", f"{counters}/port_rcv_data", 4
    statistics = f"sys/class/net/{interface(card)}/statistics"
    return f"{statistics}/tx_bytes", f"{statistics}/rx_bytes", 1


def nic(tree: Tree, at: str, card: Nic) -> str:
    """Ports of a network card below its functions; returns the file that counts how often its first link went down."""
    if card.fabric == "infiniband":
        folder = f"{at}/infiniband/{card.device}"
        rate = f"{card.gbps} Gb/sec (4X {'XDR' if card.gbps >= 800 else 'NDR'})"
        tree.many(f"{folder}/ports/1", link_layer="InfiniBand", state="4: ACTIVE", phys_state="5: LinkUp", rate=rate)
        tree.many(f"{folder}/ports/1/counters", symbol_error=0, link_downed=0, port_xmit_data=0, port_rcv_data=0)
        tree.write(f"{folder}/ports/1/hw_counters/local_ack_timeout_err", "0")
        tree.link(f"{folder}/device", at)
        tree.link(f"sys/class/infiniband/{card.device}", folder)
        over = f"{at}/net/{interface(card)}"
        tree.many(over, type=32, operstate="up", speed=card.gbps * 1000)
        tree.link(f"{over}/device", at)
        tree.link(f"sys/class/net/{interface(card)}", over)
        return f"{folder}/ports/1/counters/link_downed"
    for port in range(card.ports):
        function = f"{at[:-1]}{port}"
        folder = f"{function}/net/{card.device}f{port}"
        tree.many(folder, type=1, operstate="up", speed=card.gbps * 1000, carrier_down_count=0, phys_port_name=f"p{port}")
        tree.many(f"{folder}/statistics", rx_crc_errors=0, tx_bytes=0, rx_bytes=0)
        tree.link(f"{folder}/device", function)
        tree.link(f"sys/class/net/{card.device}f{port}", folder)
    return f"{at}/net/{card.device}f0/carrier_down_count"


def nvme(tree: Tree, at: str, number: int) -> str:
    """A drive's class folder; returns the path of its hwmon's device."""
    folder = f"{at}/nvme/nvme{number}"
    tree.many(folder, state="live", transport="pcie")
    tree.link(f"{folder}/device", at)
    tree.link(f"sys/class/nvme/nvme{number}", folder)
    return folder


@dataclass(frozen=True, slots=True)
class Devices:
    """Where the parts of one tray stand in its tree: PCIe folder of g0, n0, d0 ...; file that counts a card's link downs."""

    pci: dict[str, str]
    downed: dict[str, str]


def furnish(tree: Tree, model: Model) -> Devices:
    """Everything that does not move by itself: GPUs' links, network cards, drives, CPU topology, memory controller."""
    machine = model.machine
    out = Devices(_gpus(tree, model) | _cards(tree, machine.nics, machine.nvmes), {})
    for i, card in enumerate(machine.nics):
        out.downed[f"n{i}"] = nic(tree, out.pci[f"n{i}"], card)
        hwmon(tree, out.pci[f"n{i}"], i, "mlx5", "asic", NIC_C + i)
    for i in range(len(machine.nvmes)):
        hwmon(tree, nvme(tree, out.pci[f"d{i}"], i), len(machine.nics) + i, "nvme", "Composite", NVME_C + i)
        tree.write(f"dev/nvme{i}", health(NVME_C + i, 0))
    for i in range(machine.sockets * CPUS_SHOWN):
        tree.write(f"sys/devices/system/cpu/cpu{i}/topology/physical_package_id", str(i // CPUS_SHOWN))
    tree.many("sys/devices/system/edac/mc/mc0", mc_name="ghes_edac", ce_count=0, ue_count=0)
    tree.write("sys/class/net/lo/operstate", "unknown")
    return out


def unplug(root: Path, devices: Devices, part: str) -> None:
    """Take a device (g2, n0, d1) out of a furnished tree, and every link to it."""
    shutil.rmtree(root / devices.pci[part])
    if part.startswith("d"):
        (root / f"dev/nvme{part[1:]}").unlink(missing_ok=True)
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path.is_symlink() and not path.exists():
                path.unlink()


def borrow(root: Path, shared: Path, model: Model) -> None:
    """Stand on a furnished tree that trays without a fault here share: a rack of private ones would take seconds to write."""
    for name in ("sys/bus", "sys/devices", *(f"sys/class/{kind}" for kind in ("nvme", "hwmon"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(shared / name, root / name)
    for kind in ("net", "infiniband"):
        _part_own(root, shared, f"sys/class/{kind}", {file for card in model.machine.nics for file in moved(card)[:2]})
    for i in range(len(model.machine.nvmes)):
        os.symlink(shared / f"dev/nvme{i}", root / f"dev/nvme{i}")


def _part_own(root: Path, shared: Path, name: str, own: Collection[str]) -> None:
    """A folder of a shared tree, of which some files are a tray's own: all else is linked."""
    (root / name).mkdir(parents=True)
    for entry in os.scandir(shared / name) if (shared / name).exists() else ():
        path = f"{name}/{entry.name}"
        if path in own:
            (root / path).write_text("0\n")
        elif any(file.startswith(f"{path}/") for file in own):
            _part_own(root, shared, path, own)
        else:
            os.symlink(shared / path, root / path)


def zones(tree: Tree, count: int) -> None:
    """Thermal zones of the sockets, with their trip point."""
    for i in range(count):
        tree.many(
            f"sys/class/thermal/thermal_zone{i}", type="acpitz", temp=0, trip_point_0_type="critical", trip_point_0_temp=105_000
        )


def _gpus(tree: Tree, model: Model) -> dict[str, str]:
    """PCIe folders of the GPUs, by g0 ..."""
    out = {}
    for index, (bdf, module) in enumerate(zip(model.gpu.bdf, model.gpu.module_id, strict=True)):
        short = f"{int(bdf.split(':')[0], 16):04x}:{bdf.split(':', 1)[1].lower()}"
        slot = Slot(bdf=short, gen=model.gpu.pcie_gen, lanes=16)
        out[f"g{module - 1}"] = device(tree, index, slot, _GPU)
    return out


def _cards(tree: Tree, nics: Sequence[Nic], nvmes: Sequence[Slot]) -> dict[str, str]:
    """PCIe folders of network cards and drives, by n0 ... and d0 ..."""
    out = {}
    for i, card in enumerate(nics):
        kind = _INFINIBAND if card.fabric == "infiniband" else _ETHERNET
        out[f"n{i}"] = device(tree, 40 + i, card, kind, 1 if card.fabric == "infiniband" else card.ports)
    for i, slot in enumerate(nvmes):
        out[f"d{i}"] = device(tree, 60 + i, slot, _NVME)
    return out
