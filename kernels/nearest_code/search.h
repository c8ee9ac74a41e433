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

#pragma once

#include "filter.h"

namespace tokenizers_vq {
namespace {

constexpr int kRoom = 12;                     // candidates a row remembers before it measures them
constexpr int64_t kChunkBytes = 64 * 1024;    // packed codes that stay near while rows pass
constexpr int64_t kBlockBytes = 256 * 1024;   // packed rows that stay near while codes pass
constexpr int kMaxTiles = 64;                 // row tiles in a block
constexpr int kMaxPanels = 32;                // panels in a chunk
constexpr int kNote = 64;                     // more than kMaxPanels
constexpr double kFloatMax = 3.4028234663852886e38;

struct Row {
  float best;   // smallest score so far
  float slack;  // 2 e: a code may win although its score is this much larger; negative: no search
  int pending;
  int32_t place[kRoom];  // panel * lanes + lane
  float score[kRoom];
  double value;  // of the best measured so far
  int64_t index;
  double length, lost;  // of x, and of what the filter's rounding removes from it
};

template <class Filter>
class Searcher {
 public:
  Searcher(const Search& task, const Packed* packed)
      : task_(task),
        codes_(task.codes),
        packed_(packed),
        around_(static_cast<size_t>(packed ? 0 : codes_.width * 4)),
        centre_(packed ? packed->centre : find_centre<Filter>(codes_, around_.as<float>())),
        packer_(codes_, centre_),
        words_(ceil_div(codes_.width, Filter::kPerWord)),
        panels_(ceil_div(codes_.count, kPanel)) {
    chunk_ = smaller<int64_t>(larger<int64_t>(kChunkBytes / (kPanel * words_ * 4), 1), kMaxPanels);
    chunk_ = smaller(chunk_, panels_);
    const int64_t tiles = ceil_div(task.rows, kRows), share = ceil_div(tiles, task.threads);
    tiles_ = smaller<int64_t>(larger<int64_t>(kBlockBytes / (kRows * words_ * 4), 2), kMaxTiles);
    // Without packed codes every block packs them all: as few blocks as there are threads.
    tiles_ = packed ? larger<int64_t>(smaller(tiles_, share), 1) : share;
    const double n = static_cast<double>(Filter::kPerWord * codes_.width + 12) * kFloatEps;
    gamma_ = n < 0.5 ? n / (1 - n) : INFINITY;
  }

  void run() {
    parallel(ceil_div(task_.rows, tiles_ * kRows), [](int64_t begin, int64_t end, void* self) {
      static_cast<const Searcher*>(self)->search_blocks(begin, end);
    }, this);
  }

 private:
  const float* code(int64_t k) const { return codes_.start + k * codes_.stride; }
  const float* row(int64_t n) const { return task_.x + n * task_.x_stride; }

  // What bounds the errors of the scores of the codes seen so far.
  struct Bound {
    double length, lost, half;
    explicit Bound(const Extent& e, bool product)
        : length(std::sqrt(e.squared)),
          lost(std::sqrt(e.lost)),
          half(product ? 0 : 0.5 * e.squared) {}
  };

  // ---- rows: [tile][word][row]

  void pack_tile(int64_t first, int64_t rows, uint32_t* stage, uint32_t* to, Row* state) const {
    for (int r = 0; r < kRows; ++r) {
      start_row(first, rows, r, stage, state[r]);
      for (int64_t w = 0; w < words_; ++w) to[w * kRows + r] = stage[w];
    }
  }

  void start_row(int64_t first, int64_t rows, int r, uint32_t* words, Row& state) const {
    state.best = -INFINITY;
    state.slack = -1;  // a row that is missing or not finite: index 0, distance infinite
    state.pending = 0;
    state.value = INFINITY;
    state.index = 0;
    double squared = INFINITY, lost = 0;
    if (r < rows) {
      squared = 0;
      lost = Filter::stage(row(first + r), centre_, codes_.width, true, words, squared);
    }
    // Only the difference to the centre can overflow: no bound is known then.
    if (!(squared < INFINITY) && (r >= rows || !finite(row(first + r), codes_.width))) {
      memset(words, 0, static_cast<size_t>(words_) * 4);
      return;
    }
    state.best = INFINITY;
    state.slack = 0;
    state.length = std::sqrt(squared);
    state.lost = lost > 0 ? std::sqrt(lost) : 0;
  }

