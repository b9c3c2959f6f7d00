"""The emulated driver's memory calls: allocation, copies that take the time of their bandwidth, peers.

A copy is queued behind what its stream and the copy engine have to do, beside the kernels of other streams. One of more than
memory.BACKED bytes moves nothing: it only takes its time, because no twin has the memory of a rack.
"""

from __future__ import annotations

import ctypes as c
import mmap
import time
from random import Random
from typing import Any

from .abi import Refuse, address, number, put
from .cuda_core import (
    CONTEXT_BYTES,
    INVALID_CONTEXT,
    INVALID_VALUE,
    OUT_OF_MEMORY,
    PEER_ALREADY_ENABLED,
    PEER_UNSUPPORTED,
    Context,
    Cuda,
    Device,
)
from .memory import BACKED, Memory

_COPY_WEIGHT = 0.1
"""Activity of a GPU that only copies (assumption)."""
_SPREAD = 0.0015
"""Relative standard deviation of bandwidth from part to part (reference studies: 0.15 %)."""


def mem_info(cuda: Cuda, free: Any, total: Any) -> None:
    context = cuda.context()
    position, facts = context.device.own["position"], context.device.facts
    room = facts["memory_mib"] - facts["reserved_mib"] << 20
    put(c.c_size_t, room, total)
    put(c.c_size_t, room - sum(s["mem_bytes"] for _, s in cuda.state.slots() if s["gpu"] == position), free)


def alloc(cuda: Cuda, out: Any, size: Any) -> None:
    context = cuda.context()
    if number(size) < 1:
        raise Refuse(INVALID_VALUE)
    start = context.memory.allocate(number(size))
    if start is None:
        raise Refuse(OUT_OF_MEMORY)
    context.slot["mem_bytes"] = CONTEXT_BYTES + context.memory.used
    put(c.c_uint64, start, out)


def free(cuda: Cuda, start: Any) -> None:
    context = cuda.context()
    if not context.memory.free(number(start)):
        raise Refuse(INVALID_VALUE)
    context.slot["mem_bytes"] = CONTEXT_BYTES + context.memory.used


def host_alloc(cuda: Cuda, out: Any, size: Any, flags: Any) -> None:
    cuda.context()
    if number(size) < 1:
        raise Refuse(INVALID_VALUE)
    buffer = (c.c_char * number(size)).from_buffer(mmap.mmap(-1, number(size)))  # pages that nobody touches cost nothing
    cuda.things[c.addressof(buffer)] = buffer
    put(c.c_size_t, c.addressof(buffer), out)


def host_free(cuda: Cuda, pointer: Any) -> None:
    if cuda.things.pop(address(pointer), None) is None:
        raise Refuse(INVALID_VALUE)


# ---------------------------------------------------------------- copies


def _held(memory: Memory, start: int, size: int) -> None:
    if not memory.holds(start, size):
        raise Refuse(INVALID_VALUE)


def _queue(cuda: Cuda, context: Context, stream: Any, way: str, size: int, *ends: Device) -> None:
    """By the copy engine: `size` bytes at the rate of `way`, as far as the GPUs at its ends have it left."""
    gbps = cuda.facts["rates"][way]
    for device in ends:
        gbps *= (1 - device.row["bw_lost_ppm"] / 1e6) * Random(f"{device.own['uuid']}/{way}").gauss(1, _SPREAD)
    lasts_ns, slot = int(size / max(gbps, 1e-3)), context.slot
    weight = int(1e6 * _COPY_WEIGHT)
    beside = slot["end_ns"] > time.monotonic_ns()  # copies go on beside a kernel, and the kernel with them
    slot["activity_ppm"] = max(weight, slot["activity_ppm"]) if beside else weight
    cuda.queue(context, stream, "copy", lasts_ns)


def to_device(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any = None) -> None:
    context, count = cuda.context(), number(size)
    _held(context.memory, number(to), count)
    if count <= BACKED:
        context.memory.write(number(to), c.string_at(address(source, count), count))
    _queue(cuda, context, stream, "h2d_gbps", count, context.device)


def to_device_now(cuda: Cuda, to: Any, source: Any, size: Any) -> None:
    to_device(cuda, to, source, size)
    cuda.wait(cuda.context(), cuda.context().slot["end_ns"])


def to_host(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any = None) -> None:
    context, count = cuda.context(), number(size)
    _held(context.memory, number(source), count)
    if count <= BACKED:
        c.memmove(address(to, count), context.memory.read(number(source), count), count)
    _queue(cuda, context, stream, "d2h_gbps", count, context.device)


def to_host_now(cuda: Cuda, to: Any, source: Any, size: Any) -> None:
    context = cuda.context()
    cuda.wait(context, context.slot["end_ns"])
    to_host(cuda, to, source, size)
    cuda.wait(context, context.slot["end_ns"])


def device_to_device(cuda: Cuda, to: Any, source: Any, size: Any, stream: Any) -> None:
    context, count = cuda.context(), number(size)
    _held(context.memory, number(to), count)
    _held(context.memory, number(source), count)
    context.memory.copy(number(to), context.memory, number(source), count)
    _queue(cuda, context, stream, "d2d_gbps", count, context.device)


def memset32(cuda: Cuda, to: Any, value: Any, count: Any, stream: Any) -> None:
    memory, size = cuda.context().memory, 4 * number(count)
    _held(memory, number(to), size)
    memory.fill(number(to), (number(value) & 0xFFFFFFFF).to_bytes(4, "little"), number(count))


# ---------------------------------------------------------------- peers


def can_access(cuda: Cuda, out: Any, device: Any, peer: Any) -> None:
    reachable = cuda.device(device) is not cuda.device(peer) and cuda.facts["rates"]["p2p_gbps"] is not None
    put(c.c_int, int(reachable), out)


def enable_access(cuda: Cuda, peer: Any, flags: Any) -> None:
    own, other = cuda.context(), cuda.thing(Context, peer)
    if own is other:
        raise Refuse(INVALID_CONTEXT)
    if cuda.facts["rates"]["p2p_gbps"] is None:
        raise Refuse(PEER_UNSUPPORTED)
    if address(peer) in own.peers:
        raise Refuse(PEER_ALREADY_ENABLED)
    own.peers.add(address(peer))


def peer_copy(cuda: Cuda, to: Any, to_ctx: Any, source: Any, from_ctx: Any, size: Any, stream: Any) -> None:
    into, out_of = cuda.thing(Context, to_ctx).check(), cuda.thing(Context, from_ctx).check()
    context, count = cuda.context(), number(size)
    _held(into.memory, number(to), count)
    _held(out_of.memory, number(source), count)
    into.memory.copy(number(to), out_of.memory, number(source), count)
    direct = address(to_ctx) in out_of.peers or address(from_ctx) in into.peers
    _queue(cuda, context, stream, "p2p_gbps" if direct else "d2h_gbps", count, into.device, out_of.device)
    if direct:
        _count(cuda, out_of.device, "tx_bytes", count)
        _count(cuda, into.device, "rx_bytes", count)


def _count(cuda: Cuda, device: Device, way: str, size: int) -> None:
    """Bytes over the NVLinks of one end that are up, spread evenly; the first takes what does not divide."""
    links = cuda.state.links[device.own["position"]][: int(device.facts["nvlinks"])]
    carrying = [link for link in links if not link["down"]]
    for i, link in enumerate(carrying):
        link[way] += size // len(carrying) + (size % len(carrying) if i == 0 else 0)
