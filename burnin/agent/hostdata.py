"""The rest of a tray as the kernel shows it, with nothing installed: CPUs, network cards, drives, PCIe links, memory.

    c0 ...  sockets by package id          n0 ...  network cards by bus address, all functions of a card together
    d0 ...  NVMe drives by bus address     g0 ...  PCIe of the GPUs, named by the caller      ""  the tray itself

What exists is looked up once, when sampling starts. What cannot be read is a reason (see burnin.agent.sysfs), never 0,
and a counter that can count no further is `missing`: its growth would say nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from burnin.agent import cores, pcie, rasdaemon, smart
from burnin.agent.host import Roots, same_device
from burnin.agent.sysfs import (
    Absent,
    Card,
    File,
    Found,
    Part,
    Read,
    Reading,
    Row,
    bare,
    highest,
    listed,
    never,
    numbered,
    one,
    said,
    total,
)

MOST = 10
"""Parts of a kind that part ids can name; the tray's counts say if there are more."""
_ETHERNET = "1"
_SYMBOL_END, _DOWNED_END = 0xFFFF, 0xFF
"""Where InfiniBand's counters stop: they do not wrap."""
_SOCKET = re.compile(r"socket ?#?(\d+)", re.IGNORECASE)
_NVME = ("nvme.temp", "nvme.media_errors", "nvme.critical_warning", "nvme.spare", "nvme.used")


def sources(at: Roots, gpus: Mapping[str, str]) -> list[Part]:
    """Everything that this tray has, for the slow table. `gpus`: bus address, as NVML writes it -> g0 ..."""
    found = Found(at.sys)
    out = [_tray(found, at)]
    out += [_cpu(found, f"c{i}", package) for i, package in enumerate(found.packages[:MOST])]
    out += [_nic(found, f"n{i}", card) for i, card in enumerate(found.nics[:MOST])]
    out += [_nvme(found, at, f"d{i}", card) for i, card in enumerate(found.nvmes[:MOST])]
    for bdf, name in sorted(gpus.items(), key=lambda item: item[1]):
        out.append(Part(f"{name} PCIe", name, pcie.ends(found, _card_of(found, bdf))))
    return out


def names(at: Roots, gpus: Mapping[str, str]) -> dict[str, str]:
    """What the kernel log calls a device -> part: bus address without function (`0008:06:00`), nvme0, mlx5_0, eth0 ..."""
    found = Found(at.sys)
    out: dict[str, str] = {}
    for letter, cards in (("n", found.nics), ("d", found.nvmes)):
        for i, card in enumerate(cards[:MOST]):
            folders = [folder for kind in ("net", "infiniband", "nvme") for folder in found.devices(kind, card)]
            out.update(dict.fromkeys([bare(card[0]), *map(os.path.basename, folders)], f"{letter}{i}"))
    for bdf, name in gpus.items():
        known = _card_of(found, bdf)
        if known is not None:
            out[bare(known[0])] = name
    return out


def _card_of(found: Found, nvml_bdf: str) -> Card | None:
    return next((card for card in found.cards if same_device(bare(card[0]), nvml_bdf)), None)


def _sensor(folders: Sequence[str], label: str) -> Read:
    """The sensor with this label in the first of these hwmon folders, or its first one."""
    for folder in folders[:1]:
        inputs = numbered([name for name in listed(folder) if re.fullmatch(r"temp\d+_input", name)])
        named = [name for name in inputs if said(folder, name.replace("input", "label")) == label]
        for name in (named or inputs)[:1]:
            return File(folder, name, scale=1e-3).number
    return never()


# ---------------------------------------------------------------- network cards


