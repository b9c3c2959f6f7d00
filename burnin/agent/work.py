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

from burnin.agent import pulse
from burnin.agent.cuda import Burn, Cuda, CudaError, open_driver
from burnin.agent.lease import Deadlines
from burnin.agent.talk import Over, Talk

_PR_SET_PDEATHSIG = 1
REPORT_NS = 1_000_000_000
LAUNCH_MS, PULSE_LAUNCHES = 40.0, 25
"""Length of a launch, and how many of them make a pulse at least: two in flight end within a tenth of it."""

KINDS: dict[str, tuple[str, str]] = {
    "burn": ("burnin.agent.work", "burn"),
    "digest": ("burnin.agent.consensus", "run"),
    "hbm": ("burnin.agent.hbm", "run"),
    "copies": ("burnin.agent.copies", "run"),
    "nccl": ("burnin.agent.nccl", "run"),
}
"""Kind of work -> module and function."""


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


def burn(talk: Talk, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """Launch `args["kernel"]` until the deadline passes, telling once a second. The deadline is read before every launch.

    `args["pulse"]`, where there is one, is the square wave that launches keep to (burnin.agent.pulse).
    """
    wave = pulse.wave(args.get("pulse"))
    launch_ms = LAUNCH_MS if wave is None else min(LAUNCH_MS, max(wave.on_ns / 1e6 / PULSE_LAUNCHES, 1.0))
    load = Burn(cuda, device, kernels("burn"), args["kernel"], launch_ms)

    def count() -> dict[str, Any]:
        counts = {"launches": load.launches, "busy_ms": round(load.busy_ms, 1), "wrong": load.wrong(), "iters": load.iters}
        return {**counts, **(wave.counts() if wave is not None else {})}

    def rest() -> bool:
        """Between two pulses: let the GPU run dry, and sleep a while."""
        wait_ns = wave.wait_ns(talk.now_ns(), int(2e6 * load.launch_ms)) if wave is not None else 0
        if wait_ns == 0:
            return False
        if wave is not None and load.drain():
            wave.fell(talk.now_ns())
        talk.pause(min(wait_ns / 1e9, pulse.NAP_S))
        return True

    told = talk.now_ns()
    talk.state({"state": "burning", "grid": load.grid})
    while talk.going():
        if not rest():
            load.launch()
        if talk.now_ns() - told >= REPORT_NS:
            told = talk.now_ns()
            talk.state(count())
    talk.state({**count(), "state": "ended"})


def main(uuid: str, spec: dict[str, Any], lease_fd: int, slot: int, slots: int, parent: int, now_ns: Callable[[], int]) -> int:
    """Process entry; `spec` is {kind, args}. Exit status 0: ended as told; 3: it could not be done (the reason was told)."""
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
    except Exception as error:  # whatever it is, it is said: silence would look like a load that never came up
        text = str(error) if isinstance(error, CudaError) else f"{type(error).__name__}: {error}"
        talk.state({"state": "failed", "why": text})
        return 3
    return 0
