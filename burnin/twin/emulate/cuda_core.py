"""What an emulated libcuda.so.1 holds in one process: devices, their primary contexts, and everything with a handle."""

from __future__ import annotations

import ctypes as c
import os
import threading
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from ..state import Row, State
from .abi import Refuse, address, number
from .memory import Memory

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE, INVALID_DEVICE = 1, 2, 3, 100, 101
INVALID_CONTEXT, ECC_UNCORRECTABLE, INVALID_PTX, NOT_FOUND, INVALID_HANDLE, NOT_READY = 201, 214, 218, 500, 400, 600
PEER_UNSUPPORTED, PEER_ALREADY_ENABLED, UNKNOWN, NO_BINARY = 217, 704, 999, 209
NAMES = {
    0: b"CUDA_SUCCESS",
    1: b"CUDA_ERROR_INVALID_VALUE",
    2: b"CUDA_ERROR_OUT_OF_MEMORY",
    3: b"CUDA_ERROR_NOT_INITIALIZED",
    100: b"CUDA_ERROR_NO_DEVICE",
    101: b"CUDA_ERROR_INVALID_DEVICE",
    201: b"CUDA_ERROR_INVALID_CONTEXT",
    214: b"CUDA_ERROR_ECC_UNCORRECTABLE",
    217: b"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
    209: b"CUDA_ERROR_NO_BINARY_FOR_GPU",
    218: b"CUDA_ERROR_INVALID_PTX",
    400: b"CUDA_ERROR_INVALID_HANDLE",
    500: b"CUDA_ERROR_NOT_FOUND",
    600: b"CUDA_ERROR_NOT_READY",
    704: b"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
    999: b"CUDA_ERROR_UNKNOWN",
}
CONTEXT_BYTES = 512 << 20
"""What a context takes of the GPU's memory (assumption)."""
_NAP_S = 0.05
_LATE_NS = 500_000_000
"""A machine with too few cores wakes a process late, by so much at most; a frozen one is later."""


OPENED: WeakSet[Cuda] = WeakSet()
"""The drivers of this process: other libraries find its contexts and memory here."""


