"""An emulated libcuda.so.1: contexts, modules from PTX, memory, streams and kernels that take their time.

`library(facts, state)` gives what `ctypes.CDLL` would. What kernels do is in `kernels`, what memory does in `transfers`;
both count as work of this process in the tray's state. Waiting sleeps. A GPU that fell off the bus fails every call; a
contained memory error kills the contexts it met.
"""

from __future__ import annotations

import ctypes as c
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..state import State
from . import transfers
from .abi import Library, Refuse, address, number, put
from .cuda_core import (
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_PTX,
    INVALID_VALUE,
    NO_BINARY,
    NO_DEVICE,
    NOT_FOUND,
    NOT_INITIALIZED,
    NOT_READY,
    UNKNOWN,
    Context,
    Cuda,
    Event,
    Function,
    Module,
    Stream,
)
from .kernels import Parameters, nanoseconds

_OTHER_KERNEL = 0.5
_ENTRY = re.compile(rb"\.entry\s+([\w$]+)")
_TARGET = re.compile(rb"\.target\s+sm_(\d+)(\d)([af]?)")


def library(facts: Mapping[str, Any], state: State, name: str = "libcuda.so.1") -> Library:
    """The library, as `ctypes.CDLL(name)` would give it. `facts` is what burnin.twin.identity.for_emulation wrote."""
    cuda = Cuda(facts, state, os.environ)

    def bind(symbol: str, function: Callable[..., Any]) -> Callable[..., Any]:
        early = symbol in ("cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString")

        def call(*args: Any) -> Any:
            if not (early or cuda.ready):
                return NOT_INITIALIZED
            return function(cuda, *args)

        return call

    return Library(name, {symbol: bind(symbol, function) for symbol, function in _API.items()})


# ---------------------------------------------------------------- driver, devices, contexts


def _init(cuda: Cuda, flags: Any) -> None:
    if not cuda.devices:
        raise Refuse(NO_DEVICE)
    cuda.ready = True


def _version(cuda: Cuda, out: Any) -> None:
    put(c.c_int, cuda.facts["cuda"], out)


def _count(cuda: Cuda, out: Any) -> None:
    put(c.c_int, len(cuda.devices), out)


def _device(cuda: Cuda, out: Any, ordinal: Any) -> None:
    cuda.device(ordinal)
    put(c.c_int, number(ordinal), out)


def _text_out(out: Any, room: Any, text: str) -> None:
    data = text.encode()[: max(number(room) - 1, 0)] + b"\0"
    c.memmove(address(out, len(data)), data, len(data))


def _device_name(cuda: Cuda, out: Any, room: Any, device: Any) -> None:
    _text_out(out, room, cuda.device(device).facts["name"])


def _device_bdf(cuda: Cuda, out: Any, room: Any, device: Any) -> None:
    bdf = cuda.device(device).own["bdf"]
    _text_out(out, room, bdf[4:] if bdf.startswith("0000") else bdf)


def _device_uuid(cuda: Cuda, out: Any, device: Any) -> None:
    uuid = bytes.fromhex(cuda.device(device).own["uuid"][4:].replace("-", ""))
    c.memmove(address(out, 16), uuid, 16)


def _attribute(cuda: Cuda, out: Any, which: Any, device: Any) -> None:
    facts = cuda.device(device).facts
    major, minor = facts["compute_capability"]
    known = {
        1: 1024,  # threads of a block
        10: 32,  # warp
        13: facts["clock_max_mhz"] * 1000,
        16: facts["sms"],
        18: 0,  # integrated
        32: 1,  # ECC
        39: 2048,  # threads of a multiprocessor
        75: major,
        76: minor,
    }
    if number(which) not in known:
        raise Refuse(INVALID_VALUE)
    put(c.c_int, known[number(which)], out)


def _total_mem(cuda: Cuda, out: Any, device: Any) -> None:
    facts = cuda.device(device).facts
    put(c.c_size_t, facts["memory_mib"] - facts["reserved_mib"] << 20, out)


