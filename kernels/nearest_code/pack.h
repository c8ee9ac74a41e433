// How a codebook is packed for one instruction set and filter, and the measure that decides.
// Included once per instruction set; see search.h.
#pragma once

#include <cmath>
#include <cstring>

#include "nearest_code.h"

namespace tokenizers_vq {
namespace {

// Largest values over the finite codes; they bound the error of every score.
struct Extent {
  double squared = 0;  // |c|^2
  double lost = 0;     // |c - rounded c|^2
};

constexpr int kSlice = 256;                   // words of a code that are transposed at a time
constexpr double kFloatEps = 0x1p-24;
constexpr double kFloatTiny = 0x1p-125;       // an operation may flush to zero below half of this

template <class T>
T smaller(T a, T b) { return b < a ? b : a; }
template <class T>
T larger(T a, T b) { return a < b ? b : a; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Adds term(a_d, b_d) in float64. Multiply and add round separately (the build forbids contraction),
// lane d mod 8 takes element d, and Isa::sum adds the lanes as ((0 + 4) + (2 + 6)) + ((1 + 5) +
// (3 + 7)), so that every instruction set and the torch reference add in the same order.
template <class Term>
inline double sum_terms(const float* a, const float* b, int64_t width, const Term& term) {
  typename Isa::Doubles lanes[8 / Isa::kDoubles] = {};
  auto add = [&](const float* p, const float* q) {
    for (int i = 0; i < 8; i += Isa::kDoubles) {
      lanes[i / Isa::kDoubles] += term(Isa::widen(p + i), Isa::widen(q + i));
    }
  };
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) add(a + d, b + d);
  if (d < width) {
    float p[8] = {}, q[8] = {};
    for (int i = 0; i < width - d; ++i) p[i] = a[d + i], q[i] = b[d + i];
    add(p, q);
  }
  return Isa::sum(lanes);
}

// The one measure that decides.
inline double measure(const float* a, const float* b, int64_t width) {
  typedef typename Isa::Doubles Doubles;
  return sum_terms(a, b, width, [](Doubles x, Doubles c) { return (x - c) * (x - c); });
}

// The same for inner products, negated so that the smallest wins here, too.
inline double measure_product(const float* a, const float* b, int64_t width) {
  typedef typename Isa::Doubles Doubles;
  return -sum_terms(a, b, width, [](Doubles x, Doubles c) { return x * c; });
}

inline double squared_length(const float* a, int64_t width) {
  return -measure_product(a, a, width);
}

inline bool finite(const float* a, int64_t width) {
  uint32_t bad = 0;
  for (int64_t d = 0; d < width; ++d) {
    uint32_t bits;
    memcpy(&bits, a + d, 4);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return !bad;
}

// What a filter multiplies: how the numbers of a row, less those of a centre if there is one, become
// 32-bit words, negated where that is asked for. Adds the squared length of the numbers to squared
// and returns that of what rounding removes. Bfloat16 has its own file.
struct Float32 {
  static constexpr int kPerWord = 1;
  static constexpr bool kCentred = false;
  static double stage(const float* from, const float*, int64_t width, bool, uint32_t* words,
                      double& squared) {
    memcpy(words, from, static_cast<size_t>(width) * 4);
    squared += squared_length(from, width);
    return 0;
  }
};

constexpr int kLanes = Isa::kLanes;
constexpr int kVectors = Isa::kVectors;
constexpr int kRows = Isa::kRows;
constexpr int kPanel = kLanes * kVectors;  // codes

// Writes a point amid the codes, the mean of about 256, and returns it, or null where none is used.
// Distances are the same seen from there, and coarse numbers lose a part of their size: from far
// away all codes would look alike.
template <class Filter>
const float* find_centre(const Codes& codes, float* to) {
  if (!Filter::kCentred || codes.product) return nullptr;
  for (int64_t d = 0; d < codes.width; ++d) to[d] = 0;
  const int64_t step = larger<int64_t>(codes.count / 256, 1);
  const float share = static_cast<float>(step) / static_cast<float>(codes.count);
  for (int64_t k = 0; k < codes.count; k += step) {
    const float* const code = codes.start + k * codes.stride;
    for (int64_t d = 0; d < codes.width; ++d) to[d] += share * code[d];
  }
  for (int64_t d = 0; d < codes.width; ++d) to[d] = to[d] - to[d] == 0 ? to[d] : 0;
  return to;
}

// Codes become [panel][word][code], so that the filter reads them as whole vectors.
template <class Filter>
class Packer {
 public:
  Packer(const Codes& codes, const float* centre)
      : codes_(codes), centre_(centre), words_(ceil_div(codes.width, Filter::kPerWord)) {}

  // Writes panels from `first` on; the largest lengths go to extent.
  void pack(int64_t first, int64_t panels, uint32_t* words, float* halves, Extent& extent) const {
    uint32_t stage[kPanel * kSlice];
    for (int64_t p = 0; p < panels; ++p) {
      pack_panel(first + p, stage, words + p * kPanel * words_, halves + p * kPanel, extent);
    }
  }

  static Packed* pack_all(const Codes& codes) {
    const int64_t panels = ceil_div(codes.count, kPanel);
    const int64_t words = ceil_div(codes.width, Filter::kPerWord);
    struct Context {
      const Packer* packer;
      Packed* packed;
      Extent* extents;
    };
    const Buffer extents(static_cast<size_t>(panels) * sizeof(Extent));
    Packed* packed = new Packed(panels * kPanel, words, codes.width);
    packed->centre = find_centre<Filter>(codes, packed->around.template as<float>());
    const Packer packer(codes, packed->centre);
    Context context{&packer, packed, extents.as<Extent>()};
    parallel(panels, [](int64_t begin, int64_t end, void* raw) {
      const Context& c = *static_cast<Context*>(raw);
      const int64_t words = c.packer->words_;
      for (int64_t p = begin; p < end; ++p) {
        c.extents[p] = Extent();
        c.packer->pack(p, 1, c.packed->words.template as<uint32_t>() + p * kPanel * words,
                       c.packed->halves.template as<float>() + p * kPanel, c.extents[p]);
      }
    }, &context);
    for (int64_t p = 0; p < panels; ++p) {
      packed->squared = larger(packed->squared, context.extents[p].squared);
      packed->lost = larger(packed->lost, context.extents[p].lost);
    }
    return packed;
  }

 private:
  const float* code(int64_t k) const { return codes_.start + k * codes_.stride; }

  // Whether code k equals its neighbour before it or code 0. The lowest index wins, so it never does:
  // left out, a codebook that has collapsed costs what any other costs, not every code measured.
  bool repeats(int64_t k) const {
    const size_t bytes = static_cast<size_t>(codes_.width) * 4;
    return k > 0 && (!memcmp(code(k), code(k - 1), bytes) || !memcmp(code(k), code(0), bytes));
  }

  void pack_panel(int64_t panel, uint32_t* stage, uint32_t* to, float* halves,
                  Extent& extent) const {
    bool usable[kPanel];
    double squared[kPanel] = {}, lost[kPanel] = {};
    for (int j = 0; j < kPanel; ++j) {
      const int64_t k = panel * kPanel + j;
      // Neither past the end, nor NaN or infinite, nor known to lose every tie.
      usable[j] = k < codes_.count && finite(code(k), codes_.width) && !repeats(k);
    }
    for (int64_t start = 0; start < words_; start += kSlice) {
      const int64_t size = smaller<int64_t>(kSlice, words_ - start);
      const int64_t first = start * Filter::kPerWord;
      const int64_t width = smaller(size * Filter::kPerWord, codes_.width - first);
      for (int j = 0; j < kPanel; ++j) {
        uint32_t* words = stage + j * kSlice;
        if (usable[j]) {
          const float* const from = code(panel * kPanel + j) + first;
          const float* const centre = centre_ ? centre_ + first : nullptr;
          lost[j] += Filter::stage(from, centre, width, false, words, squared[j]);
        } else {  // its score is infinite then, and never the smallest
          memset(words, 0, static_cast<size_t>(size) * 4);
        }
      }
      Isa::transpose(stage, kSlice, size, to + start * kPanel);
    }
    for (int j = 0; j < kPanel; ++j) {
      halves[j] = usable[j] ? static_cast<float>(codes_.product ? 0 : 0.5 * squared[j]) : INFINITY;
      if (!(squared[j] <= extent.squared)) extent.squared = squared[j];
      if (!(lost[j] <= extent.lost)) extent.lost = lost[j];
    }
  }

  const Codes& codes_;
  const float* const centre_;  // or null
  const int64_t words_;
};

}  // namespace
}  // namespace tokenizers_vq
