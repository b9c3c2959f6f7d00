// Kernels whose digest is the same on every GPU of one compute capability, bit by bit (docs/consensus.md says why).
// Built like burn.cu. Parameters:  (uint64_t *digest, uint32_t *sm, int iters, uint32_t seed)
//   digest  one word per tile; a tile is a block, and what it computes depends on seed, iters and its number only
//   sm      which multiprocessor computed the tile: to find the bad one, no part of the digest
//   iters   how much is computed per tile; it changes the digest
// Nothing here may depend on grid size, SM count, clock or timing; no atomics, no branches on data, every rounding stated.
#include <stdint.h>

#define PANEL 36  // words of a row of 64 bf16 in shared memory: 32, and 4 so that fragment loads hit all banks
#ifndef STEPS
#define STEPS 32  // steps of K = 64 between two digests: the longer the sum, the larger an error must be to stay in it
#endif
#define CHAINS 8

#ifdef __CUDACC__  // a test compiles the rest for its own processor
__device__ __forceinline__ void mma(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t sm_id() {
  uint32_t id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  return id;
}
#endif

__device__ __forceinline__ uint32_t mix(uint32_t x) {  // bijective; every input bit reaches every output bit
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

__device__ __forceinline__ uint64_t fold(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0x9e3779b97f4a7c15ull;
  return h ^ (h >> 29);
}

// The block's digest from its threads', in the order of lanes, then warps; thread 0 writes it.
__device__ __forceinline__ void close(uint64_t *digest, uint32_t *sm, uint64_t h) {
  __shared__ uint64_t warps[8];
#pragma unroll
  for (int off = 16; off; off >>= 1) h = fold(h, __shfl_down_sync(0xffffffffu, h, off));
  if ((threadIdx.x & 31) == 0) warps[threadIdx.x >> 5] = h;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < 8; i++) h = fold(h, warps[i]);
  digest[blockIdx.x] = h;
  sm[blockIdx.x] = sm_id();
}

// Tensor cores: a tile is 128 x 128 of bf16 x bf16 -> fp32, `iters` times K = 2048, digested each time. Panels of 64 columns
// lie in shared memory; at every step other signs and mantissas are made of them. 8 warps, 32 x 64 results each.
extern "C" __global__ void __launch_bounds__(256, 2) gemm_digest(uint64_t *digest, uint32_t *sm, int iters, uint32_t seed) {
  __shared__ uint32_t a[128 * PANEL], b[128 * PANEL];
  const uint32_t tile = mix(seed + blockIdx.x * 2654435761u);
  for (uint32_t i = threadIdx.x; i < 128 * 32; i += 256) {  // two bf16 of any sign in [1, 2) per word
    a[(i >> 5) * PANEL + (i & 31)] = 0x3f803f80u | (mix(tile + 2 * i) & 0x807f807fu);
    b[(i >> 5) * PANEL + (i & 31)] = 0x3f803f80u | (mix(tile + 2 * i + 1) & 0x807f807fu);
  }
  __syncthreads();
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = lane >> 2, word = lane & 3;
  const uint32_t *const ap = a + ((warp >> 1) * 32 + row) * PANEL + word, *const bp = b + ((warp & 1) * 64 + row) * PANEL + word;
  uint64_t h = threadIdx.x;
#pragma unroll 1
  for (int it = 0; it < iters; it++) {
    float c[2][8][4];
#pragma unroll
    for (int i = 0; i < 64; i++) c[i >> 5][i >> 2 & 7][i & 3] = 0.f;
#pragma unroll 1
    for (int step = 0; step < STEPS; step++) {
      const uint32_t turn = mix(tile ^ (it * STEPS + step)), fa = turn & 0x807f807fu, fb = turn >> 7 & 0x807f807fu;
#pragma unroll 1  // four times the code would be no faster, and the agent must stay small
      for (int k = 0; k < 32; k += 8) {
        uint32_t x[2][4];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i >> 2][i & 3] = ap[((i >> 2) * 16 + (i & 1) * 8) * PANEL + k + (i >> 1 & 1) * 4] ^ fa;
#pragma unroll
        for (int n = 0; n < 8; n++) {
          const uint32_t y[2] = {bp[n * 8 * PANEL + k] ^ fb, bp[n * 8 * PANEL + k + 4] ^ fb};
#pragma unroll
          for (int m = 0; m < 2; m++) mma(c[m][n], x[m], y);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 64; i += 2)
      h = fold(h, (uint64_t)__float_as_uint(c[i >> 5][i >> 2 & 7][i & 3]) << 32 |
                      __float_as_uint(c[i >> 5][i >> 2 & 7][(i & 3) + 1]));
  }
  close(digest, sm, h);
}

// FP32 pipes: chains of x <- r x (1 - x), one product and one fused multiply-add each. The map is chaotic, so that operands
// never repeat; but an error of a last bit may be rounded away, so every x enters an integer that forgets nothing. IEEE 754
// says every bit: this digest is one for all GPUs. At the end the chains of a tile are summed through shared memory.
extern "C" __global__ void __launch_bounds__(256) fma_digest(uint64_t *digest, uint32_t *sm, int iters, uint32_t seed) {
  __shared__ float sum[256];
  const uint32_t tile = mix(seed + blockIdx.x * 2654435761u);
  float x[CHAINS], r[CHAINS];
  uint32_t kept[CHAINS];
#pragma unroll
  for (int j = 0; j < CHAINS; j++) {
    const uint32_t w = mix(tile + threadIdx.x * CHAINS + j);
    x[j] = __fmaf_rn((float)(w >> 16), 0.5f / 65536.f, 0.25f);             // in [0.25, 0.75): the product is exact
    r[j] = __fmaf_rn((float)(w & 0xffffu), 0.0625f / 65536.f, 3.90625f);   // in [3.906, 3.969)
    kept[j] = 0;
  }
#pragma unroll 1
  for (int it = 0; it < iters; it++)
#pragma unroll
    for (int j = 0; j < CHAINS; j++) {
      const float y = __fmul_rn(r[j], x[j]);
      x[j] = __fmaf_rn(-y, x[j], y);
      kept[j] = kept[j] * 0x9e3779b1u + __float_as_uint(x[j]);
    }
  uint64_t h = threadIdx.x;
  float total = 0.f;
#pragma unroll
  for (int j = 0; j < CHAINS; j++) {
    h = fold(h, kept[j]);
    total = __fmaf_rn(total, 0.5f, x[j]);
  }
  sum[threadIdx.x] = total;
  for (int off = 128; off; off >>= 1) {
    __syncthreads();
    if (threadIdx.x < off) sum[threadIdx.x] = __fmaf_rn(sum[threadIdx.x], 0.75f, sum[threadIdx.x + off]);
  }
  __syncthreads();
  close(digest, sm, fold(h, __float_as_uint(sum[0])));
}
