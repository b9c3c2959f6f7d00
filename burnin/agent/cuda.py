"""The CUDA driver through ctypes: what a load needs of `libcuda.so.1`, and nothing that must be installed.

Symbols are named exactly as exported: dlsym knows nothing of the header's `_v2` macros.
"""

from __future__ import annotations

import ctypes as c
from abc import ABC, abstractmethod
from typing import Any

_P = c.POINTER
_VOID, _SIZE, _PTR, _INT, _UINT = c.c_void_p, c.c_size_t, c.c_uint64, c.c_int, c.c_uint

SYMBOLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UINT,),
    "cuDriverGetVersion": (_P(_INT),),
    "cuDeviceGetCount": (_P(_INT),),
    "cuDeviceGet": (_P(_INT), _INT),
    "cuDeviceGetUuid_v2": (_VOID, _INT),
    "cuDeviceGetAttribute": (_P(_INT), _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_P(_VOID), _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_VOID,),
    "cuModuleLoadDataEx": (_P(_VOID), _VOID, _UINT, _P(_INT), _P(_VOID)),
    "cuModuleGetFunction": (_P(_VOID), _VOID, c.c_char_p),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (_P(_INT), _VOID, _INT, _SIZE),
    "cuMemGetInfo_v2": (_P(_SIZE), _P(_SIZE)),
    "cuMemAlloc_v2": (_P(_PTR), _SIZE),
    "cuMemFree_v2": (_PTR,),
    "cuMemHostAlloc": (_P(_VOID), _SIZE, _UINT),
    "cuMemsetD32Async": (_PTR, _UINT, _SIZE, _VOID),
    "cuMemcpyDtoH_v2": (_VOID, _PTR, _SIZE),
    "cuMemcpyDtoHAsync_v2": (_VOID, _PTR, _SIZE, _VOID),
    "cuMemcpyHtoDAsync_v2": (_PTR, _VOID, _SIZE, _VOID),
    "cuMemcpyDtoDAsync_v2": (_PTR, _PTR, _SIZE, _VOID),
    "cuMemcpyPeerAsync": (_PTR, _VOID, _PTR, _VOID, _SIZE, _VOID),
    "cuDeviceCanAccessPeer": (_P(_INT), _INT, _INT),
    "cuCtxEnablePeerAccess": (_VOID, _UINT),
    "cuLaunchKernel": (_VOID, _UINT, _UINT, _UINT, _UINT, _UINT, _UINT, _UINT, _VOID, _P(_VOID), _P(_VOID)),
    "cuStreamCreate": (_P(_VOID), _UINT),
    "cuStreamSynchronize": (_VOID,),
    "cuStreamQuery": (_VOID,),
    "cuEventCreate": (_P(_VOID), _UINT),
    "cuEventRecord": (_VOID, _VOID),
    "cuEventSynchronize": (_VOID,),
    "cuEventQuery": (_VOID,),
    "cuEventElapsedTime": (_P(c.c_float), _VOID, _VOID),
    "cuGetErrorName": (_INT, _P(c.c_char_p)),
}
_NOT_READY = 600
_SM_COUNT, _CAPABILITY, _LOG_BUFFER, _LOG_BYTES, _NON_BLOCKING = 16, (75, 76), 5, 6, 1
OUT_OF_MEMORY = 2
THREADS = 256
"""Threads of a block: what the kernels' launch bounds promise."""


class CudaError(RuntimeError):
    """A driver call failed; the text names call, code and its CUDA_ERROR_ name. `code` is 0 where no call was made."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


def open_driver() -> Cuda:
    """The tray's own driver. Raises CudaError when there is none, or it is too old."""
    try:
        library = c.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(f"no CUDA driver: {error}") from None
    return Cuda(library)