def _nic(found: Found, name: str, card: Card) -> Part:
    """Ports are Ethernet interfaces and InfiniBand ports; a card without any has no driver."""
    eth = [folder for folder in found.devices("net", card) if _own_port(folder)]
    ports = [os.path.join(d, "ports", p) for d in found.devices("infiniband", card) for p in listed(d, "ports")]
    fabric = [port for port in ports if said(port, "link_layer") == "InfiniBand"]
    e_up, f_up = [_up(folder, "operstate", "up") for folder in eth], [_up(port, "state", "4:") for port in fabric]
    speeds = [_speed(up, File(folder, "speed", scale=1e-3 / 8)) for up, folder in zip(e_up, eth)]
    rates = [_speed(up, File(port, "rate", scale=1 / 8)) for up, port in zip(f_up, fabric)]
    downs = [File(folder, "carrier_down_count").number for folder in eth]
    downed = [_ending(File(port, "counters/link_downed"), _DOWNED_END) for port in fabric]
    lone = "not_supported" if eth or fabric else "missing"
    rows = [
        one("nic.ports_up", total([*e_up, *f_up], lone)),
        one("nic.speed", total([*speeds, *rates], lone)),
        one("nic.link_flaps", total([*downs, *downed], lone)),
        one("nic.symbol_errors", total([_ending(File(p, "counters/symbol_error"), _SYMBOL_END) for p in fabric], lone)),
        one("nic.crc_errors", total([File(folder, "statistics/rx_crc_errors").number for folder in eth], lone)),
        one("nic.tx_bytes", total([*_moved(eth, fabric, "tx")], lone)),
        one("nic.rx_bytes", total([*_moved(eth, fabric, "rx")], lone)),
        one("nic.ack_timeouts", total([File(p, "hw_counters/local_ack_timeout_err").number for p in ports], lone)),
        one("nic.temp", _sensor(found.devices("hwmon", card), "asic")),
    ]
    return Part(name, name, [*rows, *pcie.link(found, card)])


def _moved(eth: Sequence[str], fabric: Sequence[str], way: str) -> list[Read]:
    """Bytes of each port; InfiniBand counts words of four, of all that goes over it."""
    data = {"tx": "port_xmit_data", "rx": "port_rcv_data"}[way]
    words = [File(port, f"counters/{data}", scale=4).number for port in fabric]
    return [*(File(folder, f"statistics/{way}_bytes").number for folder in eth), *words]


def _own_port(folder: str) -> bool:
    """An Ethernet port of the card itself: no IPoIB child, no representor of a virtual function."""
    return said(folder, "type") == _ETHERNET and not re.search(r"(?:vf|sf)\d", said(folder, "phys_port_name"))


def _up(folder: str, name: str, word: str) -> Read:
    file = File(folder, name)

    def read() -> float:
        state = file.word()
        if state in ("", "unknown", "0:"):
            raise Absent("missing")
        return float(state == word)

    return read


def _speed(up: Read, file: File) -> Read:
    """In one direction, GB/s; a port that is down still shows what it was made for."""

    def read() -> float:
        speed = file.number() if up() else 0.0
        if speed < 0:  # -1: the driver does not know (virtio)
            raise Absent("not_supported")
        return speed

    return read


def _ending(file: File, end: int) -> Read:
    def read() -> float:
        value = file.number()
        if value >= end:
            raise Absent("missing")
        return value

    return read


# ---------------------------------------------------------------- drives


def _nvme(found: Found, at: Roots, name: str, card: Card) -> Part:
    """Health by the drive's own log, which needs root; the temperature without it from hwmon."""
    folders = found.devices("nvme", card)
    file = File(at.dev, os.path.basename(folders[0])) if folders else None
    sensor = _sensor(found.devices("hwmon", card), "Composite")

    def read() -> list[Reading]:
        try:
            log = _health(file)
        except Absent as absent:
            return [_or(sensor, str(absent)), *[str(absent)] * (len(_NVME) - 1)]
        temp = log.temp_c if log.temp_c == log.temp_c else _or(sensor, "not_supported")
        return [temp, float(log.media_errors), float(log.warning), log.spare, log.used]

    return Part(name, name, [(_NVME, read), *pcie.link(found, card)])


def _health(file: File | None) -> smart.Health:
    if file is None:
        raise Absent("missing")
    try:
        fd = file.fd()
    except Absent as absent:
        raise Absent("no_permission" if str(absent) == "no_permission" else "missing") from None
    try:
        return smart.parse(smart.log_page(fd))
    except OSError as error:
        raise file.failed(error) from None
    except ValueError:
        raise Absent("missing") from None


def _or(read: Read, why: str) -> Reading:
    try:
        return read()
    except Absent:
        return why


# ---------------------------------------------------------------- CPUs, memory, the tray