  // Sets the slack of rows to twice the error bound of a score. Summing n rounded terms errs by at
  // most gamma_n times the sum of their sizes (Higham 2002, section 3.1), which Cauchy and Schwarz
  // bound by lengths; what the filter's rounding of x and c removes is bounded by the lengths of
  // what it did remove. Subtracting a centre rounds each number once more: two terms. The bound has
  // to hold for the codes seen so far: the later winner and the best score it is compared with are
  // both among them.
  void set_slack(Row* states, int64_t rows, const Extent& extent) const {
    const Bound c(extent, codes_.product);
    const double tiny = static_cast<double>(codes_.width + 8) * kFloatTiny;
    for (int64_t i = 0; i < rows; ++i) {
      Row& x = states[i];
      if (x.slack < 0) continue;
      const double size = (x.length + x.lost) * (c.length + c.lost) + c.half;
      const double e = gamma_ * size + x.lost * c.length + (x.length + x.lost) * c.lost + tiny;
      // Scores that may overflow say nothing: every code is measured then.
      x.slack = size < kFloatMax / 8 ? static_cast<float>(2.0001 * e) : INFINITY;
    }
  }

  void search_blocks(int64_t begin, int64_t end) const {
    const int64_t block = tiles_ * kRows, panel_words = kPanel * words_;
    const Buffer stage(static_cast<size_t>(aligned(words_ * 4)));
    const Buffer packed(static_cast<size_t>(aligned(block * words_ * 4)));
    const Buffer minima(static_cast<size_t>(chunk_ * kRows * kLanes * 4));
    const Buffer states(static_cast<size_t>(block) * sizeof(Row));
    const Buffer words(static_cast<size_t>(packed_ ? 0 : chunk_ * panel_words * 4));
    const Buffer halves(static_cast<size_t>(packed_ ? 0 : chunk_ * kPanel * 4));
    Row* const state = states.as<Row>();
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block, rows = smaller(block, task_.rows - first);
      const int64_t tiles = ceil_div(rows, kRows);
      uint32_t* const x = packed.as<uint32_t>();
      for (int64_t t = 0; t < tiles; ++t) {
        pack_tile(first + t * kRows, rows - t * kRows, stage.as<uint32_t>(),
                  x + t * kRows * words_, state + t * kRows);
      }
      Extent extent;
      if (packed_) {
        extent.squared = packed_->squared;
        extent.lost = packed_->lost;
        set_slack(state, rows, extent);
      }
      for (int64_t p = 0; p < panels_; p += chunk_) {
        const int64_t chunk = smaller(chunk_, panels_ - p);
        const uint32_t* near = words.as<uint32_t>();
        const float* half = halves.as<float>();
        if (packed_) {
          near = packed_->words.template as<uint32_t>() + p * panel_words;
          half = packed_->halves.template as<float>() + p * kPanel;
        } else {
          const Extent before = extent;
          packer_.pack(p, chunk, words.as<uint32_t>(), halves.as<float>(), extent);
          if (p == 0 || extent.squared != before.squared || extent.lost != before.lost) {
            set_slack(state, rows, extent);
          }
        }
        for (int64_t t = 0; t < tiles; ++t) {
          filter<Filter>(x + t * kRows * words_, near, half, words_, chunk, minima.as<float>());
          for (int r = 0; r < kRows; ++r) {
            collect(first + t * kRows + r, p, chunk, minima.as<float>() + r * kLanes,
                    state[t * kRows + r]);
          }
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        refine(first + i, state[i]);
        task_.index[first + i] = state[i].index;
        const double value = codes_.product ? -state[i].value : state[i].value;
        task_.value[first + i] = static_cast<float>(value);
      }
    }
  }

  // ---- refine

