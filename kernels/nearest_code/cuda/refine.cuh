// The judge: among the candidates of a row, the smallest float64 distance, the lowest index among equals.
#pragma once
#include "filter.cuh"

namespace nearest_code {

struct RefineInput {
  const float* x;
  const float* codebook;
  int64_t rows, row_stride, code_stride;
  int codes, channels, splits;
  int shift, stride;  // code q of a candidate is  first + (q >> shift) * stride, plus the bits shifted out
  const Candidate* list;
  const int* count;
  const float* best;
  const float* margin;
  float* distance;
  int64_t* index;
};

// Differences first: no cancellation. Channels in ascending order with one fused multiply-add each: the same
// bits wherever this sum is taken, so that equal codes have equal distances.
__device__ __forceinline__ double distance_of(const float* x, const float* code, int channels) {
  double sum = 0;
  for (int d = 0; d < channels; d++) {
    const double difference = double(read(x + d)) - double(read(code + d));
    sum = fma(difference, difference, sum);
  }
  return sum;
}

struct Nearest {
  double distance;
  int code;

  __device__ Nearest() : distance(infinity()), code(0x7fffffff) {}
  // NaN is never smaller; an infinite distance neither.
  __device__ __forceinline__ void take(double d, int k) {
    const bool better = d < distance || (d == distance && k < code && code != 0x7fffffff);
    distance = better ? d : distance;
    code = better ? k : code;
  }
};

// One warp per row. A row with too many candidates, or without a margin, is searched over all codes.
__global__ void __launch_bounds__(THREADS) refine(RefineInput in) {
  const int lane = threadIdx.x % 32;
  const int64_t row = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / 32;
  if (row >= in.rows) return;  // whole warps
  const float* const x = in.x + row * in.row_stride;
  float smallest = infinity();
  bool all = false;
  for (int s = 0; s < in.splits; s++) {
    smallest = fminf(smallest, read(in.best + s * in.rows + row));
    all |= read(in.count + s * in.rows + row) > CANDIDATES;
  }
  Nearest nearest;
  if (all) {
    for (int k = lane; k < in.codes; k += 32)
      nearest.take(distance_of(x, in.codebook + k * in.code_stride, in.channels), k);
  } else {
    const float threshold = smallest + read(in.margin + row);
    for (int s = 0; s < in.splits; s++) {
      const int64_t place = s * in.rows + row;
      Candidate mine{infinity(), 0};
      if (lane < read(in.count + place)) {
        mine.score = read(&in.list[place * CANDIDATES + lane].score);
        mine.code = read(&in.list[place * CANDIDATES + lane].code);
      }
      // Early candidates may have been overtaken since. Of the rest, four at a time: 4 x 8 codes, one per lane.
      unsigned kept = __ballot_sync(ALL_LANES, mine.score <= threshold && lane < read(in.count + place));
      while (kept) {
        unsigned rest = kept;
        for (int skip = lane / 8; skip > 0; skip--) rest &= rest - 1;
        kept &= kept - 1, kept &= kept - 1, kept &= kept - 1, kept &= kept - 1;
        const int owner = rest ? __ffs(rest) - 1 : 0, q = lane % 8, low = q & ((1 << in.shift) - 1);
        const int k = __shfl_sync(ALL_LANES, mine.code, owner) + (q >> in.shift) * in.stride + low;
        if (rest && k < in.codes) nearest.take(distance_of(x, in.codebook + k * in.code_stride, in.channels), k);
      }
    }
  }
  for (int bits = 16; bits; bits >>= 1) {
    const double d = __shfl_xor_sync(ALL_LANES, nearest.distance, bits);
    const int k = __shfl_xor_sync(ALL_LANES, nearest.code, bits);
    nearest.take(d, k);
  }
  if (lane == 0) {
    write(in.distance + row, static_cast<float>(nearest.distance));
    write(in.index + row, int64_t{nearest.code == 0x7fffffff ? 0 : nearest.code});
  }
}

}  // namespace nearest_code
