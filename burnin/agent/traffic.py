"""Traffic on the tray's network cards beside a GPU's load: TCP to the same card of another tray, and from one, at full speed.

Threads of the load process itself, so that its deadline and its end are theirs too. What arrives is dropped; who is not the tray
that was named is not listened to. What went over a card is what the card counts, not what is sent here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from burnin.agent.host import Roots
from burnin.agent.sysfs import Found, said

PORT = 18516
"""Beside the one of perftest; each card listens on its own address."""
PIECE = 64 << 20
"""Offered to the kernel at once, of which it takes what it has room for. All zero, so that it takes no memory."""
_DROP = 1 << 20
WAIT_S = 0.2
"""How long a thread is deaf to the deadline."""
MOST = 10
_SIOCGIFADDR = 0x8915


def ipv4(name: str) -> str:
    """The IPv4 address of an interface. Raises OSError where it is down, or has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def ports(at: Roots) -> dict[str, dict[str, str]]:
    """Card (n0 ...) -> {device, address} of its first interface that has both a link and an IPv4 address, or {why}."""
    found = Found(at.sys)
    return {f"n{i}": _port(found.devices("net", card)) for i, card in enumerate(found.nics[:MOST])}


def _port(folders: Sequence[str]) -> dict[str, str]:
    linked = [os.path.basename(folder) for folder in folders if said(folder, "operstate") == "up"]
    for name in linked:
        with contextlib.suppress(OSError):
            return {"device": name, "address": ipv4(name)}
    return {"why": "no IPv4 address" if linked else "no link" if folders else "no network interface"}


class Traffic:
    """`ways`: {card, device, own, peer, source (who may send here)} of each card. `why`: what went wrong last, by card."""

    def __init__(self, ways: Sequence[Mapping[str, str]], going: Callable[[], bool]) -> None:
        self._going, self._over = going, threading.Event()
        self.why: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._until_over, args=(work, way), daemon=True)
            for way in ways
            for work in (self._receive, self._send)
        ]
        for thread in self._threads:
            thread.start()

    def _on(self) -> bool:
        return self._going() and not self._over.is_set()

    def _until_over(self, work: Callable[[Mapping[str, str]], None], way: Mapping[str, str]) -> None:
        """What fails is told and tried again: the other tray may come up later, or again."""
        while self._on():
            try:
                work(way)
            except OSError as error:
                self.why[way["card"]] = f"{way['own']} to {way['peer']}: {error}"
                self._over.wait(WAIT_S)

    def _send(self, way: Mapping[str, str]) -> None:
        piece = memoryview(bytes(PIECE))
        with socket.socket() as sock:
            sock.settimeout(WAIT_S)
            with contextlib.suppress(OSError):  # refused to a plain user before Linux 5.7; then the routes decide
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way["device"].encode())
            sock.bind((way["own"], 0))
            sock.connect((way["peer"], PORT))
            while self._on():
                with contextlib.suppress(socket.timeout):
                    sock.send(piece)
                    self.why.pop(way["card"], None)

    def _receive(self, way: Mapping[str, str]) -> None:
        buffer = bytearray(_DROP)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((way["own"], PORT))
            listener.listen(2)
            listener.settimeout(WAIT_S)
            while self._on():
                with contextlib.suppress(socket.timeout):
                    sock, (source, _) = listener.accept()
                    with sock:
                        self._drop(sock, buffer, source == way["source"])

    def _drop(self, sock: socket.socket, buffer: bytearray, known: bool) -> None:
        sock.settimeout(WAIT_S)
        while known and self._on():
            with contextlib.suppress(socket.timeout):
                if not sock.recv_into(buffer):
                    return

    def end(self) -> None:
        """Each thread sees it within WAIT_S; who does not ends with the process."""
        self._over.set()
        until = time.monotonic() + 2 * WAIT_S
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))


@contextlib.contextmanager
def beside(ways: Any, going: Callable[[], bool]) -> Iterator[Callable[[], str]]:
    """Traffic while the block runs, where it is asked for; gives what says in words why there is less of it."""
    if not ways:
        yield lambda: ""
        return
    traffic = Traffic(ways, going)
    try:
        yield lambda: "; ".join(f"{card}: no traffic from {why}" for card, why in sorted(traffic.why.items()))
    finally:
        traffic.end()