class Cuda:
    """The driver library, initialised. Raises CudaError when it is too old or will not start."""

    def __init__(self, library: Any) -> None:
        self._lib = library
        for name, args in SYMBOLS.items():
            symbol = getattr(self._lib, name, None)
            if symbol is None:
                raise CudaError(f"libcuda.so.1 has no {name}: the driver is too old")
            symbol.argtypes, symbol.restype = args, _INT
        self.call("cuInit", 0)

    def call(self, name: str, *args: Any) -> None:
        """One driver call. Raises CudaError for any code but CUDA_SUCCESS."""
        code = getattr(self._lib, name)(*args)
        if code:
            text = c.c_char_p()
            self._lib.cuGetErrorName(code, c.byref(text))
            raise CudaError(f"{name} -> {code} {(text.value or b'?').decode()}", code)

    def get(self, name: str, kind: Any, *args: Any) -> Any:
        """A driver call whose first argument is where it writes: the value written."""
        out = kind()
        self.call(name, c.byref(out), *args)
        return out.value

    def finished(self, stream: Any) -> bool:
        """Has a stream run dry. Raises CudaError when its context died."""
        if self._lib.cuStreamQuery(stream) == _NOT_READY:
            return False
        self.call("cuStreamQuery", stream)
        return True

    def happened(self, event: Any) -> bool:
        """Has its stream come to an event. Raises CudaError when its context died."""
        if self._lib.cuEventQuery(event) == _NOT_READY:
            return False
        self.call("cuEventQuery", event)
        return True

    def device(self, uuid: bytes) -> int:
        """The CUDA device of an NVML UUID: ordinals differ between the two. Raises CudaError when there is none."""
        for ordinal in range(self.get("cuDeviceGetCount", _INT)):
            device = int(self.get("cuDeviceGet", _INT, ordinal))
            own = c.create_string_buffer(16)
            self.call("cuDeviceGetUuid_v2", own, device)
            if own.raw == uuid:
                return device
        raise CudaError(f"no CUDA device has the UUID {uuid.hex()}")

    def load(self, ptx: bytes) -> c.c_void_p:
        """A module from PTX, in the current context. Raises CudaError with the assembler's own words."""
        log = c.create_string_buffer(8192)
        options = (_INT * 2)(_LOG_BUFFER, _LOG_BYTES)
        values = (_VOID * 2)(c.cast(log, _VOID), 8192)
        image = c.create_string_buffer(ptx)
        try:
            return _VOID(self.get("cuModuleLoadDataEx", _VOID, c.cast(image, _VOID), 2, options, values))
        except CudaError as error:
            said = log.value.decode(errors="replace").strip()
            raise CudaError(f"{error}: {said}" if said else str(error), error.code) from None


def capability(cuda: Cuda, device: int) -> str:
    """Compute capability of a device, `10.3`."""
    return ".".join(str(cuda.get("cuDeviceGetAttribute", _INT, which, device)) for which in _CAPABILITY)


