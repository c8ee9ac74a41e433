// x86 with AVX-512: sixteen floats wide, 6 rows x 64 codes in 24 of the 32 registers.
#include <immintrin.h>

#include <cstdint>

namespace tokenizers_vq {
namespace {

struct Float32;
struct Bfloat16;

struct Isa {
  typedef __m512 Vector;
  typedef __m512i Notes;
  static constexpr int kLanes = 16, kVectors = 4, kRows = 6;

  typedef __m512d Doubles;
  static constexpr int kDoubles = 8;
  static Doubles widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static double sum(const Doubles* lanes) {
    const __m256d four =
        _mm512_castpd512_pd256(lanes[0]) + _mm512_extractf64x4_pd(lanes[0], 1);
    const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
    return two[0] + two[1];
  }

  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector load_words(const uint32_t* p) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
  }
  static Vector broadcast_word(uint32_t word) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(word)));
  }
  static void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static Vector subtract_product(const Float32&, Vector sum, Vector a, Vector b) {
    return _mm512_fnmadd_ps(a, b, sum);
  }
#if defined(TOKENIZERS_VQ_BF16)
  static Vector subtract_product(const Bfloat16&, Vector sum, Vector a, Vector b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);  // a is packed with its sign turned
  }
#endif
  static Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
  // In a general register at once: GCC 12 at -O1 stores 16 bits of a mask and reads 32 of them.
  static unsigned bits(__mmask16 mask) {
    unsigned all = mask;
    __asm__("" : "+r"(all));
    return all;
  }
  static unsigned not_greater(Vector a, float limit) {
    return bits(_mm512_cmp_ps_mask(a, _mm512_set1_ps(limit), _CMP_NGT_UQ));
  }
  static Notes note(Notes notes, Vector a, float limit, int what) {
    const __mmask16 hits = _mm512_cmp_ps_mask(a, _mm512_set1_ps(limit), _CMP_NGT_UQ);
    return _mm512_mask_add_epi32(notes, hits, notes, _mm512_set1_epi32(what));
  }
  static unsigned at_least(Notes notes, int what) {
    return bits(_mm512_cmp_epi32_mask(notes, _mm512_set1_epi32(what), _MM_CMPINT_NLT));
  }
  static float reduce_min(Vector a) { return _mm512_reduce_min_ps(a); }

  // Sixteen words of sixteen codes at a time, in registers: pairs, quadruples, then 128-bit parts.
  static void transpose16(const uint32_t* from, int64_t stride, uint32_t* to, int64_t to_stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i even = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
      const __m512i odd = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
      const __m512i even2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
      const __m512i odd2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
      _mm512_storeu_si512(to + i * to_stride, _mm512_shuffle_i32x4(even, even2, 0x88));
      _mm512_storeu_si512(to + (i + 4) * to_stride, _mm512_shuffle_i32x4(odd, odd2, 0x88));
      _mm512_storeu_si512(to + (i + 8) * to_stride, _mm512_shuffle_i32x4(even, even2, 0xdd));
      _mm512_storeu_si512(to + (i + 12) * to_stride, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
  }
  static void transpose(const uint32_t* from, int64_t stride, int64_t words, uint32_t* to) {
    constexpr int codes = kLanes * kVectors;
    int64_t w = 0;
    for (; w + 16 <= words; w += 16) {
      for (int j = 0; j < codes; j += 16) {
        transpose16(from + j * stride + w, stride, to + w * codes + j, codes);
      }
    }
    for (; w < words; ++w) {
      for (int j = 0; j < codes; ++j) to[w * codes + j] = from[j * stride + w];
    }
  }
};

}  // namespace
}  // namespace tokenizers_vq
