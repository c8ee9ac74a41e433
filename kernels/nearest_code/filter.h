// Scores of a tile of rows against panels of codes. Included once per instruction set; see search.h.
#pragma once

#include "pack.h"

namespace tokenizers_vq {
namespace {

// kRows rows against kVectors vectors of codes, all scores in registers. Only the smallest score
// per row and lane leaves them, without a branch: a branch per row costs a third of the speed.
template <class Filter, int kWords>
inline __attribute__((always_inline)) void filter_tile(const uint32_t* x, const uint32_t* codes,
                                                       const float* halves, int64_t width,
                                                       float* minima) {
  const int64_t words = kWords ? kWords : width;
  typename Isa::Vector score[kRows][kVectors];
#pragma GCC unroll 16
  for (int q = 0; q < kVectors; ++q) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) score[r][q] = Isa::load(halves + q * kLanes);
  }
#pragma GCC unroll 2
  for (int64_t w = 0; w < words; ++w) {
    typename Isa::Vector c[kVectors];
#pragma GCC unroll 16
    for (int q = 0; q < kVectors; ++q) c[q] = Isa::load_words(codes + w * kPanel + q * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename Isa::Vector v = Isa::broadcast_word(x[w * kRows + r]);
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) {
        score[r][q] = Isa::subtract_product(Filter{}, score[r][q], v, c[q]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    typename Isa::Vector m = score[r][0];
#pragma GCC unroll 16
    for (int q = 1; q < kVectors; ++q) m = Isa::min(m, score[r][q]);
    Isa::store(minima + r * kLanes, m);
  }
}

template <class Filter, int kWords>
__attribute__((noinline)) void filter_panels(const uint32_t* x, const uint32_t* codes,
                                             const float* halves, int64_t words, int64_t panels,
                                             float* minima) {
  for (int64_t p = 0; p < panels; ++p) {
    filter_tile<Filter, kWords>(x, codes + p * kPanel * words, halves + p * kPanel, words,
                                minima + p * kRows * kLanes);
  }
}

// Writes the minima [panel][row][lane] of one tile. The common widths get their own loop: a trip
// count the compiler knows is unrolled whole.
template <class Filter>
void filter(const uint32_t* x, const uint32_t* codes, const float* halves, int64_t words,
            int64_t panels, float* minima) {
  switch (words) {
    case 4: return filter_panels<Filter, 4>(x, codes, halves, words, panels, minima);
    case 8: return filter_panels<Filter, 8>(x, codes, halves, words, panels, minima);
    case 16: return filter_panels<Filter, 16>(x, codes, halves, words, panels, minima);
    default: return filter_panels<Filter, 0>(x, codes, halves, words, panels, minima);
  }
}

}  // namespace
}  // namespace tokenizers_vq