def _cpu(found: Found, name: str, package: str) -> Part:
    temp, most = _cpu_sensors(found, package)
    mine = [folder for folder, socket in _controllers(found) if socket == package]
    return Part(name, name, [one("cpu.temp", temp), one("cpu.temp_limit", most), *_edac(mine)])


def _cpu_sensors(found: Found, package: str) -> tuple[Read, Read]:
    """Temperature of one socket, and where it begins to protect itself: coretemp, k10temp, or ACPI's thermal zones."""
    chips = [os.path.join(found.sys, "class/hwmon", chip) for chip in numbered(listed(found.sys, "class/hwmon"))]
    for chip in chips:
        if said(chip, "name") == "coretemp" and said(chip, "temp1_label") == f"Package id {package}":
            return File(chip, "temp1_input", scale=1e-3).number, File(chip, "temp1_max", scale=1e-3).number
    amd = _dealt(found, package, [chip for chip in chips if said(chip, "name") == "k10temp"])
    if amd:
        return highest([File(chip, "temp1_input", scale=1e-3).number for chip in amd]), never()
    thermal = os.path.join(found.sys, "class/thermal")
    zones = [os.path.join(thermal, zone) for zone in numbered(listed(thermal)) if said(thermal, zone, "type") == "acpitz"]
    mine = _dealt(found, package, zones)
    trips = [trip for zone in mine for trip in _trips(zone)]
    return highest([File(zone, "temp", scale=1e-3).number for zone in mine]), (lambda: min(trips)) if trips else never()


def _dealt(found: Found, package: str, folders: Sequence[str]) -> Sequence[str]:
    """This socket's share of what names no socket: firmware numbers one socket after the other. None if it is uneven."""
    share, rest = divmod(len(folders), len(found.packages))
    first = found.packages.index(package) * share
    return [] if rest else folders[first : first + share]


def _trips(zone: str) -> list[float]:
    """Temperatures at which something is done about it; 0 and below are placeholders of firmware."""
    values = []
    for name in listed(zone):
        if re.fullmatch(r"trip_point_\d+_type", name) and said(zone, name) in ("passive", "hot", "critical"):
            text = said(zone, name.replace("type", "temp"))
            if re.fullmatch(r"\d{4,6}", text):
                values.append(int(text) / 1000)
    return [value for value in values if value > 0]


def _controllers(found: Found) -> list[tuple[str, str | None]]:
    """Memory controllers of EDAC, and the socket that their names tell, if all of them do."""
    root = os.path.join(found.sys, "devices/system/edac/mc")
    folders = [os.path.join(root, mc) for mc in numbered(listed(root)) if re.fullmatch(r"mc\d+", mc)]
    sockets = [match and match[1] for match in (_SOCKET.search(said(folder, "mc_name")) for folder in folders)]
    return list(zip(folders, sockets if all(sockets) else [None] * len(folders)))


def _edac(folders: Sequence[str]) -> list[Row]:
    return [one(f"cpu.edac_{kind}", total([File(f, f"{kind}_count").number for f in folders])) for kind in ("ce", "ue")]


def _tray(found: Found, at: Roots) -> Part:
    """Memory errors stand here as well: firmware-first machines (Grace) have one controller for all sockets."""
    counts = {"host.nics": found.nics, "host.nvmes": found.nvmes}
    rows = [one(metric, _present(found, cards)) for metric, cards in counts.items()]
    rows.append(one("host.cpus", lambda: float(len(found.packages))) if found.packages else one("host.cpus", never("missing")))
    rows += _edac([folder for folder, _ in _controllers(found)])
    rows += rasdaemon.Database(at).rows()
    rows += [one("host.load1", File(at.proc, "loadavg").number), one("cpu.util", cores.util(File(at.proc, "stat").text))]
    return Part("host", "", [*rows, _memory(File(at.proc, "meminfo"))])


def _present(found: Found, cards: Sequence[Card]) -> Read:
    """How many of these still stand on the bus; without a bus nothing is known."""
    if not found.cards:
        return never("missing")
    folders = [found.device(card[0]) for card in cards]
    return lambda: float(sum(os.path.isdir(folder) for folder in folders))


def _memory(file: File) -> Row:
    def read() -> float:
        match = re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", file.text(), re.MULTILINE)
        if match is None:
            raise Absent("missing")
        return float(match[1]) * 1024

    return one("host.mem_available", read)
