// The tensor burn in Hopper's own instruction (wgmma), for compute capability 9.0 only; where it cannot be used, burn.cu's is.
// `make kernels` compiles it to burn_sm90a.ptx. Parameters and promises are those of burn.cu.
//
// A comes from registers, B from shared memory, all of which is filled, so that results do not depend on the layout that the
// hardware takes B for. Two accumulators are fed with equal operands and must end bit-identical. The sign of A flips from
// panel to panel, so that sums stay small and operands keep toggling.
#include <stdint.h>

#define PANELS 4
#define PANEL 4096  // bytes: 128 columns x 16 rows of bf16, as core matrices of 8 x 16 bytes

#define F8(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define F32(c, i) F8(c, i), F8(c, i + 8), F8(c, i + 16), F8(c, i + 24)

__device__ __forceinline__ void wgmma(float *c, const uint32_t *a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
      "%62,%63},{%64,%65,%66,%67},%68,1,1,1,0;"
      : F32(c, 0), F32(c, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

extern "C" __global__ void __launch_bounds__(256, 1) tensor_burn(float *out, uint32_t *bad, int iters, uint32_t seed) {
  __shared__ __align__(128) uint32_t b[PANELS * PANEL / 4];
  for (uint32_t i = threadIdx.x; i < PANELS * PANEL / 4; i += 256) {  // two bf16 of random sign in [1, 2) per word
    const uint32_t r = (i + seed) * 2246822519u;
    b[i] = 0x3f803f80u | ((r ^ r >> 15) & 0x807f807fu);
  }
  uint32_t a[2][4];
  for (int i = 0; i < 4; i++) {
    const uint32_t r = ((threadIdx.x & 127) * 4 + i + seed) * 2654435761u;
    a[0][i] = 0x3f803f80u | ((r ^ r >> 15) & 0x807f807fu);
    a[1][i] = a[0][i] ^ 0x80008000u;
  }
  float c[2][64];
#pragma unroll
  for (int i = 0; i < 64; i++) c[0][i] = c[1][i] = 0.f;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  // start / 16, then bytes / 16 to the next core matrix along K (128) and along N (256); no swizzle
  const uint64_t at = (uint64_t)(((uint32_t)__cvta_generic_to_shared(b) & 0x3ffff) >> 4) | 8ull << 16 | 16ull << 32;
#pragma unroll 1
  for (int it = 0; it < iters; it++) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 2 * PANELS; k++)  // each panel once with A, once with -A
#pragma unroll
      for (int j = 0; j < 2; j++) wgmma(c[j], a[(k ^ k / PANELS) & 1], at + k % PANELS * (PANEL / 16));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  uint32_t word = 0, wrong = 0;
#pragma unroll
  for (int i = 0; i < 64; i++) {
    word ^= __float_as_uint(c[0][i]) + i;
    wrong += __float_as_uint(c[0][i]) != __float_as_uint(c[1][i]);
  }
  if (wrong) atomicAdd(bad, wrong);
  out[blockIdx.x * blockDim.x + threadIdx.x] = __uint_as_float(word);
}
