// What a search is and how it is laid out: plain C++ without CUDA, shared by kernels, launch and binding.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nearest_code {

constexpr int THREADS = 256;
constexpr int TILE = 128;        // codes per step of the search
constexpr int CANDIDATES = 32;   // kept per row and split; a row with more is searched again in float64
constexpr int OVERFLOWED = CANDIDATES + 1;
constexpr int MEAN_SAMPLE = 4096;

// float32 products on the ordinary cores, or bfloat16 products on the tensor cores. The answer is the same.
enum class Filter { Float32, Bfloat16 };
constexpr int FLOAT32_CHANNELS = 64;  // the float32 filter takes no more
constexpr int BLOCK_ROWS = 128;
constexpr int RESIDENT_CHANNELS = 256;  // up to here the rows of a block stay in shared memory as bfloat16

struct Candidate {
  float score;
  int code;  // the first of the eight codes the score is the minimum of
};

// Over all usable codes, after the shift by the centre. Bits of floats >= 0, whose order is that of integers.
struct Limits {
  unsigned norm, residual;
};

inline int64_t up(int64_t value, int64_t step) { return (value + step - 1) / step; }

struct Problem {
  int64_t rows = 0, row_stride = 0, code_stride = 0;  // strides in elements; channels are dense
  int codes = 0, channels = 0;
  Filter filter = Filter::Bfloat16;
  int splits = 1;  // parts of the codebook searched by different blocks
  bool product = false;  // what decides: false the smallest distance, true the largest inner product
  int64_t index_stride = 1;  // of the indices that are written

  bool streamed() const { return filter == Filter::Bfloat16 && channels > RESIDENT_CHANNELS; }
  int depth() const {  // channels per step
    if (filter == Filter::Float32) return channels <= 8 ? 8 : 16;
    return channels <= 16 ? 16 : channels <= 32 ? 32 : 64;
  }
  int steps() const { return static_cast<int>(up(channels, depth())); }
  int tiles() const { return static_cast<int>(up(codes, TILE)); }
  int tiles_per_split() const { return static_cast<int>(up(tiles(), splits)); }
  int64_t row_blocks() const { return up(rows, BLOCK_ROWS); }
  int64_t packed_elements() const { return int64_t{tiles()} * TILE * steps() * depth(); }
  int64_t streamed_elements() const { return streamed() ? row_blocks() * BLOCK_ROWS * steps() * depth() : 0; }
};

// Offsets in bytes into the one workspace a search needs: O(rows x splits + codes x channels),
// and half the size of x where rows stream.
struct Workspace {
  size_t packed, rows, half, centre, limits, list, count, best, margin, bytes;

  explicit Workspace(const Problem& p) {
    size_t at = 0;
    auto take = [&at](int64_t size) {
      const size_t here = at;
      at += static_cast<size_t>(up(size, 256) * 256);
      return here;
    };
    packed = take(p.packed_elements() * (p.filter == Filter::Bfloat16 ? 2 : 4));
    rows = take(p.streamed_elements() * 2);
    half = take(int64_t{p.tiles()} * TILE * 4);
    centre = take(int64_t{p.steps()} * p.depth() * 4);
    limits = take(sizeof(Limits));
    list = take(p.rows * p.splits * CANDIDATES * static_cast<int64_t>(sizeof(Candidate)));
    count = take(p.rows * p.splits * 4);
    best = take(p.rows * p.splits * 4);
    margin = take(p.rows * 4);
    bytes = at;
  }
};

// One codebook of a stack, and how it is searched. All problems have the same rows.
struct Stage {
  Problem problem;
  const float* codebook;
};

// Rows per code and their sums.
struct Stats {
  const float* x = nullptr;
  int64_t rows = 0, row_stride = 0, channels = 0, codes = 0;
  const int64_t* sorted = nullptr;  // (rows) codes, ascending
  const int64_t* order = nullptr;   // (rows) where each of them was; ascending for equal codes
  int64_t* start = nullptr;         // (codes + 1) workspace
  float* counts = nullptr;          // (codes)
  float* sums = nullptr;            // (codes, channels)
};

// Few rows do not fill the machine: split the codebook until there are two blocks per multiprocessor.
// The answer does not depend on the number of splits.
inline int choose_splits(Problem p, int multiprocessors) {
  const int64_t wanted = up(2 * int64_t{multiprocessors}, std::max<int64_t>(1, p.row_blocks()));
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>({wanted, p.tiles() / 4, 64})));
}

}  // namespace nearest_code
