// What both filters share: rows in, margins, running minima, candidates out.
//
// Score of a code c for a row x, both shifted by the centre m:   s = |c - m|^2 / 2 - (x - m) . (c - m).
// It orders codes as the distance does. Of inner products it is  s = -x . c:  no centre, no norm. It is computed
// with rounded numbers; |error| <= e, with
//   e = |x - x^| C + |x^| R + gamma (C^2 / 2 + |x^| (C + R)) + tiny,   without C^2 / 2 for a product,
// x^ the rounded row, C the largest code norm, R the largest rounding error of a code (both Cauchy-Schwarz),
// gamma the summation's bound. The nearest code has a score <= minimum + 2 e: every code below that is a
// candidate, and float64 decides among them. So the answer never depends on the filter's precision.
#pragma once
#include "primitives.cuh"
#include "problem.h"

namespace nearest_code {

struct FilterInput {
  const float* x;
  int64_t rows, row_stride;
  int channels, steps, tiles, tiles_per_split;
  const float* centre;
  const float* half;
  const Limits* limits;
  bool product;
  uint16_t* packed_rows;  // only for rows that stream
  Candidate* list;  // (split, row, CANDIDATES)
  int* count;       // (split, row)
  float* best;      // (split, row)
  float* margin;    // (row): 2 e; written by the filter, unless it streams its rows
};

// Per row of the block, in shared memory.
struct RowState {
  int* best;      // minimum score so far, as ordered integer
  int* count;     // candidates so far, also those that found no place
  float* margin;  // 2 e; not finite: the scores of this row mean nothing
  static constexpr int BYTES_PER_ROW = 12;

  __device__ RowState(unsigned char* shared, int rows)
      : best(reinterpret_cast<int*>(shared)), count(best + rows), margin(reinterpret_cast<float*>(count + rows)) {}
};

// Largest norm and rounding error of a code.
struct Largest {
  float norm, residual;
  bool product;
};
__device__ __forceinline__ Largest largest(const FilterInput& in) {
  const Limits* const limits = in.limits;
  return Largest{__uint_as_float(read(&limits->norm)), __uint_as_float(read(&limits->residual)), in.product};
}

__device__ __forceinline__ float margin_of(float norm2, float residual2, Largest codes, int channels, float unit) {
  const float C = codes.norm, R = codes.residual;
  const float lost = channels * 1e-22f;  // squares too small for float32 still count for the norms
  const float norm = sqrtf(norm2) * 1.01f + lost;  // 1.01: these sums are rounded themselves
  const float residual = sqrtf(residual2) * 1.01f + norm * 1.2e-7f + lost;  // x - m is rounded, too
  const float gamma = (channels + 16) * unit;
  const float half = codes.product ? 0.0f : 0.5f * C * C;
  const float e = residual * C + norm * R + gamma * (half + norm * (C + R)) + channels * 1e-37f;
  const float measured = codes.product ? norm * C : (norm + C) * (norm + C);
  return 2.02f * e + channels * 4.5e-16f * measured;  // the judge rounds as well
}

// Calls store(channel, x - m), which returns what the search will use in its place, for one row, by one warp.
// Adds up squares of what will be used and of what rounding took. Padding, in rows and channels, is zeros.
template <class Store>
__device__ __forceinline__ float2 take_row(const FilterInput& in, int64_t row, const float* centre, int padded,
                                           Store store) {
  float norm = 0, residual = 0;
  for (int d = threadIdx.x % 32; d < padded; d += 32) {
    const bool real = row < in.rows && d < in.channels;
    const float shifted = real ? read(in.x + row * in.row_stride + d) - centre[d] : 0.0f;
    const float used = store(d, shifted);
    norm += used * used;
    residual += (shifted - used) * (shifted - used);
  }
  return float2{warp_sum(norm), warp_sum(residual)};
}

__device__ __forceinline__ void start_row(const FilterInput& in, const RowState& state, int r, int64_t row,
                                          float margin) {
  state.best[r] = to_ordered(infinity());
  state.count[r] = 0;
  // Below every score: a row past the end finds no candidates.
  state.margin[r] = row < in.rows ? margin : -infinity();
}

// Takes all rows of the block, one warp per row. `centre`: room for the centre, which all rows share.
template <int ROWS, class Store>
__device__ __forceinline__ void take_rows(const FilterInput& in, int64_t row0, const RowState& state, float* centre,
                                          float unit, int padded, Store store) {
  const bool first_lane = threadIdx.x % 32 == 0;
  Largest codes{0, 0, false};
  if (first_lane) codes = largest(in);
  for (int d = threadIdx.x; d < padded; d += THREADS) centre[d] = read(in.centre + d);
  __syncthreads();
  for (int r = threadIdx.x / 32; r < ROWS; r += THREADS / 32) {
    const float2 sums = take_row(in, row0 + r, centre, padded, [=](int d, float v) { return store(r, d, v); });
    if (first_lane) start_row(in, state, r, row0 + r, margin_of(sums.x, sums.y, codes, in.channels, unit));
  }
}

// The running minimum of one thread: for each of its ROWS rows, the minimum over its eight codes of a tile.
// Only a tile that might hold a candidate costs more than the minima: then the thread lowers the row's
// common minimum at once, and, after the next barrier, when all threads have done so, keeps its candidate
// if it still is one. Thresholds of a thread may be out of date, which only costs a second look.
template <int ROWS>
struct Watch {
  float threshold[ROWS], smallest[ROWS];
  bool pending;