def _retain(cuda: Cuda, out: Any, device: Any) -> None:
    own = cuda.device(device)
    if own.row["lost"]:
        raise Refuse(UNKNOWN)
    with cuda.lock:
        if own.context is None:
            own.context = Context(own, cuda.state.take_slot(os.getpid(), own.own["position"]))
            own.handle = cuda.keep(own.context)
        own.retained += 1
    put(c.c_size_t, own.handle, out)


def _release(cuda: Cuda, device: Any) -> None:
    own = cuda.device(device)
    with cuda.lock:
        if own.context is None:
            raise Refuse(INVALID_CONTEXT)
        own.retained -= 1
        if own.retained == 0:
            own.context.slot["pid"] = 0
            del cuda.things[own.handle]
            own.context = None


def _set_current(cuda: Cuda, context: Any) -> None:
    cuda.here.context = cuda.thing(Context, context) if address(context) else None
    if cuda.here.context is not None:
        cuda.here.context.check()


# ---------------------------------------------------------------- modules


def _load_module(cuda: Cuda, out: Any, image: Any, options: Any, keys: Any, values: Any) -> None:
    cuda.context()
    text = c.string_at(address(image))
    entries = _ENTRY.findall(text)
    if b".version" not in text or b".target" not in text or not entries:
        raise Refuse(INVALID_PTX)
    if not _assembles(text, tuple(cuda.context().device.facts["compute_capability"])):
        raise Refuse(NO_BINARY)
    put(c.c_size_t, cuda.keep(Module(entry.decode() for entry in entries)), out)


def _assembles(text: bytes, gpu: tuple[int, ...]) -> bool:
    """PTX is for its target and all that come later; with `a` for that one alone, with `f` for its family."""
    found = _TARGET.search(text)
    if found is None:
        return False
    major, minor, only = int(found[1]), int(found[2]), found[3]
    if only:
        return gpu == (major, minor) if only == b"a" else gpu[0] == major and gpu[1] >= minor
    return gpu >= (major, minor)


def _get_function(cuda: Cuda, out: Any, module: Any, name: Any) -> None:
    cuda.context()
    wanted = c.string_at(address(name)).decode()
    if wanted not in cuda.thing(Module, module):
        raise Refuse(NOT_FOUND)
    put(c.c_size_t, cuda.keep(Function(wanted)), out)


def _unload_module(cuda: Cuda, module: Any) -> None:
    cuda.context()
    cuda.thing(Module, module)
    del cuda.things[address(module)]


