"""One load process: one GPU, one kernel, until its deadline passes.

A process of its own per GPU, because a fault poisons a CUDA context; the holder only watches. It ends when its slot of
the shared deadlines lies in the past (lease out, cut-off, order, frozen holder), when the holder dies, or on SIGTERM.
It tells the holder how it goes on stdout, one JSON object a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from burnin.agent.cuda import Burn, CudaError, open_driver
from burnin.agent.lease import Deadlines

_PR_SET_PDEATHSIG = 1
REPORT_NS = 1_000_000_000


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the holder dies, and leave at once if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def uuid_bytes(uuid: str) -> bytes:
    """`GPU-1bb3...` as NVML prints it -> the 16 bytes that CUDA gives."""
    return bytes.fromhex(uuid.removeprefix("GPU-").replace("-", ""))


def run(burn: Burn, deadlines: Deadlines, slot: int, now_ns: Callable[[], int], tell: Callable[[dict[str, Any]], None]) -> None:
    """Launch until the deadline passes, telling once a second. The deadline is read before every launch."""
    told = now_ns()
    tell({"state": "burning", "grid": burn.grid})
    while now_ns() < deadlines.until(slot):
        burn.launch()
        if now_ns() - told >= REPORT_NS:
            told = now_ns()
            tell({"launches": burn.launches, "busy_ms": round(burn.busy_ms, 1), "wrong": burn.wrong(), "iters": burn.iters})
    tell(
        {
            "launches": burn.launches,
            "busy_ms": round(burn.busy_ms, 1),
            "wrong": burn.wrong(),
            "iters": burn.iters,
            "state": "ended",
        }
    )


def main(uuid: str, kernel: str, lease_fd: int, slot: int, slots: int, parent: int, ptx: bytes, now_ns: Callable[[], int]) -> int:
    """Process entry. Exit status 0: ended as told; 3: CUDA said no (the reason was told)."""
    die_with_parent(parent)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing but our lines reaches the holder

    def tell(body: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(body) + "\n")
        except OSError:
            os._exit(1)  # nobody listens

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        cuda = open_driver()
        burn = Burn(cuda, cuda.device(uuid_bytes(uuid)), ptx, kernel)
        run(burn, Deadlines(lease_fd, slots), slot, now_ns, tell)
    except CudaError as error:
        tell({"state": "failed", "why": str(error)})
        return 3
    return 0