  __device__ __forceinline__ Watch() : pending(false) {
#pragma unroll
    for (int i = 0; i < ROWS; i++) threshold[i] = infinity();
  }

  __device__ __forceinline__ bool any() const {
    bool hit = false;
#pragma unroll
    for (int i = 0; i < ROWS; i++) hit |= smallest[i] <= threshold[i];
    return hit;
  }

  template <class RowOf>
  __device__ __forceinline__ void lower(const RowState& state, RowOf row_of) {
    pending = any();
    if (!pending) return;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      if (smallest[i] <= threshold[i]) atomicMin(state.best + row_of(i), to_ordered(smallest[i]));
  }

  // `first`: the thread's first code of the tile the minima belong to.
  template <class RowOf>
  __device__ __forceinline__ void keep(const RowState& state, RowOf row_of, Candidate* list, int64_t rows_left,
                                       int first) {
    if (!pending) return;
    pending = false;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int r = row_of(i);
      // Read by an atomic: fast warps may already lower it for the next tile, which only helps.
      threshold[i] = from_ordered(atomicMin(state.best + r, 0x7fffffff)) + state.margin[r];
      if (!(smallest[i] <= threshold[i]) || r >= rows_left) continue;
      const int place = atomicAdd(state.count + r, 1);
      if (place >= CANDIDATES) continue;
      write(&list[int64_t{r} * CANDIDATES + place].score, smallest[i]);
      write(&list[int64_t{r} * CANDIDATES + place].code, first);
    }
  }
};

template <int ROWS, bool MARGIN>
__device__ __forceinline__ void finish_rows(const FilterInput& in, int64_t row0, const RowState& state) {
  const int r = threadIdx.x;
  const int64_t row = row0 + r, place = int64_t{blockIdx.y} * in.rows + row;
  if (r >= ROWS || row >= in.rows) return;
  const int count = finite(state.margin[r]) ? state.count[r] : OVERFLOWED;
  write(in.count + place, count);
  write(in.best + place, from_ordered(state.best[r]));
  if (MARGIN && blockIdx.y == 0) write(in.margin + row, state.margin[r]);
}

// The part of the codebook this block searches, in tiles.
struct TileRange {
  int from, to;
  __device__ explicit TileRange(const FilterInput& in)
      : from(static_cast<int>(blockIdx.y) * in.tiles_per_split), to(from + in.tiles_per_split) {
    if (to > in.tiles) to = in.tiles;
  }
};

struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};

}  // namespace nearest_code
