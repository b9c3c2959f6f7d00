"""An emulated tray's network: its cards' addresses, and traffic that takes its time without taking this machine's.

A process that has a GPU's context sends over a card at the card's own pace: what crosses the loopback is how much it was. Every
other process, and every other address, has sockets as ever. Standard library only, Python 3.9.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import time
from typing import Any

_SIOCGIFADDR = 0x8915
_BYTES_PER_S = 2.5e9
"""What one TCP stream of a Python thread brings over a card of 400 Gb/s (assumption)."""
_LATE_NS = 200_000_000
"""A thread that sends again so soon was sending in between as well: what it waited for is this machine, not the tray's card."""
_LEAST = 1 << 16
"""Shorter messages are no load."""
_TOKEN = struct.Struct("<Q")
CARDS = 10


class Counters:
    """What went over each card, in a file that a tray's processes share: 2 words a card, bytes sent and bytes received. A card
    belongs to one process, a word to one thread of it."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, 16 * CARDS)
        self._map = mmap.mmap(fd, 16 * CARDS)
        self._words = memoryview(self._map).cast("q")
        os.close(fd)

    def add(self, card: int, received: bool, count: int) -> None:
        """So many bytes more."""
        self._words[2 * card + received] += count

    def of(self, card: int) -> tuple[int, int]:
        """Bytes sent and received."""
        return int(self._words[2 * card]), int(self._words[2 * card + 1])


def cards(tray: str) -> dict[str, list[Any]]:
    """The tray's interfaces: name -> [number of the card, address]."""
    with open(os.path.join(tray, "tray.json"), encoding="utf-8") as file:
        found: dict[str, list[Any]] = json.load(file).get("nics", {})
    return found


def replace_addresses(tray: str) -> None:
    """Make the question for an interface's address find the tray's own interfaces."""
    import fcntl

    real, known = fcntl.ioctl, dict[str, list[Any]]()

    def ioctl(fd: Any, request: int, arg: Any = 0, mutate_flag: bool = True) -> Any:
        if request == _SIOCGIFADDR and isinstance(arg, bytes):
            if not known:
                known.update(cards(tray))
            name = arg[:16].rstrip(b"\0").decode("ascii", "replace")
            if name in known:
                return arg[:20] + socket.inet_aton(known[name][1]) + arg[24:]
        return real(fd, request, arg, mutate_flag)

    fcntl.ioctl = ioctl


def replace_sockets(tray: str) -> None:
    """From now on this process' sockets on a card's address carry the card's traffic."""
    by_address, real = {at: card for card, at in cards(tray).values()}, socket.socket
    counters = Counters(os.path.join(tray, "nics"))

    class Socket(real):  # type: ignore[misc, valid-type]
        __slots__ = ("_card", "_rest", "_sent_ns")

        def _of(self) -> int | None:
            if not hasattr(self, "_card"):
                try:
                    self._card = by_address.get(self.getsockname()[0])
                except (OSError, IndexError):
                    return None
                self._rest, self._sent_ns = b"", 0
            return self._card

        def send(self, data: Any, flags: int = 0) -> int:
            card = self._of() if len(data) >= _LEAST else None
            if card is None:
                return int(super().send(data, flags))
            begun_ns = time.monotonic_ns()
            begun_ns = self._sent_ns if begun_ns - self._sent_ns < _LATE_NS else begun_ns
            time.sleep(len(data) / _BYTES_PER_S)
            now_ns = time.monotonic_ns()
            count = int((now_ns - begun_ns) * _BYTES_PER_S / 1e9)
            super().sendall(_TOKEN.pack(count))
            self._sent_ns = now_ns
            counters.add(card, False, count)
            return len(data)

        def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
            card = self._of() if len(buffer) >= _LEAST else None
            got = int(super().recv_into(buffer, nbytes, flags))
            if card is not None:
                self._rest += bytes(buffer[:got])
                whole = len(self._rest) // _TOKEN.size * _TOKEN.size
                counters.add(card, True, sum(n for (n,) in _TOKEN.iter_unpack(self._rest[:whole])))
                self._rest = self._rest[whole:]
            return got

    Socket.__module__, Socket.__qualname__ = real.__module__, real.__qualname__
    socket.socket = Socket  # type: ignore[misc]
