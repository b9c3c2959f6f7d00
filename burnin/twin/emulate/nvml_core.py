"""What an emulated libnvidia-ml.so.1 holds in one process: GPUs, event sets, C layouts and the ways to write them."""

from __future__ import annotations

import ctypes as c
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..state import Row, State
from .abi import Refuse, address, number, struct_at

UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE = 1, 2, 3, 6, 7
TIMEOUT, GPU_IS_LOST, VERSION_MISMATCH = 10, 15, 25
HANDLE, SET = 0x4E560000, 0x5E700000


class PciInfo(c.Structure):
    """nvmlPciInfo_t."""

    _fields_ = [
        ("busIdLegacy", c.c_char * 16), ("domain", c.c_uint), ("bus", c.c_uint), ("device", c.c_uint),
        ("pciDeviceId", c.c_uint), ("pciSubSystemId", c.c_uint), ("busId", c.c_char * 32),
    ]  # fmt: skip


class PlatformInfo(c.Structure):
    """nvmlPlatformInfo_v1_t and v2 (which renamed fields, but kept the layout)."""

    _fields_ = [
        ("version", c.c_uint), ("ibGuid", c.c_ubyte * 16), ("chassis", c.c_ubyte * 16), ("slot", c.c_ubyte),
        ("tray", c.c_ubyte), ("host", c.c_ubyte), ("peer", c.c_ubyte), ("module", c.c_ubyte),
    ]  # fmt: skip


class FabricInfo(c.Structure):
    """nvmlGpuFabricInfo_v3_t; v2 ends before healthSummary, v1 before healthMask and has no version."""

    _fields_ = [
        ("version", c.c_uint), ("cluster", c.c_ubyte * 16), ("status", c.c_int), ("clique", c.c_uint),
        ("state", c.c_ubyte), ("health", c.c_uint), ("summary", c.c_ubyte),
    ]  # fmt: skip


class Memory(c.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", c.c_ulonglong), ("free", c.c_ulonglong), ("used", c.c_ulonglong)]


class MemoryV2(c.Structure):
    """nvmlMemory_v2_t."""

    _fields_ = [
        ("version", c.c_uint), ("total", c.c_ulonglong), ("reserved", c.c_ulonglong), ("free", c.c_ulonglong),
        ("used", c.c_ulonglong),
    ]  # fmt: skip


class Process(c.Structure):
    """nvmlProcessInfo_t of the _v3 calls."""

    _fields_ = [("pid", c.c_uint), ("used", c.c_ulonglong), ("gpuInstance", c.c_uint), ("computeInstance", c.c_uint)]


class EventData(c.Structure):
    """nvmlEventData_t."""

    _fields_ = [
        ("device", c.c_void_p), ("type", c.c_ulonglong), ("data", c.c_ulonglong), ("gpuInstance", c.c_uint),
        ("computeInstance", c.c_uint),
    ]  # fmt: skip


class Gpu:
    """One GPU as the library sees it: `row` what moves, `own` and `facts` what does not."""

    def __init__(self, row: Row, links: tuple[Row, ...], own: Mapping[str, Any], facts: Mapping[str, Any], driver: str) -> None:
        self.row: Row = row
        self.links: tuple[Row, ...] = links[: facts["nvlinks"]]
        self.own: Mapping[str, Any] = own
        self.facts: Mapping[str, Any] = facts
        self.driver: str = driver
        self.position: int = own["position"]
        self.index: int = own["index"]
        self.blackwell = facts["architecture"] >= 10

    def check(self) -> Gpu:
        """This GPU, if it answers. A hung one never returns."""
        while self.row["hung"]:
            time.sleep(0.2)
        if self.row["lost"]:
            raise Refuse(GPU_IS_LOST)
        return self


class Nvml:
    """The library's state in one process."""

    def __init__(self, facts: Mapping[str, Any], state: State, sleep: Callable[[float], None] = time.sleep) -> None:
        self.facts, self.state, self.sleep = facts, state, sleep
        self.gpus = [
            Gpu(state.gpus[own["position"]], state.links[own["position"]], own, facts["facts"], facts["driver"])
            for own in facts["gpus"]
        ]
        self.by_position = {gpu.position: gpu for gpu in self.gpus}
        self.users = self.made = 0
        self.sets: dict[int, EventSet] = {}
        self.lock = threading.Lock()

    def gpu(self, handle: Any) -> Gpu:
        """The GPU of a device handle."""
        index = (address(handle) if not isinstance(handle, int) else handle) - HANDLE - 1
        if not 0 <= index < len(self.gpus):
            raise Refuse(INVALID_ARGUMENT)
        return self.gpus[index].check()

    def mem_used(self, gpu: Gpu) -> int:
        """Bytes that processes hold on a GPU."""
        return sum(slot["mem_bytes"] for _, slot in self.state.slots() if slot["gpu"] == gpu.position)


class EventSet:
    """Event types wanted per GPU position, and how far the ring was read."""

    def __init__(self, seen: int) -> None:
        self.wanted: dict[int, int] = {}
        self.seen = seen


def put_text(buffer: Any, length: Any, text: str) -> None:
    """A C string into a caller's buffer of `length` bytes. Refuses with INSUFFICIENT_SIZE."""
    data = text.encode() + b"\0"
    if len(data) > number(length):
        raise Refuse(INSUFFICIENT_SIZE)
    c.memmove(address(buffer, len(data)), data, len(data))


def versioned(kind: Any, pointer: Any, *versions: int) -> Any:
    """The struct behind a pointer, if it announces one of these versions (`number << 24 | size`)."""
    version = struct_at(c.c_uint, pointer).value
    if version not in versions:
        raise Refuse(VERSION_MISMATCH)
    address(pointer, version & 0xFFFFFF)  # room for the version it announces
    return kind.from_address(address(pointer))