class Gpu:
    """One GPU's primary context, current in this thread, and one stream: what is queued is timed and waited for."""

    def __init__(self, cuda: Cuda, device: int) -> None:
        self.cuda, self.device = cuda, device
        self.context = _VOID(cuda.get("cuDevicePrimaryCtxRetain", _VOID, device))
        self.enter()
        self.stream = _VOID(cuda.get("cuStreamCreate", _VOID, _NON_BLOCKING))
        self._begin, self._end = (_VOID(cuda.get("cuEventCreate", _VOID, 0)) for _ in range(2))
        self.sms = int(cuda.get("cuDeviceGetAttribute", _INT, _SM_COUNT, device))

    def enter(self) -> None:
        """Make this the thread's current context."""
        self.cuda.call("cuCtxSetCurrent", self.context)

    def close(self) -> None:
        """Give the context up, and all that is in it: from then on no process of ours is to be seen on the GPU."""
        self.cuda.call("cuDevicePrimaryCtxRelease_v2", self.device)

    @property
    def capability(self) -> str:
        """Compute capability, `10.3`."""
        return capability(self.cuda, self.device)

    def functions(self, ptx: bytes, *names: str) -> list[c.c_void_p]:
        """Kernels of a PTX image."""
        module = self.cuda.load(ptx)
        return [_VOID(self.cuda.get("cuModuleGetFunction", _VOID, module, name.encode())) for name in names]

    def resident(self, function: c.c_void_p) -> int:
        """Blocks of THREADS that this GPU runs at once."""
        return self.sms * max(int(self.cuda.get("cuOccupancyMaxActiveBlocksPerMultiprocessor", _INT, function, THREADS, 0)), 1)

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all that the driver has to give."""
        free, total = _SIZE(), _SIZE()
        self.cuda.call("cuMemGetInfo_v2", c.byref(free), c.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """Device memory; the address. Raises CudaError, with code OUT_OF_MEMORY when there is none."""
        return int(self.cuda.get("cuMemAlloc_v2", _PTR, size))

    def free(self, at: int) -> None:
        """Give memory back."""
        self.cuda.call("cuMemFree_v2", at)

    def read(self, at: int, size: int) -> bytes:
        """Bytes of device memory."""
        out = c.create_string_buffer(size)
        self.cuda.call("cuMemcpyDtoH_v2", out, at, size)
        return out.raw

    def clear(self, at: int, size: int) -> None:
        """Fill with zeros; `size` is a multiple of 4."""
        self.cuda.call("cuMemsetD32Async", at, 0, size // 4, self.stream)

    def timed(self, times: int, name: str, *args: Any) -> float:
        """Queue an asynchronous call so many times (the stream is its last argument), and wait: milliseconds all took."""
        return self._time([(name, *args, self.stream)] * times)

    def queue(self, times: int, name: str, *args: Any) -> None:
        """Queue an asynchronous call so many times (the stream is its last argument), and do not wait."""
        for _ in range(times):
            self.cuda.call(name, *args, self.stream)

    def launch(self, function: c.c_void_p, blocks: int, *values: Any) -> float:
        """Run one kernel of THREADS threads a block with these ctypes values: milliseconds it took."""
        pointers = (_VOID * len(values))(*[c.cast(c.byref(v), _VOID) for v in values])
        shape = (blocks, 1, 1, THREADS, 1, 1, 0)
        return self._time([("cuLaunchKernel", function, *shape, self.stream, pointers, None)])

    def _time(self, calls: list[tuple[Any, ...]]) -> float:
        self.cuda.call("cuEventRecord", self._begin, self.stream)
        for words in calls:
            self.cuda.call(*words)
        self.cuda.call("cuEventRecord", self._end, self.stream)
        self.cuda.call("cuEventSynchronize", self._end)
        return float(self.cuda.get("cuEventElapsedTime", c.c_float, self._begin, self._end))


class Launches(ABC):
    """A load on one GPU, launched so that two launches are always in flight and each lasts about `launch_ms`.

    The primary context is used: cuCtxCreate changed its parameters with CUDA 13.
    """

    def __init__(self, cuda: Cuda, device: int, launch_ms: float) -> None:
        self._cuda, self.launch_ms = cuda, launch_ms
        cuda.call("cuCtxSetCurrent", _VOID(cuda.get("cuDevicePrimaryCtxRetain", _VOID, device)))
        self.grid = int(cuda.get("cuDeviceGetAttribute", _INT, _SM_COUNT, device))
        """Blocks of a launch, as far as they are known: those that the GPU has room for."""
        self._stream = _VOID(cuda.get("cuStreamCreate", _VOID, _NON_BLOCKING))
        self._events = [[_VOID(cuda.get("cuEventCreate", _VOID, 0)) for _ in range(2)] for _ in range(2)]
        self._flown = [0, 0]
        self._flies = False
        self.iters = 1000
        self.launches = 0
        self.busy_ms = 0.0

    @abstractmethod
    def _queue(self) -> None:
        """Queue one launch of `iters`."""

    def launch(self) -> None:
        """Queue one launch, then wait for the one before it; adapts the length of the next."""
        begin, end = self._events[self.launches % 2]
        self._cuda.call("cuEventRecord", begin, self._stream)
        self._queue()
        self._cuda.call("cuEventRecord", end, self._stream)
        self._flown[self.launches % 2] = self.iters
        self.launches += 1
        if self._flies:
            self._finish(self.launches % 2)
        self._flies = True

    def drain(self) -> bool:
        """Wait for what is in flight; False when nothing was."""
        if not self._flies:
            return False
        self._flies = False
        self._finish((self.launches - 1) % 2)
        return True

    def _finish(self, which: int) -> None:
        """Wait for one of the two in flight, and take the length of the next from what its own iterations took."""
        begin, end = self._events[which]
        self._cuda.call("cuEventSynchronize", end)
        took_ms = self._cuda.get("cuEventElapsedTime", c.c_float, begin, end)
        self.busy_ms += took_ms
        if took_ms > 0:  # at most 4x at once: the first launches run on a cold clock
            flown = self._flown[which]
            self.iters = int(min(max(flown * self.launch_ms / took_ms, flown / 4, 1), flown * 4, 1 << 30))

    @abstractmethod
    def wrong(self) -> int:
        """Results so far that disagreed; waits for what is in flight."""


class Burn(Launches):
    """One load kernel. `per_sm`: blocks of an SM, where the kernel wants another number than fits."""

    def __init__(
        self, cuda: Cuda, device: int, ptx: bytes, kernel: str, launch_ms: float = 40.0, per_sm: int | None = None
    ) -> None:
        super().__init__(cuda, device, launch_ms)
        self._function = _VOID(cuda.get("cuModuleGetFunction", _VOID, cuda.load(ptx), kernel.encode()))
        blocks = per_sm or cuda.get("cuOccupancyMaxActiveBlocksPerMultiprocessor", _INT, self._function, THREADS, 0)
        self.grid *= max(blocks, 1)
        self._out = cuda.get("cuMemAlloc_v2", _PTR, self.grid * THREADS * 4)
        self._bad = cuda.get("cuMemAlloc_v2", _PTR, 4)
        cuda.call("cuMemsetD32Async", self._bad, 0, 1, self._stream)
        cuda.call("cuStreamSynchronize", self._stream)

    def _queue(self) -> None:
        values = (_PTR(self._out), _PTR(self._bad), _INT(self.iters), _UINT(self.launches))
        pointers = (_VOID * len(values))(*[c.cast(c.byref(v), _VOID) for v in values])
        self._cuda.call("cuLaunchKernel", self._function, self.grid, 1, 1, THREADS, 1, 1, 0, self._stream, pointers, None)

    def wrong(self) -> int:
        """Results so far that disagreed; waits for what is in flight."""
        self._cuda.call("cuStreamSynchronize", self._stream)
        word = _UINT()
        self._cuda.call("cuMemcpyDtoH_v2", c.byref(word), self._bad, 4)
        return word.value