class Device:
    """One GPU as CUDA sees it: `row` what moves, `own` and `facts` what does not."""

    def __init__(self, row: Row, own: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.row, self.own, self.facts = row, own, facts
        self.context: Context | None = None
        self.retained = self.handle = 0


class Context:
    """A device's primary context in this process."""

    def __init__(self, device: Device, slot: Row) -> None:
        self.device, self.slot = device, slot
        self.poisoned = device.row["poisoned"]
        self.memory = Memory((device.facts["memory_mib"] - device.facts["reserved_mib"] << 20) - CONTEXT_BYTES)
        self.engines = {"sm": 0, "copy": 0}
        """When each has done what is queued, CLOCK_MONOTONIC."""
        self.held_ns = 0
        """Until then a collective has the whole GPU."""
        self.late_ns = 0
        """How late its process was woken when it last waited: its tray's own cores would have been on time."""
        self.peers: set[int] = set()
        """Handles of the contexts whose memory this one may touch."""
        slot["mem_bytes"] = CONTEXT_BYTES

    def fault(self) -> int:
        """The sticky error of this context, 0 when it lives."""
        if self.device.row["lost"]:
            return UNKNOWN
        return ECC_UNCORRECTABLE if self.device.row["poisoned"] > self.poisoned else 0

    def check(self) -> Context:
        """This context, if it lives."""
        if self.fault():
            raise Refuse(self.fault())
        return self


class Cuda:
    """The driver's state in one process. Everything that has a handle is in `things`."""

    def __init__(self, facts: Mapping[str, Any], state: State, environ: Mapping[str, str]) -> None:
        self.facts, self.state = facts, state
        self.devices = _visible(
            [Device(state.gpus[own["position"]], own, facts["facts"]) for own in facts["gpus"]],
            environ.get("CUDA_VISIBLE_DEVICES"),
        )
        self.ready = False
        self.things: dict[int, Any] = {}
        self.texts = {code: c.create_string_buffer(text) for code, text in NAMES.items()}
        self.here = threading.local()
        self.lock = threading.RLock()
        self._handle = 0x55550000
        OPENED.add(self)

    def keep(self, thing: Any) -> int:
        """A handle for it."""
        with self.lock:
            self._handle += 16
            self.things[self._handle] = thing
            return self._handle

    def thing(self, kind: type, handle: Any) -> Any:
        """What a handle stands for. Refuses with INVALID_HANDLE."""
        found = self.things.get(address(handle))
        if not isinstance(found, kind):
            raise Refuse(INVALID_HANDLE)
        return found

    def device(self, ordinal: Any) -> Device:
        """A device by its CUDA ordinal."""
        if not 0 <= number(ordinal) < len(self.devices):
            raise Refuse(INVALID_DEVICE)
        return self.devices[number(ordinal)]

    def context(self) -> Context:
        """This thread's context, if it lives."""
        current = getattr(self.here, "context", None)
        if not isinstance(current, Context):
            raise Refuse(INVALID_CONTEXT)
        if current.device.row["stuck"]:
            self._stick()
        return current.check()

    def _stick(self) -> None:
        """Wait in the kernel, for ever: until the tray's process is no more."""
        try:
            os.stat(self.facts["stuck"])
        except OSError:
            pass
        raise Refuse(UNKNOWN)

    def queue(self, context: Context, stream: Any, engine: str, lasts_ns: int) -> None:
        """Behind what the stream and the engine have to do; without a stream behind everything of this process on the GPU."""
        slot, now_ns, own = context.slot, time.monotonic_ns(), self.things.get(address(stream)) if stream is not None else None
        before_ns = max(own.end_ns, context.held_ns) if isinstance(own, Stream) else slot["end_ns"]
        end_ns = max(now_ns, before_ns, context.engines[engine]) + lasts_ns
        context.engines[engine] = end_ns
        if isinstance(own, Stream):
            own.end_ns = end_ns
        dry_ns = max(now_ns - slot["end_ns"], 0)
        longer_ns = end_ns - slot["end_ns"] - max(dry_ns - context.late_ns, 0)  # what two engines do at once is counted once
        context.late_ns = 0
        if longer_ns > 0:
            slot["end_ns"] = end_ns  # first: work is never counted before its time
            slot["busy_ns"] += longer_ns

    def done_ns(self, context: Context, stream: Any) -> int:
        """When a stream has done what is queued on it; without a stream, when everything has."""
        own = self.things.get(address(stream)) if stream is not None else None
        return max(own.end_ns, context.held_ns) if isinstance(own, Stream) else int(context.slot["end_ns"])

    def wait(self, context: Context, until_ns: int) -> None:
        """Sleep until then; refuses as soon as the context dies."""
        while True:
            context.check()
            left_s = (until_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            time.sleep(min(left_s, _NAP_S))
            late_ns = time.monotonic_ns() - until_ns
            context.late_ns = late_ns if 0 < late_ns <= _LATE_NS else 0


class Function(str):
    """A kernel, by name."""


class Module(frozenset[str]):
    """The kernels of a loaded PTX image."""


class Stream:
    """A stream: what is queued on it goes in order. Kernels of all streams share the SMs, copies the copy engine."""

    end_ns: int = 0


class Event:
    """When the queue had reached it, CLOCK_MONOTONIC; None before it was recorded."""

    at_ns: int | None = None


def _visible(devices: list[Device], wanted: str | None) -> list[Device]:
    """CUDA_VISIBLE_DEVICES: ordinals or beginnings of UUIDs; the first unknown one ends the list."""
    if wanted is None:
        return devices
    out: list[Device] = []
    for word in (w.strip() for w in wanted.split(",")):
        found = [d for i, d in enumerate(devices) if word and (word == str(i) or d.own["uuid"].startswith(word))]
        if len(found) != 1:
            break
        out += found
    return out
