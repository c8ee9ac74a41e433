// x86 with AVX2 and FMA: eight floats wide, 6 rows x 16 codes in twelve of the sixteen registers.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,bmi,bmi2")
#include <immintrin.h>

#include <cstdint>

namespace tokenizers_vq {
namespace {

struct Float32;

struct Isa {
  typedef __m256 Vector;
  typedef __m256i Notes;
  static constexpr int kLanes = 8, kVectors = 2, kRows = 6;

  typedef __m256d Doubles;
  static constexpr int kDoubles = 4;
  static Doubles widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static double sum(const Doubles* lanes) {
    const __m256d four = lanes[0] + lanes[1];
    const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
    return two[0] + two[1];
  }

  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector load_words(const uint32_t* p) {
    return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vector broadcast_word(uint32_t word) {
    return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(word)));
  }
  static void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  static Vector subtract_product(const Float32&, Vector sum, Vector a, Vector b) {
    return _mm256_fnmadd_ps(a, b, sum);
  }
  static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  static unsigned not_greater(Vector a, float limit) {
    const Vector mask = _mm256_cmp_ps(a, _mm256_set1_ps(limit), _CMP_NGT_UQ);
    return static_cast<unsigned>(_mm256_movemask_ps(mask));
  }
  static Notes note(Notes notes, Vector a, float limit, int what) {
    const Vector hits = _mm256_cmp_ps(a, _mm256_set1_ps(limit), _CMP_NGT_UQ);
    return _mm256_add_epi32(
        notes, _mm256_and_si256(_mm256_castps_si256(hits), _mm256_set1_epi32(what)));
  }
  static unsigned at_least(Notes notes, int what) {
    const Notes hits = _mm256_cmpgt_epi32(notes, _mm256_set1_epi32(what - 1));
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(hits)));
  }
  static float reduce_min(Vector a) {
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
  }
  // Eight words of eight codes at a time, in registers.
  static void transpose8(const float* from, int64_t stride, float* to, int64_t to_stride) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + i * stride);
    for (int i = 0; i < 8; i += 2) {
      b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
      a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
      a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
      a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
      _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    }
  }
  static void transpose(const uint32_t* from, int64_t stride, int64_t words, uint32_t* to) {
    constexpr int codes = kLanes * kVectors;
    const float* source = reinterpret_cast<const float*>(from);
    int64_t w = 0;
    for (; w + 8 <= words; w += 8) {
      for (int j = 0; j < codes; j += 8) {
        transpose8(source + j * stride + w, stride, reinterpret_cast<float*>(to) + w * codes + j,
                   codes);
      }
    }
    for (; w < words; ++w) {
      for (int j = 0; j < codes; ++j) to[w * codes + j] = from[j * stride + w];
    }
  }
};

}  // namespace
}  // namespace tokenizers_vq

#include "search.h"

TOKENIZERS_VQ_DEFINE_KERNEL(avx2, Float32)
#endif
