// Filter and refine. Included once per instruction set, after a struct `Isa` that wraps its vectors.
//
// The nearest code minimises score = |c|^2 / 2 - x.c: the length of x is the same for all codes and
// would only cost digits. Scores come out of a fast filter (float32, or products of bfloat16) with
// an error of at most e, so the winner lies among the codes with score <= smallest score + 2 e.
// Those few are measured again as sum (x - c)^2 in float64, in one fixed order of additions, lowest
// index first. Hence every instruction set, filter, blocking and number of threads agrees bit by bit.
//
// Everything is in an anonymous namespace and nothing of the standard library is instantiated here:
// a function compiled for AVX-512 must never be the copy that the linker keeps for all.

#include <cmath>
#include <cstring>

#include "nearest_code.h"

namespace tokenizers_vq {
namespace {

typedef float Float8 __attribute__((vector_size(32)));
typedef double Double8 __attribute__((vector_size(64)));

constexpr int kRoom = 12;                     // candidates a row remembers before it measures them
constexpr int64_t kChunkBytes = 64 * 1024;    // packed codes that stay near while rows pass
constexpr int64_t kBlockBytes = 256 * 1024;   // packed rows that stay near while codes pass
constexpr int kMaxTiles = 64;                 // row tiles in a block
constexpr int kMaxPanels = 32;                // panels in a chunk
constexpr int kSlice = 256;                   // words of a code that are transposed at a time
constexpr double kFloatEps = 0x1p-24;
constexpr double kFloatTiny = 0x1p-125;       // an operation may flush to zero below half of this
constexpr double kFloatMax = 3.4028234663852886e38;

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

inline double sum_lanes(const Double8& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
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

// Largest values over the finite codes; they bound the error of every score.
struct Extent {
  double squared = 0;  // |c|^2
  double lost = 0;     // |c - rounded c|^2
};

struct Row {
  float best;   // smallest score so far
  float slack;  // 2 e: a code may win although its score is this much larger
  int pending;
  int32_t place[kRoom];  // panel * lanes + lane
  float score[kRoom];
  double distance;
  int64_t index;
};

template <class Filter>
class Searcher {
 public:
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kVectors = Isa::kVectors;
  static constexpr int kRows = Isa::kRows;
  static constexpr int kPanel = kLanes * kVectors;  // codes

  explicit Searcher(const Search& task)
      : task_(task),
        words_(ceil_div(task.width, Filter::kPerWord)),
        panels_(ceil_div(task.count, kPanel)),
        packed_(static_cast<size_t>(aligned(panels_ * kPanel * words_ * 4))),
        halves_(static_cast<size_t>(panels_ * kPanel * 4)),
        extents_(static_cast<size_t>(panels_) * sizeof(Extent)) {
    chunk_ = smaller<int64_t>(larger<int64_t>(kChunkBytes / (kPanel * words_ * 4), 1), kMaxPanels);
    chunk_ = smaller(chunk_, panels_);
    const int64_t tiles = ceil_div(task.rows, kRows);
    tiles_ = smaller<int64_t>(larger<int64_t>(kBlockBytes / (kRows * words_ * 4), 2), kMaxTiles);
    tiles_ = larger<int64_t>(smaller(tiles_, ceil_div(tiles, task.threads)), 1);
  }

  void run() {
    parallel(panels_, [](int64_t begin, int64_t end, void* self) {
      static_cast<Searcher*>(self)->pack_panels(begin, end);
    }, this);
    for (int64_t p = 0; p < panels_; ++p) {
      extent_.squared = larger(extent_.squared, extents_.as<Extent>()[p].squared);
      extent_.lost = larger(extent_.lost, extents_.as<Extent>()[p].lost);
    }
    code_length_ = std::sqrt(extent_.squared);
    code_lost_ = std::sqrt(extent_.lost);
    const double n = static_cast<double>(Filter::kPerWord * task_.width + 8) * kFloatEps;
    gamma_ = n < 0.5 ? n / (1 - n) : INFINITY;
    parallel(ceil_div(task_.rows, tiles_ * kRows), [](int64_t begin, int64_t end, void* self) {
      static_cast<Searcher*>(self)->search_blocks(begin, end);
    }, this);
  }

 private:
  const float* code(int64_t k) const { return task_.codes + k * task_.code_stride; }
  const float* row(int64_t n) const { return task_.x + n * task_.x_stride; }

  // ---- codes: [panel][word][code], so that the filter reads them as whole vectors

  void pack_panels(int64_t begin, int64_t end) {
    const Buffer stage(kPanel * kSlice * 4);
    for (int64_t p = begin; p < end; ++p) pack_panel(p, stage.as<uint32_t>());
  }

  void pack_panel(int64_t panel, uint32_t* stage) {
    double half[kPanel];
    double lost[kPanel] = {};
    Extent extent;
    for (int j = 0; j < kPanel; ++j) {
      const int64_t k = panel * kPanel + j;
      const double squared = k < task_.count ? squared_length(code(k), task_.width) : INFINITY;
      half[j] = squared - squared == 0 ? 0.5 * squared : INFINITY;  // NaN and infinite codes too
      if (half[j] < INFINITY) extent.squared = larger(extent.squared, squared);
      halves_.as<float>()[k] = static_cast<float>(half[j]);
    }
    uint32_t* to = packed_.as<uint32_t>() + panel * kPanel * words_;
    for (int64_t start = 0; start < words_; start += kSlice) {
      const int64_t size = smaller<int64_t>(kSlice, words_ - start);
      const int64_t first = start * Filter::kPerWord;
      const int64_t width = smaller(size * Filter::kPerWord, task_.width - first);
      for (int j = 0; j < kPanel; ++j) {
        uint32_t* words = stage + j * kSlice;
        if (half[j] < INFINITY) {
          lost[j] += Filter::stage(code(panel * kPanel + j) + first, width, false, words);
        } else {  // its score is half = infinity then, and never the smallest
          memset(words, 0, static_cast<size_t>(size) * 4);
        }
      }
      Isa::transpose(stage, kSlice, size, to + start * kPanel);
    }
    for (int j = 0; j < kPanel; ++j) {
      if (!(lost[j] <= extent.lost)) extent.lost = lost[j];
    }
    extents_.as<Extent>()[panel] = extent;
  }

  // ---- rows: [tile][word][row]

  void pack_tile(int64_t first, int64_t rows, uint32_t* stage, uint32_t* to, Row* state) {
    for (int r = 0; r < kRows; ++r) {
      start_row(first, rows, r, stage, state[r]);
      for (int64_t w = 0; w < words_; ++w) to[w * kRows + r] = stage[w];
    }
  }

  void start_row(int64_t first, int64_t rows, int r, uint32_t* words, Row& state) {
    state.best = -INFINITY;
    state.slack = -1;  // a row that is missing or not finite: index 0, distance infinite
    state.pending = 0;
    state.distance = INFINITY;
    state.index = 0;
    const double squared = r < rows ? squared_length(row(first + r), task_.width) : INFINITY;
    if (!(squared < INFINITY)) {
      memset(words, 0, static_cast<size_t>(words_) * 4);
      return;
    }
    state.best = INFINITY;
    const double lost = Filter::stage(row(first + r), task_.width, true, words);
    state.slack = slack(std::sqrt(squared), std::sqrt(lost));
  }

  // Twice the error bound of a score. Summing n rounded terms errs by at most gamma_n times the sum
  // of their sizes (Higham 2002, section 3.1), which Cauchy and Schwarz bound by lengths; what the
  // filter's rounding of x and c removes is bounded by the lengths of what it did remove.
  float slack(double length, double lost) const {
    const double size = (length + lost) * (code_length_ + code_lost_) + 0.5 * extent_.squared;
    if (!(size < kFloatMax / 8)) return INFINITY;  // scores may overflow: measure every code
    const double tiny = static_cast<double>(task_.width + 8) * kFloatTiny;
    const double e = gamma_ * size + lost * code_length_ + (length + lost) * code_lost_ + tiny;
    return static_cast<float>(2.0001 * e);
  }

  void search_blocks(int64_t begin, int64_t end) {
    const int64_t block = tiles_ * kRows;
    const Buffer stage(static_cast<size_t>(aligned(words_ * 4)));
    const Buffer packed(static_cast<size_t>(aligned(block * words_ * 4)));
    const Buffer minima(static_cast<size_t>(chunk_ * kRows * kLanes * 4));
    const Buffer states(static_cast<size_t>(block) * sizeof(Row));
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block, rows = smaller(block, task_.rows - first);
      const int64_t tiles = ceil_div(rows, kRows);
      uint32_t* words = packed.as<uint32_t>();
      Row* state = states.as<Row>();
      for (int64_t t = 0; t < tiles; ++t) {
        pack_tile(first + t * kRows, rows - t * kRows, stage.as<uint32_t>(),
                  words + t * kRows * words_, state + t * kRows);
      }
      for (int64_t p = 0; p < panels_; p += chunk_) {
        const int64_t chunk = smaller(chunk_, panels_ - p);
        for (int64_t t = 0; t < tiles; ++t) {
          filter(words + t * kRows * words_, p, chunk, minima.as<float>());
          for (int r = 0; r < kRows; ++r) {
            collect(first + t * kRows + r, p, chunk, minima.as<float>() + r * kLanes,
                    state[t * kRows + r]);
          }
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        refine(first + i, state[i]);
        task_.index[first + i] = state[i].index;
        task_.distance[first + i] = static_cast<float>(state[i].distance);
      }
    }
  }

  // ---- filter

  // The common widths get their own loop: a trip count the compiler knows is unrolled whole.
  void filter(const uint32_t* x, int64_t panel, int64_t chunk, float* minima) {
    switch (words_) {
      case 4: return filter_chunk<4>(x, panel, chunk, minima);
      case 8: return filter_chunk<8>(x, panel, chunk, minima);
      case 16: return filter_chunk<16>(x, panel, chunk, minima);
      default: return filter_chunk<0>(x, panel, chunk, minima);
    }
  }

  template <int kWords>
  __attribute__((noinline)) void filter_chunk(const uint32_t* x, int64_t panel, int64_t chunk,
                                              float* minima) {
    for (int64_t p = 0; p < chunk; ++p) {
      filter_tile<kWords>(x, packed_.as<uint32_t>() + (panel + p) * kPanel * words_,
                          halves_.as<float>() + (panel + p) * kPanel,
                          minima + p * kRows * kLanes);
    }
  }

  // kRows rows against kVectors vectors of codes, all scores in registers. Only the smallest score
  // per row and lane leaves them, without a branch: a branch per row costs a third of the speed.
  template <int kWords>
  inline __attribute__((always_inline)) void filter_tile(const uint32_t* x, const uint32_t* codes,
                                                         const float* halves, float* minima) {
    const int64_t words = kWords ? kWords : words_;
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

  // ---- refine

  // Remembers the lanes of a chunk that may hold the winner. Most rows leave at the first test.
  // "Not greater" instead of "less or equal": overflowed scores are candidates, too.
  inline void collect(int64_t n, int64_t panel, int64_t chunk, const float* minima, Row& state) {
    constexpr int64_t step = kRows * kLanes;
    typename Isa::Vector m = Isa::load(minima);
    for (int64_t p = 1; p < chunk; ++p) m = Isa::min(Isa::load(minima + p * step), m);
    if (__builtin_expect(Isa::not_greater(m, state.best + state.slack) == 0, 1)) return;
    if (state.slack < 0) return;
    const float best = Isa::reduce_min(m);
    if (best < state.best) state.best = best;
    const float limit = state.best + state.slack;
    for (int64_t p = 0; p < chunk; ++p) {
      unsigned hits = Isa::not_greater(Isa::load(minima + p * step), limit);
      for (; hits; hits &= hits - 1) {
        if (state.pending == kRoom) refine(n, state);
        const int lane = __builtin_ctz(hits);
        state.place[state.pending] = static_cast<int32_t>((panel + p) * kLanes + lane);
        state.score[state.pending++] = minima[p * step + lane];
      }
    }
  }

  __attribute__((noinline)) void refine(int64_t n, Row& state) {
    const float limit = state.best + state.slack;
    for (int i = 0; i < state.pending; ++i) {
      if (state.score[i] > limit) continue;  // a smaller score has come since
      const int64_t panel = state.place[i] / kLanes, lane = state.place[i] % kLanes;
      for (int q = 0; q < kVectors; ++q) {
        const int64_t k = panel * kPanel + q * kLanes + lane;
        if (k >= task_.count) break;
        const double d = measure(row(n), code(k), task_.width);
        if (d < state.distance || (d == state.distance && k < state.index && d < INFINITY)) {
          state.distance = d;
          state.index = k;
        }
      }
    }
    state.pending = 0;
  }

  const Search& task_;
  const int64_t words_;   // 32-bit words per row of x or of the codebook
  const int64_t panels_;
  const Buffer packed_, halves_, extents_;
  int64_t chunk_;  // panels at a time
  int64_t tiles_;  // row tiles at a time
  Extent extent_;
  double code_length_ = 0, code_lost_ = 0;  // square roots of the extent
  double gamma_ = 0;                        // relative error of a sum of this many terms
};

}  // namespace
}  // namespace tokenizers_vq
