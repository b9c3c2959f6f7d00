"""Matrix products by the tray's own libcublasLt, where there is one: the fastest kernel that NVIDIA has for a GPU.

Nothing is tuned: the library's heuristic is asked once, without split sums, its first answer is used to the end and told. What
comes out is held against the first product, bit by bit; a copy of it lies in the host's memory. Names and numbers are those of
cublasLt.h, the same since CUDA 11.
"""

from __future__ import annotations

import ctypes as c
import glob
import random
from typing import Any

from burnin.agent.cuda import Cuda, CudaError, Launches

_P, _VOID, _SIZE, _INT, _PTR = c.POINTER, c.c_void_p, c.c_size_t, c.c_int, c.c_uint64
NAMES = ("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so")
PLACES = (
    "/usr/local/cuda*/lib64/libcublasLt.so.1[0-9]",
    "/usr/libexec/datacenter-gpu-manager*/plugins/cuda*/libcublasLt.so.1[0-9]",
)
"""Where it stands when the loader does not know it: a toolkit, and DCGM."""
N = 8192
"""Rows and columns of each matrix; three of them are 384 MiB."""
WORKSPACE = 32 << 20
"""Bytes that the library may work in: what NVIDIA recommends from Hopper on."""
SLICES = 16
"""Parts of the product; one is compared each time that wrong results are counted."""
MOST = 1024
"""Products of one launch."""
_BF16, _FLOAT, _COMPUTE_FLOAT, _TRANSPOSE = 14, 0, 68, 1
_DESC_TRANSA, _PREF_WORKSPACE, _PREF_REDUCTION = 3, 1, 3
_CONFIG = {"algorithm": 0, "tile": 1, "stages": 6}
"""Word -> CUBLASLT_ALGO_CONFIG_*, all of them 32 bit."""


class Algorithm(c.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = [("data", c.c_uint64 * 8)]


class Heuristic(c.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [("algorithm", Algorithm), ("workspace", _SIZE), ("state", _INT), ("waves", c.c_float), ("reserved", _INT * 4)]


SYMBOLS: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_P(_VOID),),
    "cublasLtMatmulDescCreate": (_P(_VOID), _INT, _INT),
    "cublasLtMatmulDescSetAttribute": (_VOID, _INT, _VOID, _SIZE),
    "cublasLtMatrixLayoutCreate": (_P(_VOID), _INT, c.c_uint64, c.c_uint64, c.c_int64),
    "cublasLtMatmulPreferenceCreate": (_P(_VOID),),
    "cublasLtMatmulPreferenceSetAttribute": (_VOID, _INT, _VOID, _SIZE),
    "cublasLtMatmulAlgoGetHeuristic": (*[_VOID] * 7, _INT, _P(Heuristic), _P(_INT)),
    "cublasLtMatmulAlgoConfigGetAttribute": (_P(Algorithm), _INT, _VOID, _SIZE, _P(_SIZE)),
    "cublasLtMatmul": (
        _VOID, _VOID, _VOID, _PTR, _VOID, _PTR, _VOID, _VOID, _PTR, _VOID, _PTR, _VOID, _P(Algorithm), _PTR, _SIZE, _VOID
    ),
}  # fmt: skip


class LibraryError(RuntimeError):
    """The library is not there, lacks a symbol, refused a call, or has nothing for this GPU. The text is a sentence."""


def open_library() -> tuple[Any, str]:
    """The library as the loader finds it, or where it usually stands; and its name. Raises LibraryError."""
    first = ""
    for name in [*NAMES, *(path for place in PLACES for path in sorted(glob.glob(place), reverse=True))]:
        try:
            return c.CDLL(name), name
        except OSError as error:
            first = first or str(error)
    raise LibraryError(f"no libcublasLt: {first}")


def filling(seed: int) -> bytes:
    """A MiB of bf16 from 0.125 to 2 and of both signs: every bit of the mantissa changes, and no sum is endless."""
    chance = random.Random(seed)
    signs = bytes((0x3E, 0x3F, 0xBE, 0xBF)[n % 4] for n in range(256))
    out = bytearray(1 << 20)
    out[0::2] = chance.getrandbits(8 << 19).to_bytes(1 << 19, "little")
    out[1::2] = chance.getrandbits(8 << 19).to_bytes(1 << 19, "little").translate(signs)
    return bytes(out)