  // Remembers the lanes of a chunk that may hold the winner. Most rows leave at the first test; the
  // others seldom have more than one such lane, found without a branch that depends on where it is.
  inline void collect(int64_t n, int64_t panel, int64_t chunk, const float* minima,
                      Row& state) const {
    constexpr int64_t step = kRows * kLanes;
    typename Isa::Vector m = Isa::load(minima);
    for (int64_t p = 1; p < chunk; ++p) m = Isa::min(Isa::load(minima + p * step), m);
    if (__builtin_expect(Isa::not_greater(m, state.best + state.slack) == 0, 1)) return;
    if (state.slack < 0) return;
    const float best = Isa::reduce_min(m);
    if (best < state.best) state.best = best;
    const float limit = state.best + state.slack;
    // A lane's note: kNote plus the panel of its hit, or the sum of that over several hits.
    typename Isa::Notes notes{};
    for (int64_t p = 0; p < chunk; ++p) {
      notes = Isa::note(notes, Isa::load(minima + p * step), limit, kNote + static_cast<int>(p));
    }
    if (__builtin_expect(Isa::at_least(notes, 2 * kNote) != 0, 0)) {
      return collect_all(n, panel, chunk, minima, state);
    }
    int32_t note[kLanes];
    memcpy(note, &notes, sizeof note);
    for (unsigned hits = Isa::at_least(notes, kNote); hits; hits &= hits - 1) {
      const int lane = __builtin_ctz(hits);
      const int64_t p = note[lane] - kNote;
      remember(n, (panel + p) * kLanes + lane, minima[p * step + lane], state);
    }
  }

  // The same where a lane has several candidates, or scores have overflowed.
  __attribute__((noinline)) void collect_all(int64_t n, int64_t panel, int64_t chunk,
                                             const float* minima, Row& state) const {
    const float limit = state.best + state.slack;
    for (int64_t p = 0; p < chunk; ++p) {
      const float* scores = minima + p * kRows * kLanes;
      for (unsigned hits = Isa::not_greater(Isa::load(scores), limit); hits; hits &= hits - 1) {
        const int lane = __builtin_ctz(hits);
        remember(n, (panel + p) * kLanes + lane, scores[lane], state);
      }
    }
  }

  inline void remember(int64_t n, int64_t place, float score, Row& state) const {
    if (state.pending == kRoom) refine(n, state);
    state.place[state.pending] = static_cast<int32_t>(place);
    state.score[state.pending++] = score;
  }

  // Measures the codes of the lanes that are remembered. Which of them wins no branch can predict,
  // so there is none.
  __attribute__((noinline)) void refine(int64_t n, Row& state) const {
    const float limit = state.best + state.slack;
    for (int i = 0; i < state.pending; ++i) {
      if (state.score[i] > limit) continue;  // a smaller score has come since
      const int64_t first = state.place[i] / kLanes * kPanel + state.place[i] % kLanes;
      double values[kVectors], best = INFINITY;
      for (int q = 0; q < kVectors; ++q) {  // past the end the last code again: it changes nothing
        const int64_t k = smaller(first + q * kLanes, codes_.count - 1);
        const double v = codes_.product ? measure_product(row(n), code(k), codes_.width)
                                        : measure(row(n), code(k), codes_.width);
        values[q] = v - v == 0 ? v : INFINITY;  // never a code that is not finite
        best = smaller(values[q], best);
      }
      unsigned equal = 0;
      for (int q = 0; q < kVectors; ++q) equal |= static_cast<unsigned>(values[q] == best) << q;
      const int64_t k = smaller(first + __builtin_ctz(equal) * kLanes, codes_.count - 1);
      if (best < state.value || (best == state.value && k < state.index)) {
        state.value = best;
        state.index = k;
      }
    }
    state.pending = 0;
  }

  const Search& task_;
  const Codes& codes_;
  const Packed* const packed_;
  const Buffer around_;
  const float* const centre_;
  const Packer<Filter> packer_;
  const int64_t words_;   // 32-bit words per row of x or of the codebook
  const int64_t panels_;
  int64_t chunk_;  // panels at a time
  int64_t tiles_;  // row tiles at a time
  double gamma_;   // relative error of a sum of this many terms
};

}  // namespace
}  // namespace tokenizers_vq

// What each instruction set's file ends with.
#define TOKENIZERS_VQ_DEFINE_KERNEL(name, Filter)                                    \
  namespace tokenizers_vq {                                                          \
  Packed* pack_##name(const Codes& codes) { return Packer<Filter>::pack_all(codes); } \
  void search_##name(const Search& task, const Packed* packed) {                     \
    Searcher<Filter>(task, packed).run();                                            \
  }                                                                                  \
  }  // namespace tokenizers_vq