def _occupancy(cuda: Cuda, out: Any, function: Any, block: Any, shared: Any) -> None:
    cuda.thing(Function, function)
    put(c.c_int, 2048 // max(number(block), 1), out)


# ---------------------------------------------------------------- streams, events, launches


def _create(kind: type) -> Callable[..., None]:
    def create(cuda: Cuda, out: Any, flags: Any) -> None:
        cuda.context()
        put(c.c_size_t, cuda.keep(kind()), out)

    return create


def _stream(cuda: Cuda, stream: Any) -> Context:
    context = cuda.context()
    if address(stream):
        cuda.thing(Stream, stream)
    return context


def _synchronize(cuda: Cuda, stream: Any = None) -> None:
    context = _stream(cuda, stream)
    cuda.wait(context, cuda.done_ns(context, stream))


def _query(cuda: Cuda, stream: Any) -> int:
    return NOT_READY if cuda.done_ns(_stream(cuda, stream), stream) > time.monotonic_ns() else 0


def _record(cuda: Cuda, event: Any, stream: Any) -> None:
    context = _stream(cuda, stream)
    cuda.thing(Event, event).at_ns = max(cuda.done_ns(context, stream), time.monotonic_ns())


def _event_synchronize(cuda: Cuda, event: Any) -> None:
    at_ns = cuda.thing(Event, event).at_ns
    if at_ns is not None:
        cuda.wait(cuda.context(), at_ns)


def _event_query(cuda: Cuda, event: Any) -> int:
    cuda.context()
    at_ns = cuda.thing(Event, event).at_ns
    return NOT_READY if at_ns is not None and at_ns > time.monotonic_ns() else 0


def _elapsed(cuda: Cuda, out: Any, begin: Any, end: Any) -> int:
    cuda.context()
    first, last = cuda.thing(Event, begin).at_ns, cuda.thing(Event, end).at_ns
    if first is None or last is None:
        raise Refuse(INVALID_HANDLE)
    if last > time.monotonic_ns():
        return NOT_READY
    put(c.c_float, (last - first) / 1e6, out)
    return 0


def _launch(cuda: Cuda, function: Any, *rest: Any) -> None:
    kernel, context = cuda.thing(Function, function), cuda.context()
    grid_and_block, stream, parameters = rest[:6], rest[7], rest[8]
    _stream(cuda, stream)
    if min(map(number, grid_and_block)) < 1 or number(rest[3]) * number(rest[4]) * number(rest[5]) > 1024:
        raise Refuse(INVALID_VALUE)
    slot = context.slot
    lasts_ns = nanoseconds(str(kernel), context, cuda.facts["rates"], number(rest[0]), Parameters(parameters))
    slot["activity_ppm"] = int(1e6 * cuda.facts["kernels"].get(str(kernel), _OTHER_KERNEL))
    cuda.queue(context, stream, "sm", lasts_ns)


def _error_name(cuda: Cuda, code: Any, out: Any) -> int:
    text = cuda.texts.get(number(code))
    put(c.c_size_t, c.addressof(text) if text else 0, out)
    return 0 if text else INVALID_VALUE


_API: dict[str, Callable[..., Any]] = {
    "cuInit": _init,
    "cuDriverGetVersion": _version,
    "cuDeviceGetCount": _count,
    "cuDeviceGet": _device,
    "cuDeviceGetName": _device_name,
    "cuDeviceGetUuid_v2": _device_uuid,
    "cuDeviceGetPCIBusId": _device_bdf,
    "cuDeviceGetAttribute": _attribute,
    "cuDeviceTotalMem_v2": _total_mem,
    "cuDevicePrimaryCtxRetain": _retain,
    "cuDevicePrimaryCtxRelease_v2": _release,
    "cuCtxSetCurrent": _set_current,
    "cuCtxSynchronize": _synchronize,
    "cuMemGetInfo_v2": transfers.mem_info,
    "cuMemAlloc_v2": transfers.alloc,
    "cuMemFree_v2": transfers.free,
    "cuMemHostAlloc": transfers.host_alloc,
    "cuMemFreeHost": transfers.host_free,
    "cuMemcpyHtoD_v2": transfers.to_device_now,
    "cuMemcpyHtoDAsync_v2": transfers.to_device,
    "cuMemcpyDtoH_v2": transfers.to_host_now,
    "cuMemcpyDtoHAsync_v2": transfers.to_host,
    "cuMemcpyDtoDAsync_v2": transfers.device_to_device,
    "cuMemcpyPeerAsync": transfers.peer_copy,
    "cuMemsetD32Async": transfers.memset32,
    "cuDeviceCanAccessPeer": transfers.can_access,
    "cuCtxEnablePeerAccess": transfers.enable_access,
    "cuModuleLoadDataEx": _load_module,
    "cuModuleGetFunction": _get_function,
    "cuModuleUnload": _unload_module,
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": _occupancy,
    "cuLaunchKernel": _launch,
    "cuStreamCreate": _create(Stream),
    "cuStreamSynchronize": _synchronize,
    "cuStreamQuery": _query,
    "cuEventCreate": _create(Event),
    "cuEventRecord": _record,
    "cuEventSynchronize": _event_synchronize,
    "cuEventQuery": _event_query,
    "cuEventElapsedTime": _elapsed,
    "cuGetErrorName": _error_name,
    "cuGetErrorString": _error_name,
}
