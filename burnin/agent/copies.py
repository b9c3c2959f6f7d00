"""How fast one GPU copies: from the host, to the host, within itself, and to every other GPU of its tray.

Between GPUs the NVLinks of both ends are counted before and after (burnin.agent.ends).

Each number is the median of several timings, counted one way. A timing is of so many copies of one buffer, queued at once,
as take LONG_MS: what queueing costs is then below the copies' own spread. Host memory is page-locked. One GPU at a time is
to be asked: they share the host's memory.
"""

from __future__ import annotations

import ctypes as c
import statistics
from functools import partial
from typing import Any

from burnin.agent.cuda import Cuda, CudaError, Gpu
from burnin.agent.ends import Ends
from burnin.agent.work import uuid_bytes

BYTES = 512 << 20
"""Of one copy: more than any cache holds, and below 100 ms at 6 GB/s."""
REPEATS = 9
LONG_MS, MOST = 20.0, 64
"""Of one timing: its length and its copies, at most about."""
_ALREADY = 704


def run(talk: Any, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """Job kind "copies". args: bytes, repeats, uuids (gpu -> UUID, of the whole tray).

    Tells {bytes, repeats, h2d, d2h, d2d, peers: {gpu: ...}}; each of them is {gbps, lowest_gbps, copies}, or {reason, why}
    where it could not be measured; of a peer also `nvlink`, see `Ends.during`. Raises CudaError when this GPU itself fails.
    """
    import pynvml  # what a process of work needs is loaded where it is done

    gpu, size, repeats = Gpu(cuda, device), int(args.get("bytes", BYTES)), int(args.get("repeats", REPEATS))
    host = c.c_void_p(cuda.get("cuMemHostAlloc", c.c_void_p, size, 0))
    one, other = gpu.allocate(size), gpu.allocate(size)

    def measured(name: str, *words: Any) -> dict[str, Any]:
        return speed(talk, gpu, size, repeats, name, *words)

    told: dict[str, Any] = {"bytes": size, "repeats": repeats}
    told["h2d"] = measured("cuMemcpyHtoDAsync_v2", one, host, size)
    told["d2h"] = measured("cuMemcpyDtoHAsync_v2", host, one, size)
    told["d2d"] = measured("cuMemcpyDtoDAsync_v2", other, one, size)
    gpu.free(other)
    told["peers"] = {}
    uuids = args.get("uuids", {})
    devices = {name: _device(cuda, uuid) for name, uuid in sorted(uuids.items())}
    own = next((name for name, number in devices.items() if number == device), "")
    ends = Ends(pynvml, uuids) if len(uuids) > 1 else None
    for name, peer in devices.items():
        if peer == device:
            continue
        copy = partial(to_peer, talk, gpu, peer, one, size, repeats)
        told["peers"][name] = ends.during(own, name, copy, size, talk.pause) if ends is not None else copy()
    gpu.close()
    talk.tell(told)


def speed(talk: Any, gpu: Gpu, size: int, repeats: int, name: str, *words: Any) -> dict[str, Any]:
    """Median speed of one driver call's copies, in GB/s (10^9)."""
    gbps: list[float] = []
    times = 1
    for number in range(2 + repeats):  # the first is cold, the second says how many make a timing
        if not talk.going():
            return {"reason": "not_attained", "why": f"the time was over after {len(gbps)} of {repeats} timings"}
        ms = max(gpu.timed(times, name, *words), 1e-6)
        if number == 1:
            times = int(min(max(LONG_MS / ms, 1), MOST))
        if number > 1:
            gbps.append(times * size / ms / 1e6)
    return {"gbps": round(statistics.median(gbps), 2), "lowest_gbps": round(min(gbps), 2), "copies": times * repeats}


def _device(cuda: Cuda, uuid: str) -> int | None:
    try:
        return cuda.device(uuid_bytes(uuid))
    except (CudaError, ValueError):
        return None


def to_peer(talk: Any, gpu: Gpu, peer: int | None, source: int, size: int, repeats: int) -> dict[str, Any]:
    """From this GPU's memory to another's, directly; {reason, why} where the driver does not do that."""
    cuda = gpu.cuda
    if peer is None:
        return {"reason": "missing", "why": "CUDA does not show this GPU"}
    if not cuda.get("cuDeviceCanAccessPeer", c.c_int, gpu.device, peer):
        return {"reason": "not_supported", "why": "the driver says that this GPU cannot reach that one"}
    try:
        far = Gpu(cuda, peer)
        try:
            target = far.allocate(size)
            gpu.enter()
            enable(gpu, far)
            return speed(talk, gpu, size, repeats, "cuMemcpyPeerAsync", target, far.context, source, gpu.context, size)
        finally:
            gpu.enter()
            far.close()
    except CudaError as error:
        return {"reason": "missing", "why": str(error)}


def enable(gpu: Gpu, far: Gpu) -> None:
    """Let one GPU reach another's memory; nothing where it does already."""
    try:
        gpu.cuda.call("cuCtxEnablePeerAccess", far.context, 0)
    except CudaError as error:
        if error.code != _ALREADY:
            raise
