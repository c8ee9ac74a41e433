// AVX-512 with products of bfloat16, two per lane: a coarser filter, the same answers.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma,bmi,bmi2")
#define TOKENIZERS_VQ_BF16
#include "avx512.h"

namespace tokenizers_vq {
namespace {

struct Bfloat16 {
  static constexpr int kPerWord = 2;
  static constexpr bool kCentred = true;

  // Rounds to nearest, ties to even; subnormal numbers become zero as in VDPBF16PS itself.
  static double stage(const float* from, const float* centre, int64_t width, bool negate,
                      uint32_t* words, double& squared) {
    const __m256i sign = _mm256_set1_epi16(negate ? static_cast<int16_t>(0x8000) : 0);
    __m512d length = _mm512_setzero_pd(), lost = _mm512_setzero_pd();
    for (int64_t d = 0; d < width; d += 16) {
      const int64_t rest = width - d;
      const __mmask16 here = static_cast<__mmask16>(rest < 16 ? (1 << rest) - 1 : 0xffff);
      const __mmask8 pairs = static_cast<__mmask8>(rest < 16 ? (1 << (rest + 1) / 2) - 1 : 0xff);
      __m512 v = _mm512_maskz_loadu_ps(here, from + d);
      if (centre) v = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(here, centre + d));
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(v);
      const __m512i kept = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
      length = add_squares(length, v);
      lost = add_squares(lost, _mm512_sub_ps(v, _mm512_castsi512_ps(kept)));  // exact
      _mm256_mask_storeu_epi32(words + d / 2, pairs, _mm256_xor_si256(rounded, sign));
    }
    squared += _mm512_reduce_add_pd(length);
    return _mm512_reduce_add_pd(lost);
  }

  static __m512d add_squares(__m512d sum, __m512 v) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    return _mm512_fmadd_pd(high, high, _mm512_fmadd_pd(low, low, sum));
  }
};

}  // namespace
}  // namespace tokenizers_vq

#include "search.h"

TOKENIZERS_VQ_DEFINE_KERNEL(avx512_bf16, Bfloat16)
#endif
