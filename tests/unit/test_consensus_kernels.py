"""The digest kernels compiled for this machine's processor, 256 threads in step, against the same arithmetic in numpy.

The tensor core's place is taken by a product that sums in the order of k; so the test proves which numbers are multiplied,
summed, folded and combined, not how a tensor core rounds.
"""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnin.agent import consensus

KERNELS = Path(consensus.__file__).parent / "kernels"
SHIM = """
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define STEPS 1
struct Dim { unsigned x; };
static thread_local Dim threadIdx;
static Dim blockIdx;
static std::barrier<> step(256);
static void __syncthreads() { step.arrive_and_wait(); }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static uint32_t __float_as_uint(float x) { uint32_t w; memcpy(&w, &x, 4); return w; }
static float bf16(uint32_t w, int half) { uint32_t v = half ? w & 0xffff0000u : w << 16; float x; memcpy(&x, &v, 4); return x; }
static uint64_t words[256];
static uint64_t __shfl_down_sync(uint32_t, uint64_t h, int off) {
  words[threadIdx.x] = h;
  __syncthreads();
  const unsigned from = (threadIdx.x & 31) + off < 32 ? threadIdx.x + off : threadIdx.x;
  const uint64_t got = words[from];
  __syncthreads();
  return got;
}
static uint32_t as[256][4], bs[256][2];
// PTX ISA, m16n8k16 with bf16: which lane's which register holds which element.
static void mma(float *c, const uint32_t *a, const uint32_t *b) {
  memcpy(as[threadIdx.x], a, 16);
  memcpy(bs[threadIdx.x], b, 8);
  __syncthreads();
  const int lane = threadIdx.x & 31, first = threadIdx.x - lane;
  for (int i = 0; i < 4; i++) {
    const int row = (lane >> 2) + (i >> 1) * 8, col = (lane & 3) * 2 + (i & 1);
    for (int k = 0; k < 16; k++)
      c[i] += bf16(as[first + (row & 7) * 4 + ((k & 7) >> 1)][(row >> 3) + 2 * (k >> 3)], k & 1) *
              bf16(bs[first + col * 4 + ((k & 7) >> 1)][k >> 3], k & 1);
  }
  __syncthreads();
}
static uint32_t sm_id() { return 7; }
#include KERNELS
extern "C" void tile(int gemm, unsigned number, uint64_t *digest, uint32_t *sm, int iters, uint32_t seed) {
  blockIdx.x = number;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 256; t++)
    threads.emplace_back([=] {
      threadIdx.x = t;
      (gemm ? gemm_digest : fma_digest)(digest, sm, iters, seed);
    });
  for (auto &thread : threads) thread.join();
}
"""
STEPS = 1
LOW, WORD = 0xFFFFFFFF, (1 << 64) - 1


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here: the kernels cannot be run on this processor")
    at = tmp_path_factory.mktemp("kernels")
    (at / "shim.cpp").write_text(SHIM)
    options = ["-std=c++20", "-shared", "-fPIC", "-O1", "-pthread", "-ffp-contract=off", "-Wno-unknown-pragmas"]
    define = f'-DKERNELS="{KERNELS / "consensus.cu"}"'
    command = ["g++", *options, define, "-o", str(at / "consensus.so"), str(at / "shim.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = c.CDLL(str(at / "consensus.so"))
    library.tile.argtypes = (c.c_int, c.c_uint, c.c_void_p, c.c_void_p, c.c_int, c.c_uint32)
    return library


def run(host: Any, kernel: str, tile: int, iters: int, seed: int) -> int:
    """One tile's digest; nothing else may be written."""
    digests, sms = np.zeros(8, np.uint64), np.zeros(8, np.uint32)
    host.tile(kernel == "gemm_digest", tile, digests.ctypes.data, sms.ctypes.data, iters, seed)
    assert np.flatnonzero(digests).tolist() == np.flatnonzero(sms).tolist() == [tile]
    assert sms[tile] == 7
    return int(digests[tile])


# ---------------------------------------------------------------- the same, written down a second time


def mix(x: int) -> int:
    x &= LOW
    x = (x ^ x >> 16) * 0x85EBCA6B & LOW
    x = (x ^ x >> 13) * 0xC2B2AE35 & LOW
    return x ^ x >> 16


def fold(h: int, word: int) -> int:
    h = (h ^ word) * 0x9E3779B97F4A7C15 & WORD
    return h ^ h >> 29


def block(threads: list[int]) -> int:
    """256 threads' words -> the tile's: lanes 16, 8, 4, 2, 1 apart, then warp after warp."""
    warps = []
    for first in range(0, 256, 32):
        lanes = threads[first : first + 32]
        for off in (16, 8, 4, 2, 1):
            lanes = [fold(lanes[i], lanes[i + off]) for i in range(off)]
        warps.append(lanes[0])
    h = warps[0]
    for other in warps[1:]:
        h = fold(h, other)
    return h


def bits(x: Any) -> list[int]:
    return [int(w) for w in np.asarray(x, np.float32).view(np.uint32).ravel()]


def gemm(tile: int, iters: int, seed: int) -> int:
    """A B^T of two matrices of bf16, 128 x 64 at a time, summed in float32 in the order of k."""
    number = mix(seed + tile * 2654435761)
    a, b = (np.array([0x3F803F80 | mix(number + 2 * i + which) & 0x807F807F for i in range(4096)], np.uint32) for which in (0, 1))

    def values(words: Any) -> Any:
        halves = np.stack([words << 16, words & 0xFFFF0000], axis=-1).astype(np.uint32)
        return halves.view(np.float32).reshape(128, 64)

    h = list(range(256))
    for it in range(iters):
        total = np.zeros((128, 128), np.float32)
        for step in range(STEPS):
            turn = mix(number ^ (it * STEPS + step))
            left, right = values(a ^ np.uint32(turn & 0x807F807F)), values(b ^ np.uint32(turn >> 7 & 0x807F807F))
            for k in range(64):
                total += np.outer(left[:, k], right[:, k])
        for thread in range(256):
            warp, lane = divmod(thread, 32)
            top, side = (warp >> 1) * 32 + (lane >> 2), (warp & 1) * 64 + (lane & 3) * 2
            own = [total[top + 16 * m + 8 * i, side + 8 * n : side + 8 * n + 2] for m in (0, 1) for n in range(8) for i in (0, 1)]
            for pair in own:
                high, low = bits(pair)
                h[thread] = fold(h[thread], high << 32 | low)
    return block(h)


def fma(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once: long double holds the exact sum of these operands."""
    wide = np.longdouble
    return (np.asarray(x, wide) * np.asarray(y, wide) + np.asarray(z, wide)).astype(np.float32)


def chains(tile: int, iters: int, seed: int) -> int:
    """x <- r x (1 - x), 2048 times side by side, and the tree that sums them."""
    number = mix(seed + tile * 2654435761)
    words = np.array([mix(number + i) for i in range(2048)], np.int64)
    x = (0.25 + (words >> 16) * (0.5 / 65536)).astype(np.float32)
    r = fma((words & 0xFFFF).astype(np.float32), np.float32(0.0625 / 65536), np.float32(3.90625))
    kept: Any = np.zeros(2048, np.uint32)
    for _ in range(iters):
        y = r * x
        x = fma(-y, x, y)
        kept = kept * np.uint32(0x9E3779B1) + x.view(np.uint32)
    kept = kept.reshape(256, 8)
    x = x.reshape(256, 8)
    total = np.zeros(256, np.float32)
    for j in range(8):
        total = fma(total, np.float32(0.5), x[:, j])
    for off in (128, 64, 32, 16, 8, 4, 2, 1):
        total[:off] = fma(total[:off], np.float32(0.75), total[off : 2 * off])
    h = list(range(256))
    for thread in range(256):
        for word in [*map(int, kept[thread]), *bits(total[:1])]:
            h[thread] = fold(h[thread], word)
    return block(h)


@pytest.mark.parametrize(("tile", "iters", "seed"), [(0, 1, 1), (5, 3, 0xDEADBEEF)])
def test_gemm_digest_is_the_digest_of_a_matrix_product(host: Any, tile: int, iters: int, seed: int) -> None:
    assert run(host, "gemm_digest", tile, iters, seed) == gemm(tile, iters, seed)


@pytest.mark.parametrize(("tile", "iters", "seed"), [(0, 1, 1), (3, 500, 0xDEADBEEF)])
def test_fma_digest_is_ieee_arithmetic(host: Any, tile: int, iters: int, seed: int) -> None:
    assert run(host, "fma_digest", tile, iters, seed) == chains(tile, iters, seed)


def test_operands_never_repeat() -> None:
    """What makes a chain worth its time: the map is chaotic, and stays where it is."""
    x, seen = np.full(1, 0.4, np.float32), set()
    for _ in range(1000):
        y = np.float32(3.95) * x
        x = fma(-y, x, y)
        seen.add(float(x[0]))
    assert len(seen) > 990
    assert 0 < min(seen) < 0.1 and 0.9 < max(seen) < 1
