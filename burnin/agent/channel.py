"""One SSH exec on the tray: starts the holder if there is none, attaches, then copies bytes between SSH and its socket.

When SSH goes away (end of file on stdin), the channel goes too, and the holder stays with its lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

from burnin.agent.main import ANOTHER_HOLDER as ANOTHER_HOLDER
from burnin.agent.main import SOCKET as SOCKET
from burnin.wire import MARK

START_S = 15.0
"""How long a fresh holder may take until it listens (it waits for NVML up to holder.INIT_S)."""


class Refused(Exception):
    """The tray is another controller's; the text is `busy` or `fenced`, that run, and who it is as JSON."""


def _connect() -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(SOCKET)  # relative: a long home directory must not overrun sockaddr_un
    except OSError:
        link.close()
        return None
    return link


def _read_line(link: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = link.recv(1)
        if not data:
            break
        line += data
    return line


def attach(
    run: str, holder: str, seq: int, start_holder: Callable[[], subprocess.Popen[bytes]], claim: Any = None
) -> socket.socket:
    """A socket to this run's holder, in the working directory. Raises Refused, or OSError when no holder will start."""
    with open("lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two channels must not start two holders
        end = time.monotonic() + START_S
        started: subprocess.Popen[bytes] | None = None
        while True:
            link = _connect()
            if link is not None:
                link.settimeout(START_S)
                link.sendall(json.dumps(["attach", run, holder, seq, claim]).encode() + b"\n")
                answer = _read_line(link) or b'["gone"]'
                word, *rest = json.loads(answer)
                if word == "ok":
                    link.settimeout(None)
                    return link
                link.close()
                if word in ("busy", "fenced"):
                    raise Refused(f"{word} {rest[0]} {json.dumps(rest[1] if len(rest) > 1 else {})}")
            elif started is None:
                started = start_holder()
            elif started.poll() == ANOTHER_HOLDER:
                started = None  # the old one is still leaving
            elif started.poll() is not None:
                raise OSError(_last_words() or f"the holder ended at once with status {started.returncode}")
            if time.monotonic() > end:
                raise OSError(f"the holder did not listen within {START_S:g} s")
            time.sleep(0.02)


def guard(run: str) -> socket.socket:
    """A guard's socket to this run's holder. Raises Refused, or OSError when there is none: a guard starts nothing."""
    link = _connect()
    if link is None:
        raise OSError("no holder")
    link.settimeout(START_S)
    link.sendall(json.dumps(["guard", run, "-", 0]).encode() + b"\n")
    word, *rest = json.loads(_read_line(link) or b'["gone"]')
    if word == "busy":
        raise Refused(f"{word} {rest[0]} {json.dumps(rest[1] if len(rest) > 1 else {})}")
    if word != "ok":
        raise OSError("the holder is leaving")
    link.settimeout(None)
    return link


def _last_words() -> str:
    with open("holder.log", errors="replace") as log:
        lines = log.read()[-4096:].strip().splitlines()
    return lines[-1] if lines else ""


def copy(link: socket.socket, stdin: int, stdout: int) -> None:
    """Copy both ways until either side is gone."""
    selector = selectors.DefaultSelector()
    selector.register(link, selectors.EVENT_READ)
    selector.register(stdin, selectors.EVENT_READ)
    with contextlib.suppress(OSError):
        while True:
            for key, _ in selector.select():
                if key.fd == stdin:
                    data = os.read(stdin, 65536)
                    if not data:
                        return
                    link.sendall(data)
                else:
                    data = link.recv(65536)
                    if not data:
                        return
                    while data:
                        data = data[os.write(stdout, data) :]


def main(open_link: Callable[[], socket.socket]) -> int:
    """Process entry, in the agent's private directory. Exit status: 0 link over, 5 another controller's, 6 no holder."""
    os.write(1, MARK)
    try:
        link = open_link()
    except Refused as refused:
        os.write(2, f"{refused}\n".encode())
        return 5
    except (OSError, ValueError) as error:
        os.write(2, f"{error}\n".encode())
        return 6
    copy(link, 0, 1)
    return 0
