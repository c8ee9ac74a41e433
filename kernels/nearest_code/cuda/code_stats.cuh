// Rows per code and their sums, the same bits on every run and on the CPU: rows come sorted by code, stably,
// and each sum adds its rows in their order. No atomics.
#pragma once
#include "primitives.cuh"
#include "problem.h"

namespace nearest_code {

// start[k], k = 0..codes: the first place whose code is at least k. `sorted`: the codes in ascending order.
__global__ void __launch_bounds__(THREADS) find_starts(const int64_t* __restrict__ sorted, int64_t rows, int64_t codes,
                                                       int64_t* __restrict__ start) {
  const int64_t k = int64_t{blockIdx.x} * THREADS + threadIdx.x;
  if (k > codes) return;
  int64_t low = 0, high = rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (read(sorted + middle) < k)
      low = middle + 1;
    else
      high = middle;
  }
  write(start + k, low);
}

// One thread per code and channel; the threads of a warp read neighbours of the same rows. Four rows are on
// their way at a time: the additions wait for each other, the loads do not.
__global__ void __launch_bounds__(THREADS) add_rows(const float* __restrict__ x, int64_t row_stride, int64_t channels,
                                                    const int64_t* __restrict__ order,
                                                    const int64_t* __restrict__ start, int64_t codes,
                                                    float* __restrict__ counts, float* __restrict__ sums) {
  const int64_t at = int64_t{blockIdx.x} * THREADS + threadIdx.x, k = at / channels, d = at % channels;
  if (k >= codes) return;
  const int64_t from = read(start + k), to = read(start + k + 1);
  float sum = 0;
  int64_t i = from;
  for (; i + 4 <= to; i += 4) {
    float next[4];
#pragma unroll
    for (int j = 0; j < 4; j++) next[j] = read(x + read(order + i + j) * row_stride + d);
#pragma unroll
    for (int j = 0; j < 4; j++) sum += next[j];
  }
  for (; i < to; i++) sum += read(x + read(order + i) * row_stride + d);
  write(sums + at, sum);
  if (d == 0) write(counts + k, static_cast<float>(to - from));
}

inline bool add_by_code(const Stats& s, cudaStream_t stream) {
  if (s.codes < 1 || s.channels < 1 || up(s.codes * s.channels, THREADS) > 0x7fffffff) return false;
  NEAREST_LAUNCH(find_starts, dim3(static_cast<unsigned>(up(s.codes + 1, THREADS))), dim3(THREADS), 0, stream, s.sorted,
                 s.rows, s.codes, s.start);
  NEAREST_LAUNCH(add_rows, dim3(static_cast<unsigned>(up(s.codes * s.channels, THREADS))), dim3(THREADS), 0, stream,
                 s.x, s.row_stride, s.channels, s.order, s.start, s.codes, s.counts, s.sums);
  return true;
}

}  // namespace nearest_code
