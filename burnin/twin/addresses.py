"""Where a twin answers: a loopback address for every part of the rack, all SSH on one port, all Redfish on another."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

PORT, REDFISH_PORT = 2222, 8443
_NETS = {"t": 1, "s": 2, "t.bmc": 3, "s.bmc": 4, "p": 5, "c": 6}
"""Third byte of the address, by kind of part."""


def bind(parts: Sequence[str]) -> dict[str, socket.socket]:
    """A bound, listening socket per part: 127.A.1.(10+i) for compute trays, 127.A.2.(10+i) for switch trays, their BMCs on
    3 and 4, power shelves on 5, the CDU on 6, with the first A that is free; where only 127.0.0.1 can be bound, a port each on
    that."""
    first = 16 + os.getpid() % 200
    for a in (16 + (first - 16 + i) % 224 for i in range(224)):
        sockets: dict[str, socket.socket] = {}
        try:
            for part in parts:
                sockets[part] = bound(*_address(part, a))
            return sockets
        except OSError as error:
            for sock in sockets.values():
                sock.close()
            if not sockets and error.errno == errno.EADDRNOTAVAIL:  # one loopback address is all there is
                break
    return {part: bound("127.0.0.1", 0) for part in parts}


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError where the address is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _address(part: str, a: int) -> tuple[str, int]:
    tray, _, bmc = part.partition(".")
    net = _NETS[f"{part[0]}.bmc" if bmc else part[0]]
    number = 0 if tray == "cdu" else int(tray[1:])
    return f"127.{a}.{net}.{10 + number}", PORT if net < 3 else REDFISH_PORT
