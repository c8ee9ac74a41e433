// A stack of codebooks: each is searched for what the sum of the codes before leaves of x.
#pragma once
#include "nearest_code.cuh"

namespace nearest_code {

// sum += code, rest = x - sum, in float32 as on the CPU: so the codes are the same. One warp per row.
// `first`: the sum starts here.
__global__ void __launch_bounds__(THREADS) take_away(const float* __restrict__ x, int64_t row_stride, int64_t rows,
                                                     int channels, const float* __restrict__ codebook,
                                                     int64_t code_stride, const int64_t* __restrict__ index,
                                                     int64_t index_stride, bool first, float* __restrict__ sum,
                                                     float* __restrict__ rest) {
  const int64_t row = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / 32;
  if (row >= rows) return;
  const float* const code = codebook + read(index + row * index_stride) * code_stride;
  for (int d = threadIdx.x % 32; d < channels; d += 32) {
    const int64_t at = row * channels + d;
    const float total = (first ? 0.0f : read(sum + at)) + read(code + d);
    write(sum + at, total);
    write(rest + at, read(x + row * row_stride + d) - total);
  }
}

// Indices (rows, depth) of the codes. `sum` and `rest`: (rows, channels) each; `memory`: for the largest of the
// searches, which follow each other. Returns false as `search` does.
inline bool search_stack(const Stage* stages, int64_t depth, const float* x, float* sum, float* rest, void* memory,
                         int64_t* index, cudaStream_t stream) {
  for (int64_t m = 0; m < depth; m++) {
    Problem p = stages[m].problem;
    p.index_stride = depth;
    const float* wanted = x;
    if (m > 0 && p.rows > 0) {
      const Stage& last = stages[m - 1];
      NEAREST_LAUNCH(take_away, dim3(static_cast<unsigned>(up(p.rows * 32, THREADS))), dim3(THREADS), 0, stream, x,
                     p.row_stride, p.rows, p.channels, last.codebook, last.problem.code_stride, index + m - 1, depth,
                     m == 1, sum, rest);
      p.row_stride = p.channels;
      wanted = rest;
    }
    if (!search(p, wanted, stages[m].codebook, memory, nullptr, index + m, stream)) return false;
  }
  return true;
}

}  // namespace nearest_code
