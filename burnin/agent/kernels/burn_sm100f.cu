// The tensor burn in Blackwell's own instruction (tcgen05), for compute capabilities 10.0 and 10.3 (GB200, GB300); where it cannot
// be used, burn.cu's is. `make kernels` compiles it to burn_sm100f.ptx. Parameters and promises are those of burn.cu.
//
// One thread launches products of 128 x 256 x 16 into two accumulators in tensor memory, with equal operands from shared memory,
// all of which is filled, so that results do not depend on the layout that the hardware takes them for. The accumulators must end
// bit-identical. The sign of A flips from panel to panel, so that sums stay small and operands keep toggling.
#include <stdint.h>

#define PANELS 3
#define PANEL_A 4096  // bytes: 128 rows x 16 of bf16
#define PANEL_B 8192  // bytes: 256 columns x 16 of bf16
#define WAIT 4000000000ll  // clocks, about 2 s: what never ends is an error, not a hang

__device__ __forceinline__ uint64_t matrix(const void *p) {  // start / 16, 128 and 256 bytes between core matrices, version 1
  return (uint64_t)(((uint32_t)__cvta_generic_to_shared(p) & 0x3ffff) >> 4) | 8ull << 16 | 16ull << 32 | 1ull << 46;
}

__device__ __forceinline__ void mma(uint32_t d, uint64_t a, uint64_t b, uint32_t how, uint32_t add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %4, 0; tcgen05.mma.cta_group::1.kind::f16 [%0], %1, %2, %3, p; }" ::"r"(d), "l"(a), "l"(b),
      "r"(how), "r"(add)
      : "memory");
}

__device__ __forceinline__ void wait(uint32_t barrier, uint32_t phase) {
  const long long begin = clock64();
  uint32_t done = 0;
  while (!done) {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
        : "memory");
    if (clock64() - begin > WAIT) __trap();
  }
}

#define L8(w, i) "=r"(w[i]), "=r"(w[i + 1]), "=r"(w[i + 2]), "=r"(w[i + 3]), "=r"(w[i + 4]), "=r"(w[i + 5]), "=r"(w[i + 6]), "=r"(w[i + 7])

__device__ __forceinline__ void load(uint32_t *w, uint32_t from) {  // 16 columns of this warp's 32 lanes
  asm volatile("tcgen05.ld.sync.aligned.32x32b.x16.b32 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, [%16];"
               : L8(w, 0), L8(w, 8)
               : "r"(from));
}

extern "C" __global__ void __launch_bounds__(256, 1) tensor_burn(float *out, uint32_t *bad, int iters, uint32_t seed) {
  __shared__ __align__(128) uint32_t a[PANELS * PANEL_A / 4], b[PANELS * PANEL_B / 4];
  __shared__ __align__(8) uint64_t barrier[2];
  __shared__ uint32_t base;
  const uint32_t warp = threadIdx.x >> 5, bar = (uint32_t)__cvta_generic_to_shared(barrier);
  for (uint32_t i = threadIdx.x; i < PANELS * PANEL_B / 4; i += 256) {  // two bf16 of random sign in [1, 2) per word
    const uint32_t r = (i + seed) * 2246822519u, s = (i + seed) * 2654435761u;
    b[i] = 0x3f803f80u | ((r ^ r >> 15) & 0x807f807fu);
    if (i < PANELS * PANEL_A / 4) a[i] = 0x3f803f80u | ((s ^ s >> 15) & 0x807f807fu);
  }
  if (threadIdx.x < 2) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar + 8 * threadIdx.x) : "memory");
  if (warp == 0) {  // all 512 columns: another block of this SM waits here until this one is done
    asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], 512;" ::"r"((uint32_t)__cvta_generic_to_shared(&base))
                 : "memory");
    asm volatile("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;");
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
  __syncthreads();
  asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
  const uint32_t tmem = base;
  if (threadIdx.x == 0) {
    // f32 += bf16 x bf16, both K-major, N 256, M 128; bit 13 negates A
    const uint32_t how = 1u << 4 | 1u << 7 | 1u << 10 | (256u >> 3) << 17 | (128u >> 4) << 24;
    const uint64_t at_a = matrix(a), at_b = matrix(b);
#pragma unroll 1
    for (int it = 0; it < iters; it++) {  // two batches in flight
      if (it > 1) wait(bar + 8 * (it & 1), (it >> 1) - 1 & 1);
#pragma unroll 1
      for (int k = 0; k < 2 * PANELS; k++)
#pragma unroll
        for (int j = 0; j < 2; j++)
          mma(tmem + 256 * j, at_a + k % PANELS * (PANEL_A / 16), at_b + k % PANELS * (PANEL_B / 16), how | (k & 1) << 13, it | k);
      asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(bar + 8 * (it & 1)) : "memory");
    }
    for (int it = iters > 1 ? iters - 2 : 0; it < iters; it++) wait(bar + 8 * (it & 1), it >> 1 & 1);
  }
  asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
  __syncthreads();
  asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
  uint32_t word = 0, wrong = 0;
  if (iters > 0) {  // a warp reads the 32 lanes of its place among four; the two fours share the columns
    const uint32_t lanes = tmem + ((warp & 3) << 21), half = (warp >> 2) * 128;
#pragma unroll 1
    for (uint32_t col = half; col < half + 128; col += 16) {
      uint32_t one[16], two[16];
      load(one, lanes + col);
      load(two, lanes + 256 + col);
      asm volatile("tcgen05.wait::ld.sync.aligned;" ::: "memory");
#pragma unroll
      for (int i = 0; i < 16; i++) {
        word ^= one[i] + col + i;
        wrong += one[i] != two[i];
      }
    }
  }
  if (wrong) atomicAdd(bad, wrong);
  out[blockIdx.x * blockDim.x + threadIdx.x] = __uint_as_float(word);
  asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
  __syncthreads();
  if (warp == 0) asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, 512;" ::"r"(tmem));
}