class Gemm(Launches):
    """Products of two matrices of `n` x `n` bf16, queued as a load's launches are. Raises LibraryError, CudaError.

    `said`: which library, version and algorithm. `n` is a multiple of 128.
    """

    def __init__(self, cuda: Cuda, device: int, library: Any, name: str, launch_ms: float, n: int = N) -> None:
        super().__init__(cuda, device, launch_ms)
        self._lib, self.iters, self._bytes = library, 1, 2 * n * n
        for symbol, args in SYMBOLS.items():
            function = getattr(library, symbol, None)
            if function is None:
                raise LibraryError(f"{name} has no {symbol}")
            function.argtypes, function.restype = args, _INT
        self._handle = self._made("cublasLtCreate")
        self._desc = self._made("cublasLtMatmulDescCreate", _COMPUTE_FLOAT, _FLOAT)
        self._set("cublasLtMatmulDescSetAttribute", self._desc, _DESC_TRANSA, _INT(_TRANSPOSE))
        self._layout = self._made("cublasLtMatrixLayoutCreate", _BF16, n, n, n)
        self._algorithm, self._needs = self._first()
        self._one, self._zero = c.c_float(1.0), c.c_float(0.0)
        self._a, self._b = (self._filled(seed) for seed in (1, 2))
        self._d = int(cuda.get("cuMemAlloc_v2", _PTR, self._bytes))
        self._room = int(cuda.get("cuMemAlloc_v2", _PTR, WORKSPACE))
        self.said = f"{name} {self._version()}, {self._told()}"
        self._bad, self._slice = 0, 0
        self._queue()
        self._expected = self._read(0, self._bytes)
        self._queue()
        self._bad += _differ(self._expected, self._read(0, self._bytes))

    # ---- the library

    def _call(self, name: str, *args: Any) -> None:
        code = getattr(self._lib, name)(*args)
        if code:
            raise LibraryError(f"{name} -> {code}")

    def _made(self, name: str, *args: Any) -> c.c_void_p:
        out = _VOID()
        self._call(name, c.byref(out), *args)
        return out

    def _set(self, name: str, of: c.c_void_p, which: int, value: Any) -> None:
        self._call(name, of, which, c.byref(value), c.sizeof(value))

    def _first(self) -> tuple[Algorithm, int]:
        """The heuristic's first answer, and the workspace it needs."""
        preference = self._made("cublasLtMatmulPreferenceCreate")
        self._set("cublasLtMatmulPreferenceSetAttribute", preference, _PREF_WORKSPACE, _SIZE(WORKSPACE))
        self._set("cublasLtMatmulPreferenceSetAttribute", preference, _PREF_REDUCTION, c.c_uint32(0))
        found, count = Heuristic(), _INT()
        same = [self._layout] * 4
        words = (self._handle, self._desc, *same, preference, 1, c.byref(found), c.byref(count))
        self._call("cublasLtMatmulAlgoGetHeuristic", *words)
        if count.value < 1 or found.state or found.workspace > WORKSPACE:
            raise LibraryError("the library has no algorithm for this GPU")
        return found.algorithm, int(found.workspace)

    def _told(self) -> str:
        words = []
        for word, which in _CONFIG.items():
            value, written = c.c_int32(), _SIZE()
            where = (c.byref(self._algorithm), which, c.byref(value), c.sizeof(value), c.byref(written))
            code = self._lib.cublasLtMatmulAlgoConfigGetAttribute(*where)
            words.append(f"{word} {'?' if code else value.value}")
        return " ".join(words)

    def _version(self) -> int:
        symbol = getattr(self._lib, "cublasLtGetVersion", None)
        if symbol is None:
            return 0
        symbol.argtypes, symbol.restype = (), _SIZE
        return int(symbol())

    # ---- memory

    def _filled(self, seed: int) -> int:
        at, data = int(self._cuda.get("cuMemAlloc_v2", _PTR, self._bytes)), filling(seed)
        for begin in range(0, self._bytes, len(data)):
            size = min(len(data), self._bytes - begin)
            self._cuda.call("cuMemcpyHtoDAsync_v2", at + begin, c.create_string_buffer(data[:size], size), size, self._stream)
            self._cuda.call("cuStreamSynchronize", self._stream)
        return at

    def _read(self, begin: int, size: int) -> bytes:
        """Of the product, after all that is queued."""
        self._cuda.call("cuStreamSynchronize", self._stream)
        out = c.create_string_buffer(size)
        self._cuda.call("cuMemcpyDtoH_v2", out, self._d + begin, size)
        return out.raw

    # ---- a load's

    def _queue(self) -> None:
        self.iters = min(self.iters, MOST)
        words = (
            self._handle, self._desc, c.byref(self._one), self._a, self._layout, self._b, self._layout, c.byref(self._zero),
            self._d, self._layout, self._d, self._layout, c.byref(self._algorithm), self._room, WORKSPACE, self._stream,
        )  # fmt: skip
        for _ in range(self.iters):
            code = self._lib.cublasLtMatmul(*words)
            if code:
                raise CudaError(f"cublasLtMatmul -> {code}")

    def wrong(self) -> int:
        """Words (4 bytes) so far that differed from the first product: each call looks at the next sixteenth of the last one."""
        size = self._bytes // SLICES
        begin = self._slice % SLICES * size
        self._bad += _differ(self._expected[begin : begin + size], self._read(begin, size))
        self._slice += 1
        return self._bad


def _differ(one: bytes, other: bytes) -> int:
    """How many words differ."""
    if one == other:
        return 0
    return sum(a != b for a, b in zip(memoryview(one).cast("I"), memoryview(other).cast("I")))
