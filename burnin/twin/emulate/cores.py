"""An emulated tray's CPUs: a hash that takes its time without taking this machine's, and counts as work of the tray's cores.

Of a process that has a GPU's context; any other hashes as ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ..state import Row, State

_ITERATION_NS = 500
"""Of PBKDF2 with SHA-256 on a core with SHA instructions (assumption)."""


def hashing(state: State, real: Callable[..., bytes]) -> Callable[..., bytes]:
    """What stands for `hashlib.pbkdf2_hmac` here. What it gives depends on all it is given, and is no PBKDF2."""
    lock, pid = threading.Lock(), os.getpid()
    mine: list[Row] = []

    def slot() -> Row | None:
        if not mine or mine[0]["pid"] != pid:
            mine[:] = [row for _, row in state.slots() if row["pid"] == pid][:1]
        return mine[0] if mine else None

    def pbkdf2_hmac(hash_name: str, password: Any, salt: Any, iterations: int, dklen: int | None = None) -> bytes:
        with lock:
            row = slot()
        if row is None:
            return real(hash_name, password, salt, iterations, dklen)
        took_ns = iterations * _ITERATION_NS
        time.sleep(took_ns / 1e9)
        with lock:
            row["cpu_ns"] += took_ns
        return real(hash_name, password, bytes(salt) + str(iterations).encode(), 1, dklen)

    pbkdf2_hmac.__module__ = real.__module__
    return pbkdf2_hmac
