// Kernels that put the codebook in the shape the search reads: centred, in tiles, with half norms.
#pragma once
#include "primitives.cuh"
#include "problem.h"

namespace nearest_code {

// Mean of a sample of the codes. The search is right with any centre: every error made by shifting is
// measured and goes into the margin. A good centre only keeps the numbers, thus the margin, small.
// Grid: one block per 32 channels. The first one clears the limits.
__global__ void __launch_bounds__(THREADS) find_centre(const float* __restrict__ codebook, int64_t stride, int codes,
                                                       int channels, int padded, float* __restrict__ centre,
                                                       Limits* __restrict__ limits) {
  constexpr int LANES = 32, GROUPS = THREADS / LANES;
  NEAREST_SHARED_ARRAY(float, sum, THREADS);
  NEAREST_SHARED_ARRAY(int, used, THREADS);
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, channel = blockIdx.x * LANES + lane;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    write(&limits->norm, 0u);
    write(&limits->residual, 0u);
  }
  const int apart = codes > MEAN_SAMPLE ? codes / MEAN_SAMPLE : 1;
  float total = 0;
  int count = 0;
  if (channel < channels)
    for (int64_t code = int64_t{group} * apart; code < codes; code += GROUPS * apart) {
      const float v = read(codebook + code * stride + channel);
      if (finite(v)) total += v, count++;
    }
  sum[threadIdx.x] = total;
  used[threadIdx.x] = count;
  __syncthreads();
  if (group == 0 && channel < padded) {
    for (int g = 1; g < GROUPS; g++) {
      total += sum[g * LANES + lane];
      count += used[g * LANES + lane];
    }
    const float mean = count ? total / count : 0.0f;
    write(centre + channel, finite(mean) ? mean : 0.0f);
  }
}

__device__ __forceinline__ float store_rounded(float* to, float v) { return *to = v; }
__device__ __forceinline__ float store_rounded(uint16_t* to, float v) { return of_bf16(*to = to_bf16(v)); }

// One warp per code. Packed as [tile][step][code in tile][channel in step]: what a step of the search reads
// is one dense piece. Codes that pad the last tile, and codes that are not finite, are zeros with an infinite
// half norm: no score of theirs is ever the smallest. `part`: of the squared norm, what a score begins with.
template <class T>
__global__ void __launch_bounds__(THREADS) pack_codes(const float* __restrict__ codebook, int64_t stride, int codes,
                                                      int channels, int depth, int steps,
                                                      const float* __restrict__ centre, double part,
                                                      T* __restrict__ packed, float* __restrict__ half,
                                                      Limits* __restrict__ limits) {
  const int lane = threadIdx.x % 32, inside = (blockIdx.x * THREADS + threadIdx.x) / 32 % TILE;
  const int64_t tile = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / 32 / TILE, code = tile * TILE + inside;
  bool usable = code < codes;
  for (int d = lane; d < channels && code < codes; d += 32) usable &= finite(read(codebook + code * stride + d));
  usable = __ballot_sync(ALL_LANES, usable) == ALL_LANES;

  double norm = 0, residual = 0;
  for (int d = lane; d < depth * steps; d += 32) {
    const bool real = usable && d < channels;
    const double exact = real ? double(read(codebook + code * stride + d)) - double(read(centre + d)) : 0.0;
    T rounded;
    const double error = exact - double(store_rounded(&rounded, static_cast<float>(exact)));
    write(packed + ((tile * steps + d / depth) * TILE + inside) * depth + d % depth, rounded);
    norm += exact * exact;
    residual += error * error;
  }
  norm = warp_sum(norm);
  residual = warp_sum(residual);
  if (lane == 0) {
    // The float32 search reads the half norms of its eight codes (16 apart) as two float4: side by side here. The
    // bfloat16 search reads those of eight neighbours by ldmatrix: even codes, then odd ones.
    const int place = sizeof(T) == 4 ? inside % 16 * 8 + inside / 16 : inside / 8 * 8 + inside % 2 * 4 + inside % 8 / 2;
    write(half + tile * TILE + place, usable ? static_cast<float>(part * norm) : infinity());
    // 1 + 2^-20: upper bounds stay upper bounds through the rounding to float32.
    const float up = 1.000001f;
    if (usable) atomicMax(&limits->norm, __float_as_uint(static_cast<float>(sqrt(norm)) * up));
    if (usable) atomicMax(&limits->residual, __float_as_uint(static_cast<float>(sqrt(residual)) * up));
  }
}

}  // namespace nearest_code
