"""ibstat, mlxlink and ib_write_bw: the tray's network cards, by the tree that HOST_SYS shows.

ib_write_bw's two ends meet as the real ones do, over TCP at the address of the server's card, tell each other what
their cards can, and print the slower one's table. Forms: captures (ibstat, perftest); of mlxlink captured beginnings, manual.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from ..state import State
from .drives import _LANE_GBPS, line
from .smi import Said

_PCIE_GETS, _WIRE_GETS = 0.9, 0.97
"""Shares of PCIe and of the wire that RDMA writes of large messages get (assumption)."""
_ITERATIONS, _BIG = 5000, 8388608
_CONNECT_S, _ACCEPT_S = 5.0, 100.0
_OPCODE = {"2": ("Polling", "Negotiation failure"), "3": ("Disable", "Port is closed by command")}


class Card(NamedTuple):
    """One card's first port as it is now. `phys`: the kernel's number of its physical state, 5 is up."""

    number: int
    name: str
    fabric: str
    gbps: int
    up: bool
    phys: str
    downed: int
    lanes_gbps: float
    address: str

    @property
    def rdma_gbit(self) -> float:
        """What RDMA writes get through it, Gbit/s."""
        return min(self.gbps * _WIRE_GETS, self.lanes_gbps * 8 * _PCIE_GETS)


def cards(facts: Mapping[str, Any]) -> list[Card]:
    """The cards that are there; devices are named by their order, as mlx5 does."""
    found, root = list[Card](), os.path.join(facts["at"], "root")
    addresses = dict(facts.get("nics", {}).values())
    for i, one in enumerate(facts["machine"]["nics"]):
        pci = os.path.join(root, "sys/bus/pci/devices", one["bdf"])
        width = line(os.path.join(pci, "current_link_width"))
        if not width:
            continue
        if one["fabric"] == "infiniband":
            port = os.path.join(root, "sys/class/infiniband", one["device"], "ports/1")
            state, phys = line(os.path.join(port, "state")), line(os.path.join(port, "phys_state")).partition(":")[0]
            up, downed = state.startswith("4"), line(os.path.join(port, "counters/link_downed"))
        else:
            port = os.path.join(root, "sys/class/net", f"{one['device']}f0")
            up, downed = line(os.path.join(port, "operstate")) == "up", line(os.path.join(port, "carrier_down_count"))
            phys = "5" if up else "3"
        lanes = _LANE_GBPS[one["gen"]] * int(width)
        phys = phys if up or phys != "5" else "2"
        found.append(
            Card(i, f"mlx5_{i}", one["fabric"], one["gbps"], up, phys, int(downed or 0), lanes, addresses.get(i, "127.0.0.1"))
        )
    return found


def ibstat(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """All cards, or the one that is named."""
    wanted, out = next((word for word in argv if not word.startswith("-")), ""), ""
    for card in cards(facts):
        if wanted not in ("", card.name):
            continue
        guid = f"0x{Random(facts['chassis'] + str(facts['tray_index']) + card.name).getrandbits(64):016x}"
        infiniband = card.fabric == "infiniband"
        physical = {"5": "LinkUp", "2": "Polling", "3": "Disabled"}.get(card.phys, "Polling")
        out += f"CA '{card.name}'\n\tCA type: {'MT4131' if infiniband else 'MT41692'}\n\tNumber of ports: 1\n"
        out += f"\tFirmware version: 40.46.3048\n\tHardware version: 0\n\tNode GUID: {guid}\n"
        out += f"\tSystem image GUID: {guid}\n\tPort 1:\n"
        out += f"\t\tState: {'Active' if card.up else 'Down'}\n\t\tPhysical state: {physical}\n"
        out += f"\t\tRate: {card.gbps if card.up else 40}\n"
        out += f"\t\tBase lid: {75 + card.number if infiniband else 0}\n\t\tLMC: 0\n\t\tSM lid: {1 if infiniband else 0}\n"
        out += f"\t\tCapability mask: {'0xa751e848' if infiniband else '0x00010000'}\n\t\tPort GUID: {guid}\n"
        out += f"\t\tLink layer: {'InfiniBand' if infiniband else 'Ethernet'}\n"
    return (out, "", 0) if out else ("", f"ibpanic: [4100] main: '{wanted}' IB device can't be found\n", 255)


def mlxlink(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`-d DEVICE [-c] [-e] [--json]`."""
    name = dict(zip(argv, argv[1:])).get("-d", "")
    card = next((one for one in cards(facts) if one.name == name), None)
    if card is None:
        said = f"failed to open device: {name}. No such file or directory"
        return ("", f"-E- {said}\n", 1) if "--json" not in argv else (
            json.dumps({"result": {"output": {}, "status": {"code": 1, "message": said}}}, indent=3) + "\n", "", 1)  # fmt: skip
    speed = f"IB-{'XDR' if card.gbps >= 800 else 'NDR'}" if card.fabric == "infiniband" else f"{card.gbps}GbE"
    opcode = "0" if card.up else card.phys
    physical, said = (
        ("LinkUp", "No issue was observed") if card.up else _OPCODE.get(card.phys, ("Polling", "Negotiation failure"))
    )
    groups: dict[str, dict[str, str]] = {
        "Operational Info": {
            "State": "Active" if card.up else physical, "Physical state": "LinkUp" if card.up else physical,
            "Speed": speed if card.up else "N/A", "Width": "4x" if card.up else "N/A",
            "FEC": "Interleaved_Standard_RS-FEC - (544,514)" if card.up else "N/A",
            "Loopback Mode": "No Loopback", "Auto Negotiation": "ON",
        },
        "Troubleshooting Info": {"Status Opcode": opcode, "Group Opcode": "PHY FW", "Recommendation": said},
        "Tool Information": {"Firmware Version": "40.46.3048", "amBER Version": "4.2", "MFT Version": "mft 4.33.0-169"},
    }  # fmt: skip
    if "-c" in argv:
        groups["Physical Counters and BER Info"] = {
            "Time Since Last Clear [Min]": "12.4", "Effective Physical Errors": "0", "Effective Physical BER": "15E-255",
            "Raw Physical BER": "4E-12" if card.up else "N/A", "Link Down Counter": str(card.downed),
            "Link Error Recovery Counter": "0",
        }  # fmt: skip
    if "--json" in argv:
        return json.dumps({"result": {"output": groups, "status": {"code": 0, "message": "Success"}}}, indent=3) + "\n", "", 0
    out = ""
    for group, values in groups.items():
        out += f"\n{group}\n{'-' * len(group)}\n" + "".join(f"{key:<32}: {value}\n" for key, value in values.items())
    return out, "", 0


