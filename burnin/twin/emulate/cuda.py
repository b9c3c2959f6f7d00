"""An emulated libcuda.so.1: contexts, modules from PTX, memory, streams and kernels that take their time.

`library(facts, state)` gives what `ctypes.CDLL` would. A kernel's third parameter is a C int `iters`: the launch lasts
that many microseconds at the highest clock, longer at a lower one, and counts as work of this process in the tray's
state. Waiting sleeps. A GPU that fell off the bus fails every call; a contained memory error kills the contexts it met.
"""

from __future__ import annotations

import ctypes as c
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..state import State
from .abi import Library, Refuse, address, number, put
from .cuda_core import (
    CONTEXT_BYTES,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_PTX,
    INVALID_VALUE,
    NO_DEVICE,
    NOT_FOUND,
    NOT_INITIALIZED,
    NOT_READY,
    OUT_OF_MEMORY,
    UNKNOWN,
    Context,
    Cuda,
    Event,
    Function,
    Module,
    Stream,
)
from .memory import Memory

_ITERS_PARAMETER = 2
_OTHER_KERNEL = 0.5
_ENTRY = re.compile(rb"\.entry\s+([\w$]+)")


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


def _can_access(cuda: Cuda, out: Any, device: Any, peer: Any) -> None:
    put(c.c_int, int(cuda.device(device) is not cuda.device(peer)), out)


def _enable_access(cuda: Cuda, context: Any, flags: Any) -> None:
    cuda.context()
    cuda.thing(Context, context)


# ---------------------------------------------------------------- modules


def _load_module(cuda: Cuda, out: Any, image: Any, options: Any, keys: Any, values: Any) -> None:
    cuda.context()
    text = c.string_at(address(image))
    entries = _ENTRY.findall(text)
    if b".version" not in text or b".target" not in text or not entries:
        raise Refuse(INVALID_PTX)
    put(c.c_size_t, cuda.keep(Module(entry.decode() for entry in entries)), out)


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


# ---------------------------------------------------------------- memory


def _mem_info(cuda: Cuda, free: Any, total: Any) -> None:
    context = cuda.context()
    position, facts = context.device.own["position"], context.device.facts
    room = facts["memory_mib"] - facts["reserved_mib"] << 20
    put(c.c_size_t, room, total)
    put(c.c_size_t, room - sum(s["mem_bytes"] for _, s in cuda.state.slots() if s["gpu"] == position), free)


def _alloc(cuda: Cuda, out: Any, size: Any) -> None:
    context = cuda.context()
    if number(size) < 1:
        raise Refuse(INVALID_VALUE)
    start = context.memory.allocate(number(size))
    if start is None:
        raise Refuse(OUT_OF_MEMORY)
    context.slot["mem_bytes"] = CONTEXT_BYTES + context.memory.used
    put(c.c_uint64, start, out)


def _free(cuda: Cuda, start: Any) -> None:
    context = cuda.context()
    if not context.memory.free(number(start)):
        raise Refuse(INVALID_VALUE)
    context.slot["mem_bytes"] = CONTEXT_BYTES + context.memory.used


def _host_alloc(cuda: Cuda, out: Any, size: Any, flags: Any) -> None:
    cuda.context()
    buffer = c.create_string_buffer(number(size))
    cuda.things[c.addressof(buffer)] = buffer
    put(c.c_size_t, c.addressof(buffer), out)


def _host_free(cuda: Cuda, pointer: Any) -> None:
    if cuda.things.pop(address(pointer), None) is None:
        raise Refuse(INVALID_VALUE)


def _held(memory: Memory, start: int, size: int) -> None:
    if not memory.holds(start, size):
        raise Refuse(INVALID_VALUE)


def _to_device(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any = None) -> None:
    memory = cuda.context().memory
    _held(memory, number(to), number(size))
    memory.write(number(to), c.string_at(address(source, number(size)), number(size)))


def _to_host(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any = None) -> None:
    context = cuda.context()
    _held(context.memory, number(source), number(size))
    cuda.wait(context, context.slot["end_ns"])
    c.memmove(address(to, number(size)), context.memory.read(number(source), number(size)), number(size))


def _device_to_device(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any) -> None:
    memory = cuda.context().memory
    _held(memory, number(to), number(size))
    _held(memory, number(source), number(size))
    memory.copy(number(to), memory, number(source), number(size))


def _peer_copy(cuda: Cuda, to: Any, to_ctx: Any, source: Any, from_ctx: Any, size: Any, stream: Any) -> None:
    into, out_of = cuda.thing(Context, to_ctx).check().memory, cuda.thing(Context, from_ctx).check().memory
    _held(into, number(to), number(size))
    _held(out_of, number(source), number(size))
    into.copy(number(to), out_of, number(source), number(size))


def _memset32(cuda: Cuda, to: Any, value: Any, count: Any, stream: Any) -> None:
    memory, size = cuda.context().memory, 4 * number(count)
    _held(memory, number(to), size)
    memory.fill(number(to), (number(value) & 0xFFFFFFFF).to_bytes(4, "little"), number(count))


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
    cuda.wait(context, context.slot["end_ns"])


def _query(cuda: Cuda, stream: Any) -> int:
    return NOT_READY if _stream(cuda, stream).slot["end_ns"] > time.monotonic_ns() else 0


def _record(cuda: Cuda, event: Any, stream: Any) -> None:
    context = _stream(cuda, stream)
    cuda.thing(Event, event).at_ns = max(context.slot["end_ns"], time.monotonic_ns())


def _event_synchronize(cuda: Cuda, event: Any) -> None:
    at_ns = cuda.thing(Event, event).at_ns
    if at_ns is not None:
        cuda.wait(cuda.context(), at_ns)


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
    pointers = (c.c_void_p * (_ITERS_PARAMETER + 1)).from_address(address(parameters, 8 * (_ITERS_PARAMETER + 1)))
    iters = c.c_int.from_address(pointers[_ITERS_PARAMETER] or 0).value
    row, slot = context.device.row, context.slot
    lasts_ns = int(max(iters, 0) * 1000 * context.device.facts["clock_max_mhz"] / max(row["clock_busy_mhz"], 1))
    slot["activity_ppm"] = int(1e6 * cuda.facts["kernels"].get(str(kernel), _OTHER_KERNEL))
    slot["end_ns"] = max(slot["end_ns"], time.monotonic_ns()) + lasts_ns  # first: work is never counted before its time
    slot["busy_ns"] += lasts_ns


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
    "cuMemGetInfo_v2": _mem_info,
    "cuMemAlloc_v2": _alloc,
    "cuMemFree_v2": _free,
    "cuMemHostAlloc": _host_alloc,
    "cuMemFreeHost": _host_free,
    "cuMemcpyHtoD_v2": _to_device,
    "cuMemcpyHtoDAsync_v2": _to_device,
    "cuMemcpyDtoH_v2": _to_host,
    "cuMemcpyDtoHAsync_v2": _to_host,
    "cuMemcpyDtoDAsync_v2": _device_to_device,
    "cuMemcpyPeerAsync": _peer_copy,
    "cuMemsetD32Async": _memset32,
    "cuDeviceCanAccessPeer": _can_access,
    "cuCtxEnablePeerAccess": _enable_access,
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
    "cuEventElapsedTime": _elapsed,
    "cuGetErrorName": _error_name,
    "cuGetErrorString": _error_name,
}
