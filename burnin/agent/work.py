"""One work process: one GPU, one kind of work, until it is done or its deadline passes.

A process of its own per GPU, because a fault poisons a CUDA context; the holder only watches. It ends when its slot of
the shared deadlines lies in the past (lease out, cut-off, order, frozen holder), when the holder dies, or on SIGTERM.

A kind of work is a function (talk, cuda, device, args) in a module of its own, imported only where it is done.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from typing import Any

from burnin.agent.cuda import CudaError, open_driver
from burnin.agent.lease import Deadlines
from burnin.agent.talk import Over, Talk

_PR_SET_PDEATHSIG = 1

KINDS: dict[str, tuple[str, str]] = {
    "burn": ("burnin.agent.burn", "run"),
    "digest": ("burnin.agent.consensus", "run"),
    "hbm": ("burnin.agent.hbm", "run"),
    "copies": ("burnin.agent.copies", "run"),
    "nccl": ("burnin.agent.nccl", "run"),
}
"""Kind of work -> module and function."""


class Again(Exception):
    """This process cannot go on, but a fresh one with these args can: its CUDA context is broken."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        self.changed = args


def kernels(name: str) -> bytes:
    """The PTX of `kernels/NAME.ptx`, out of the zipapp or the folder. Raises FileNotFoundError."""
    found = pkgutil.get_data("burnin.agent", f"kernels/{name}.ptx")
    if found is None:
        raise FileNotFoundError(name)
    return found


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the holder dies, and leave at once if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def uuid_bytes(uuid: str) -> bytes:
    """`GPU-1bb3...` as NVML prints it -> the 16 bytes that CUDA gives."""
    return bytes.fromhex(uuid.removeprefix("GPU-").replace("-", ""))


def main(
    uuid: str,
    spec: dict[str, Any],
    lease_fd: int,
    slot: int,
    slots: int,
    parent: int,
    now_ns: Callable[[], int],
    renew: Callable[[dict[str, Any]], None],
) -> int:
    """Process entry; `spec` is {kind, args}. Exit status 0: ended as told; 3: it could not be done (the reason was told).

    `renew` makes this process a fresh one with another spec, and does not return.
    """
    die_with_parent(parent)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing but our lines reaches the holder
    talk = Talk(0, out, Deadlines(lease_fd, slots), slot, now_ns)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        module, name = KINDS[spec["kind"]]
        do = getattr(importlib.import_module(module), name)
        talk.pause(float(spec["args"].pop("after_s", 0.0)))  # so that GPUs of a rack do not begin as one
        cuda = open_driver()
        do(talk, cuda, cuda.device(uuid_bytes(uuid)), spec["args"])
    except Over:
        return 0
    except Again as again:
        os.dup2(out.fileno(), 1)
        renew({**spec, "args": again.changed})
    except Exception as error:  # whatever it is, it is said: silence would look like a load that never came up
        text = str(error) if isinstance(error, CudaError) else f"{type(error).__name__}: {error}"
        talk.state({"state": "failed", "why": text})
        return 3
    return 0