# ---------------------------------------------------------------- ib_write_bw


def ib_write_bw(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`-d DEVICE -p PORT [--report_gbits] [-a] [SERVER]`."""
    words, alone = dict(zip(argv, argv[1:])), argv[-1] if argv and re.fullmatch(r"[\d.]+", argv[-1]) else ""
    server = alone if len(argv) > 1 and argv[-2] not in ("-p", "-d", "-s") else ""
    name, port = words.get("-d", "mlx5_0"), int(words.get("-p", 18515))
    card = next((one for one in cards(facts) if one.name == name), None)
    if card is None:
        return "", f" IB device {name} not found\n Unable to find the Infiniband/RoCE device\n", 1
    if not card.up:
        return "", " Port number 1 state is Down\n Couldn't set the link layer\n Couldn't get context for the device\n", 1
    try:
        far = _asked(card, server, port) if server else _answered(card, port)
    except (OSError, ValueError):
        return (
            "",
            f" Couldn't connect to {server or card.address}:{port}\nUnable to open file descriptor for socket connection\n",
            1,
        )
    speed = min(card.rdma_gbit, far)
    sizes = [2**n for n in range(1, 24)] if "-a" in argv else [65536]
    return _table(card, speed, sizes, "--report_gbits" in argv, waits=not server), "", 0


def _asked(card: Card, server: str, port: int) -> float:
    """As a client, from the card's own address: what the server's card can."""
    until = time.monotonic() + _CONNECT_S
    while True:
        try:
            with socket.create_connection((server, port), timeout=_CONNECT_S, source_address=(card.address, 0)) as sock:
                sock.sendall(f"{card.rdma_gbit:.6f}\n".encode())
                return float(sock.makefile().readline())
        except ConnectionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def _answered(card: Card, port: int) -> float:
    """As a server: what the client's card can."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((card.address, port))
        listener.listen(1)
        listener.settimeout(_ACCEPT_S)
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(_CONNECT_S)
            far = float(sock.makefile().readline())
            sock.sendall(f"{card.rdma_gbit:.6f}\n".encode())
            return far


def _table(card: Card, gbit: float, sizes: list[int], gbits: bool, waits: bool) -> str:
    rule = "-" * 87 + "\n"
    out = f"\n{'*' * 36}\n* Waiting for client to connect... *\n{'*' * 36}\n" if waits else ""
    out += f"{rule}                    RDMA_Write BW Test\n Dual-port       : OFF\t\tDevice         : {card.name}\n"
    out += " Number of qps   : 1\t\tTransport type : IB\n Connection type : RC\t\tUsing SRQ      : OFF\n PCIe relax order: ON\n"
    out += " CQ Moderation   : 100\n Mtu             : 4096[B]\n"
    out += f" Link type       : {'IB' if card.fabric == 'infiniband' else 'Ethernet'}\n"
    out += f" Max inline data : 0[B]\n rdma_cm QPs\t : OFF\n Data ex. method : Ethernet\n{rule}"
    out += " local address: LID 0xd06 QPN 0x092f PSN 0x3ff1bc RKey 0x080329 VAddr 0x007fc97ff50000\n"
    out += f" remote address: LID 0xd07 QPN 0x092e PSN 0x3eb82d RKey 0x080228 VAddr 0x007f19adcbf000\n{rule}"
    unit, per = ("Gb", 1.0) if gbits else ("MB", 1e9 / 8 / 2**20)
    out += f" #bytes     #iterations    BW peak[{unit}/sec]    BW average[{unit}/sec]   MsgRate[Mpps]\n"
    for size in sizes:
        rate = gbit * min(1.0, size / (size + 4096))  # short messages are bound by their number
        mpps = rate / 8 / size * 1e3
        out += f" {size:<10} {_ITERATIONS:<13} {rate * per * 1.0005:18.2f} {rate * per:18.2f} \t\t {mpps:10.6f}\n"
    return out + rule
