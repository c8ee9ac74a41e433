// The judge: among the candidates of a row, the smallest float64 distance or the largest inner product, the
// lowest index among equals.
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
  bool product;
  float* value;  // may be null
  int64_t* index;
  int64_t index_stride;
};

constexpr int TOGETHER = 8;  // lanes that measure one code

// sum (x - c)^2, or -sum x c, in the order of the CPU kernels, to the last bit: lane d mod 8 takes channel d,
// products and sums round apart, halves of the lanes are added. All eight lanes return it.
__device__ __forceinline__ double measure(const float* x, const float* code, int channels, bool product) {
  double sum = 0;
  for (int d = threadIdx.x % TOGETHER; d < channels; d += TOGETHER) {
    const double mine = read(x + d), its = read(code + d), difference = mine - its;
    sum = __dadd_rn(sum, product ? __dmul_rn(mine, its) : __dmul_rn(difference, difference));
  }
  for (int bits = TOGETHER / 2; bits; bits >>= 1) sum = __dadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, bits));
  return product ? -sum : sum;
}

struct Nearest {
  double value;
  int code;

  __device__ Nearest() : value(infinity()), code(0x7fffffff) {}
  // Neither NaN nor an infinite number is ever smaller.
  __device__ __forceinline__ void take(double v, int k) {
    const bool better = v > -infinity() && (v < value || (v == value && k < code && code != 0x7fffffff));
    value = better ? v : value;
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
  // Four codes at a time; eight lanes measure each. Past the end code 0 is measured, and not taken.
  auto judge = [&](int64_t k) {
    const bool wanted = k < in.codes;
    const double v = measure(x, in.codebook + (wanted ? k : 0) * in.code_stride, in.channels, in.product);
    if (wanted) nearest.take(v, static_cast<int>(k));
  };
  if (all) {
    for (int k = 0; k < in.codes; k += 4) judge(k + lane / TOGETHER);
  } else {
    const float threshold = smallest + read(in.margin + row);
    for (int s = 0; s < in.splits; s++) {
      const int64_t place = s * in.rows + row;
      const int count = read(in.count + place);
      Candidate mine{infinity(), 0};
      if (lane < count) {
        mine.score = read(&in.list[place * CANDIDATES + lane].score);
        mine.code = read(&in.list[place * CANDIDATES + lane].code);
      }
      // Early candidates may have been overtaken since. Each of the rest stands for eight codes.
      unsigned kept = __ballot_sync(ALL_LANES, mine.score <= threshold && lane < count);
      for (; kept; kept &= kept - 1) {
        const int first = __shfl_sync(ALL_LANES, mine.code, __ffs(kept) - 1);
        for (int q = lane / TOGETHER; q < 8; q += 4)
          judge(first + (q >> in.shift) * in.stride + (q & ((1 << in.shift) - 1)));
      }
    }
  }
  for (int bits = 16; bits; bits >>= 1) {
    const double v = __shfl_xor_sync(ALL_LANES, nearest.value, bits);
    const int k = __shfl_xor_sync(ALL_LANES, nearest.code, bits);
    nearest.take(v, k);
  }
  if (lane == 0) {
    if (in.value) write(in.value + row, static_cast<float>(in.product ? -nearest.value : nearest.value));
    write(in.index + row * in.index_stride, int64_t{nearest.code == 0x7fffffff ? 0 : nearest.code});
  }
}

}  // namespace nearest_code
