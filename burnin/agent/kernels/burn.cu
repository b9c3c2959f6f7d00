// Load kernels of the burnin agent, for the CUDA driver API: no runtime, no library, loaded as PTX (compute_80: Ampere and later).
// `make kernels` compiles this file to burn.ptx beside it; the agent carries the PTX only.
//
// Every kernel has the same parameters:  (float *out, uint32_t *bad, int iters, uint32_t seed)
//   out    one word per thread, so that nothing can be optimised away
//   bad    counts results that disagree: independent chains fed with equal operands must end bit-identical
//   iters  length of the launch; the agent keeps it below 100 ms, so that a stop is a stop
#include <stdint.h>

#define CHAINS 8

// Tensor cores: bf16 m16n8k16, CHAINS independent accumulators per warp. The sign of A flips at every step, so that
// accumulators stay small and operands keep toggling: it is toggling that draws power.
extern "C" __global__ void __launch_bounds__(256) tensor_burn(float *out, uint32_t *bad, int iters, uint32_t seed) {
  uint32_t a[4], b[2];
  float c[CHAINS][4];
  const uint32_t lane = threadIdx.x & 31;
  for (int i = 0; i < 4; i++) {
    const uint32_t r = (lane * 4 + i + seed) * 2654435761u;
    a[i] = 0x3f803f80u | (r & 0x807f807fu);  // two bf16 of random sign in [1, 2)
  }
  for (int i = 0; i < 2; i++) {
    const uint32_t r = (lane * 2 + i + seed) * 2246822519u;
    b[i] = 0x3f803f80u | (r & 0x807f807fu);
  }
  for (int j = 0; j < CHAINS; j++)
    for (int i = 0; i < 4; i++) c[j][i] = 0.f;
#pragma unroll 1
  for (int it = 0; it < iters; it++) {
#pragma unroll
    for (int j = 0; j < CHAINS; j++)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
          : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    for (int i = 0; i < 4; i++) a[i] ^= 0x80008000u;
  }
  uint32_t word = 0, wrong = 0;
  for (int j = 0; j < CHAINS; j++)
    for (int i = 0; i < 4; i++) {
      word ^= __float_as_uint(c[j][i]) + j;
      wrong += __float_as_uint(c[j][i]) != __float_as_uint(c[0][i]);
    }
  if (wrong) atomicAdd(bad, wrong);
  out[blockIdx.x * blockDim.x + threadIdx.x] = __uint_as_float(word);
}

// FP32 pipes: CHAINS fused multiply-add chains, each twice; x <- 1 - x keeps toggling between two values.
extern "C" __global__ void __launch_bounds__(256) fma_burn(float *out, uint32_t *bad, int iters, uint32_t seed) {
  float x[2][CHAINS];
  const float start = ((threadIdx.x * 2654435761u + seed) >> 8) * (1.f / 16777216.f);
  for (int j = 0; j < CHAINS; j++) x[0][j] = x[1][j] = start + 0.125f * j;
  float minus = -1.f, one = 1.f;
  asm volatile("" : "+f"(minus), "+f"(one));  // keeps the compiler from folding the chains
#pragma unroll 1
  for (int it = 0; it < iters; it++)
#pragma unroll
    for (int k = 0; k < 8; k++)
#pragma unroll
      for (int j = 0; j < CHAINS; j++) {
        asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+f"(x[0][j]) : "f"(minus), "f"(one));
        asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+f"(x[1][j]) : "f"(minus), "f"(one));
      }
  uint32_t word = 0, wrong = 0;
  for (int j = 0; j < CHAINS; j++) {
    word ^= __float_as_uint(x[0][j]) + j;
    wrong += __float_as_uint(x[0][j]) != __float_as_uint(x[1][j]);
  }
  if (wrong) atomicAdd(bad, wrong);
  out[blockIdx.x * blockDim.x + threadIdx.x] = __uint_as_float(word);
}
