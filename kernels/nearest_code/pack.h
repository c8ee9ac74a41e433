// How a codebook is packed for one instruction set and filter, and the measure that decides.
// Included once per instruction set; see search.h.
#pragma once

#include <cmath>
#include <cstring>

#include "nearest_code.h"

namespace tokenizers_vq {
namespace {

typedef float Float8 __attribute__((vector_size(32)));
typedef double Double8 __attribute__((vector_size(64)));

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

inline Double8 load_double8(const float* from) {
  Float8 v;
  memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, Double8);
}

// Adds halves, in registers: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
inline double sum_lanes(const Double8& v) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TOKENIZERS_VQ_SHUFFLE
#endif
#endif
#ifdef TOKENIZERS_VQ_SHUFFLE
  const auto four = __builtin_shufflevector(v, v, 0, 1, 2, 3) +
                    __builtin_shufflevector(v, v, 4, 5, 6, 7);
  const auto two = __builtin_shufflevector(four, four, 0, 1) +
                   __builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
#else
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

// The one measure that decides. Multiply and add round separately (the build forbids contraction),
// and lane d mod 8 takes element d, so that the torch reference can add in the same order.
inline double measure(const float* a, const float* b, int64_t width) {
  Double8 sum = {};
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) {
    const Double8 e = load_double8(a + d) - load_double8(b + d);
    sum += e * e;
  }
  for (int64_t tail = d; tail < width; ++tail) {
    const double e = static_cast<double>(a[tail]) - static_cast<double>(b[tail]);
    sum[tail - d] += e * e;
  }
  return sum_lanes(sum);
}

// The same for inner products, negated so that the smallest wins here, too.
inline double measure_product(const float* a, const float* b, int64_t width) {
  Double8 sum = {};
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) sum += load_double8(a + d) * load_double8(b + d);
  for (int64_t tail = d; tail < width; ++tail) {
    sum[tail - d] += static_cast<double>(a[tail]) * static_cast<double>(b[tail]);
  }
  return -sum_lanes(sum);
}

inline double squared_length(const float* a, int64_t width) {
  Double8 sum = {};
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) {
    const Double8 v = load_double8(a + d);
    sum += v * v;
  }
  double rest = 0;
  for (; d < width; ++d) rest += static_cast<double>(a[d]) * a[d];
  return sum_lanes(sum) + rest;
}

// What one filter multiplies: how numbers become 32-bit words, and what that loses.
struct Float32 {
  static constexpr int kPerWord = 1;
  static double stage(const float* from, int64_t width, bool, uint32_t* words) {
    memcpy(words, from, static_cast<size_t>(width) * 4);
    return 0;
  }
};

struct Bfloat16 {
  static constexpr int kPerWord = 2;

  // Round to nearest, ties to even. Subnormal numbers become zero as in VDPBF16PS itself.
  static uint32_t round(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if ((bits & 0x7f800000u) == 0) return 0;
    return (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  }
  static double lost(float v, uint32_t rounded) {
    const uint32_t bits = rounded << 16;
    float kept;
    memcpy(&kept, &bits, 4);
    const double e = static_cast<double>(v) - static_cast<double>(kept);
    return e * e;
  }
  // Returns the squared length of what rounding removes.
  static double stage(const float* from, int64_t width, bool negate, uint32_t* words) {
    const uint32_t sign = negate ? 0x80008000u : 0;
    double loss = 0;
    for (int64_t w = 0; w < width / 2; ++w) {
      const uint32_t low = round(from[2 * w]), high = round(from[2 * w + 1]);
      words[w] = (low | (high << 16)) ^ sign;
      loss += lost(from[2 * w], low) + lost(from[2 * w + 1], high);
    }
    if (width % 2) {
      const uint32_t low = round(from[width - 1]);
      words[width / 2] = low ^ (sign & 0xffffu);
      loss += lost(from[width - 1], low);
    }
    return loss;
  }
};

constexpr int kLanes = Isa::kLanes;
constexpr int kVectors = Isa::kVectors;
constexpr int kRows = Isa::kRows;
constexpr int kPanel = kLanes * kVectors;  // codes

// Codes become [panel][word][code], so that the filter reads them as whole vectors.
template <class Filter>
class Packer {
 public:
  explicit Packer(const Codes& codes)
      : codes_(codes), words_(ceil_div(codes.width, Filter::kPerWord)) {}

  // Writes panels from `first` on; the largest lengths go to extent.
  void pack(int64_t first, int64_t panels, uint32_t* words, float* halves, Extent& extent) const {
    uint32_t stage[kPanel * kSlice];
    for (int64_t p = 0; p < panels; ++p) {
      pack_panel(first + p, stage, words + p * kPanel * words_, halves + p * kPanel, extent);
    }
  }

  Packed* pack_all() const {
    const int64_t panels = ceil_div(codes_.count, kPanel);
    struct Context {
      const Packer* packer;
      Packed* packed;
      Extent* extents;
    };
    const Buffer extents(static_cast<size_t>(panels) * sizeof(Extent));
    Packed* packed = new Packed(panels * kPanel, words_);
    Context context{this, packed, extents.as<Extent>()};
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
    double lost[kPanel] = {};
    for (int j = 0; j < kPanel; ++j) {
      const int64_t k = panel * kPanel + j;
      const double squared = k < codes_.count ? squared_length(code(k), codes_.width) : INFINITY;
      // Neither NaN nor infinite, nor past the end, nor known to lose every tie.
      usable[j] = squared - squared == 0 && !repeats(k);
      if (usable[j]) extent.squared = larger(extent.squared, squared);
      halves[j] = usable[j] ? static_cast<float>(codes_.product ? 0 : 0.5 * squared) : INFINITY;
    }
    for (int64_t start = 0; start < words_; start += kSlice) {
      const int64_t size = smaller<int64_t>(kSlice, words_ - start);
      const int64_t first = start * Filter::kPerWord;
      const int64_t width = smaller(size * Filter::kPerWord, codes_.width - first);
      for (int j = 0; j < kPanel; ++j) {
        uint32_t* words = stage + j * kSlice;
        if (usable[j]) {
          lost[j] += Filter::stage(code(panel * kPanel + j) + first, width, false, words);
        } else {  // its score is infinite then, and never the smallest
          memset(words, 0, static_cast<size_t>(size) * 4);
        }
      }
      Isa::transpose(stage, kSlice, size, to + start * kPanel);
    }
    for (int j = 0; j < kPanel; ++j) {
      if (!(lost[j] <= extent.lost)) extent.lost = lost[j];
    }
  }

  const Codes& codes_;
  const int64_t words_;
};

}  // namespace
}  // namespace tokenizers_vq
