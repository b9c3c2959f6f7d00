"""Copies to another GPU of the tray beside a load: traffic on NVLink while the SMs burn.

One batch is in flight at a time, of as many copies as take about LONG_MS, on a stream of its own; the next is queued when a
launch of the load has ended and the batch too.
"""

from __future__ import annotations

import ctypes as c

from burnin.agent.copies import enable
from burnin.agent.cuda import Cuda, CudaError, Gpu

BYTES = 128 << 20
"""Of one copy: more than any cache holds; taken on both GPUs."""
LONG_MS, MOST = 80.0, 1024


class Exchange:
    """From one GPU to a peer. Raises CudaError where the driver does not copy directly between the two."""

    def __init__(self, cuda: Cuda, device: int, peer: int) -> None:
        if not cuda.get("cuDeviceCanAccessPeer", c.c_int, device, peer):
            raise CudaError("the driver says that this GPU cannot reach the next one")
        self._cuda, self._far = cuda, Gpu(cuda, peer)
        target = self._far.allocate(BYTES)
        self._own = Gpu(cuda, device)
        enable(self._own, self._far)
        source = self._own.allocate(BYTES)
        self._words = ("cuMemcpyPeerAsync", target, self._far.context, source, self._own.context, BYTES)
        self._own.timed(1, *self._words)
        one_ms = max(self._own.timed(1, *self._words), 1e-3)
        self._times = int(min(max(LONG_MS / one_ms, 1), MOST))
        self._done = c.c_void_p(cuda.get("cuEventCreate", c.c_void_p, 0))
        self._flies = False
        self.copied = 2 * BYTES
        """Bytes that have arrived."""

    def go_on(self) -> None:
        """Count the batch that has ended, and queue the next; nothing while one flies. Raises CudaError."""
        if self._flies and not self._cuda.happened(self._done):
            return
        self.copied += self._times * BYTES if self._flies else 0
        self._own.queue(self._times, *self._words)
        self._cuda.call("cuEventRecord", self._done, self._own.stream)
        self._flies = True
