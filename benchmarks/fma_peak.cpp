// The most float32 multiply-adds that one core does here: twelve independent chains in registers.
#include <immintrin.h>

#define PEAK(name, isa, Vector, set, fma, add, lanes)                                       \
  extern "C" __attribute__((target(isa))) double name(long rounds) {                        \
    Vector sum[12], a = set(1.0f), b = set(1e-9f);                                           \
    for (int i = 0; i < 12; ++i) sum[i] = set(static_cast<float>(i));                        \
    for (long r = 0; r < rounds; ++r) {                                                      \
      _Pragma("GCC unroll 12") for (int i = 0; i < 12; ++i) sum[i] = fma(a, b, sum[i]);      \
      __asm__ volatile("" : "+v"(a), "+v"(b));                                               \
    }                                                                                        \
    for (int i = 1; i < 12; ++i) sum[0] = add(sum[0], sum[i]);                               \
    float first[lanes];                                                                      \
    __builtin_memcpy(first, &sum[0], sizeof first);                                          \
    return static_cast<double>(first[0]);                                                    \
  }

PEAK(fma_peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, 8)
PEAK(fma_peak_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, 16)
