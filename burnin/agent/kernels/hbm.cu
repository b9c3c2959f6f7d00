// Patterns through all device memory. Built like burn.cu. A word's index is its address / 4: what it must hold follows from
// its own address, so that a word that answers for another one is seen.
//   kind 0  `seed` everywhere                                        moving inversions
//   kind 1  `seed` rotated left by the index's lowest five bits      walking ones and zeros
//   kind 2  a hash of index and seed                                 random, with the address in it
#include <stdint.h>

#define FIRST 16  // mismatches that are told with address; all are counted

__device__ __forceinline__ uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

__device__ __forceinline__ uint32_t pattern(uint32_t kind, uint32_t seed, uint64_t i) {
  if (kind == 0) return seed;
  if (kind == 1) return seed << (i & 31) | seed >> ((32 - (i & 31)) & 31);
  return mix((uint32_t)i ^ seed) + (uint32_t)(i >> 32) * 0x9e3779b9u;
}

// Fill `words` words (a multiple of 4) from `base` on.
extern "C" __global__ void __launch_bounds__(256) hbm_write(uint32_t *base, uint64_t words, uint32_t kind, uint32_t seed) {
  const uint64_t all = words / 4, stride = (uint64_t)gridDim.x * blockDim.x, index = (uint64_t)base / 4;
  uint4 *const at = (uint4 *)base;
  for (uint64_t v = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; v < all; v += stride) {
    const uint64_t i = index + 4 * v;
    at[v] = make_uint4(pattern(kind, seed, i), pattern(kind, seed, i + 1), pattern(kind, seed, i + 2), pattern(kind, seed, i + 3));
  }
}

__device__ void note(uint64_t *report, uint64_t i, uint32_t expected, uint32_t actual) {
  atomicAdd((unsigned long long *)report, 1ull);
  const uint64_t n = atomicAdd((unsigned long long *)report + 1, 1ull);
  if (n >= FIRST) return;
  report[2 + 2 * n] = i * 4;
  report[3 + 2 * n] = (uint64_t)expected << 32 | actual;
}

// Compare with (kind, seed), and then, if `flags` has bit 0, write (next_kind, next_seed) at once; bit 1: from the last word
// down. report: mismatches, how many were offered to be told, then FIRST pairs of (address, expected << 32 | actual).
extern "C" __global__ void __launch_bounds__(256)
    hbm_step(uint32_t *base, uint64_t words, uint32_t kind, uint32_t seed, uint64_t *report, uint32_t next_kind, uint32_t next_seed,
             uint32_t flags) {
  const uint64_t all = words / 4, stride = (uint64_t)gridDim.x * blockDim.x, index = (uint64_t)base / 4;
  uint4 *const at = (uint4 *)base;
  for (uint64_t n = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; n < all; n += stride) {
    const uint64_t v = flags & 2 ? all - 1 - n : n, i = index + 4 * v;
    const uint4 got = at[v];
    const uint32_t want[4] = {pattern(kind, seed, i), pattern(kind, seed, i + 1), pattern(kind, seed, i + 2), pattern(kind, seed, i + 3)};
    if (got.x != want[0]) note(report, i, want[0], got.x);
    if (got.y != want[1]) note(report, i + 1, want[1], got.y);
    if (got.z != want[2]) note(report, i + 2, want[2], got.z);
    if (got.w != want[3]) note(report, i + 3, want[3], got.w);
    if (flags & 1)
      at[v] = make_uint4(pattern(next_kind, next_seed, i), pattern(next_kind, next_seed, i + 1), pattern(next_kind, next_seed, i + 2),
                         pattern(next_kind, next_seed, i + 3));
  }
}
