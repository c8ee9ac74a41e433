// The filter in float32 on the ordinary cores, for up to 64 channels.
//
// A block holds 128 rows (all their channels, in shared memory, for the whole search) against tiles of 128
// codes that stream by in steps of DEPTH channels through two buffers: one is computed on while cp.async
// fills the other. A thread owns 8 rows x 8 codes, so that each 16-byte load feeds 16 multiply-adds.
#pragma once
#include "filter.cuh"

namespace nearest_code {

template <int DEPTH>
struct Float32Layout {
  static constexpr int ROWS = BLOCK_ROWS, PER_THREAD = 8, GROUPS = 16;
  // Pitches: four floats more than a power of two, so that 8 lanes reading 16 bytes hit all 32 banks.
  static constexpr int ROW_PITCH = FLOAT32_CHANNELS + 4, CODE_PITCH = DEPTH + 4;
  static constexpr int X = 0, CODES = X + ROWS * ROW_PITCH * 4, HALF = CODES + 2 * TILE * CODE_PITCH * 4;
  static constexpr int STATE = HALF + 2 * TILE * 4, BYTES = STATE + ROWS * RowState::BYTES_PER_ROW;
  static constexpr int COPIES = TILE * DEPTH / 4 / THREADS;
};

template <int DEPTH>
__global__ void __launch_bounds__(THREADS, 1) filter_float32(FilterInput in, const float* __restrict__ packed) {
  using L = Float32Layout<DEPTH>;
  unsigned char* shared = dynamic_shared();
  float* const rows = reinterpret_cast<float*>(shared + L::X);
  float* const codes = reinterpret_cast<float*>(shared + L::CODES);
  float* const half = reinterpret_cast<float*>(shared + L::HALF);
  const RowState state(shared + L::STATE, L::ROWS);
  const int thread = threadIdx.x, tx = thread % L::GROUPS, ty = thread / L::GROUPS;
  const int64_t row0 = int64_t{blockIdx.x} * L::ROWS;
  Candidate* const list = in.list + (int64_t{blockIdx.y} * in.rows + row0) * CANDIDATES;
  const TileRange range(in);
  constexpr float UNIT = 6e-8f;  // rounding to nearest: 2^-24

  const float* source = packed + int64_t{range.from} * in.steps * TILE * DEPTH + thread * 4;
  auto load = [&](int buffer, int tile, bool first) {
#pragma unroll
    for (int i = 0; i < L::COPIES; i++) {
      const int chunk = thread + i * THREADS, r = chunk / (DEPTH / 4), q = chunk % (DEPTH / 4);
      cp_async16(codes + (buffer * TILE + r) * L::CODE_PITCH + q * 4, source + i * THREADS * 4);
    }
    if (first && thread < TILE / 4)
      cp_async16(half + tile % 2 * TILE + thread * 4, in.half + int64_t{tile} * TILE + thread * 4);
    cp_commit();
    source += TILE * DEPTH;
  };
  auto row_of = [=](int i) { return ty + i * L::GROUPS; };

  if (range.from < range.to) load(0, range.from, true);  // the last splits may be empty
  // Rows are kept negative: the multiply-add then subtracts the product from the half norm.
  // The second buffer of codes is free until the first barrier of the loop: the centre waits there.
  take_rows<L::ROWS>(in, row0, state, codes + TILE * L::CODE_PITCH, UNIT, in.steps * DEPTH, [=](int r, int d, float v) {
    rows[r * L::ROW_PITCH + d] = -v;
    return v;
  });

  float score[L::PER_THREAD][L::PER_THREAD];
  auto multiply = [&](int buffer, int tile, int step, auto first) {
    const float* const a = rows + ty * L::ROW_PITCH + step * DEPTH;
    const float* const b = codes + (buffer * TILE + tx) * L::CODE_PITCH;
    float h[L::PER_THREAD];
    if (decltype(first)::value) {
      const float4* const p = reinterpret_cast<const float4*>(half + tile % 2 * TILE + tx * 8);
      const float4 low = p[0], high = p[1];
      h[0] = low.x, h[1] = low.y, h[2] = low.z, h[3] = low.w;
      h[4] = high.x, h[5] = high.y, h[6] = high.z, h[7] = high.w;
    }
#pragma unroll
    for (int d = 0; d < DEPTH; d += 4) {
      float4 row[L::PER_THREAD];
#pragma unroll
      for (int i = 0; i < L::PER_THREAD; i++)
        row[i] = *reinterpret_cast<const float4*>(a + i * L::GROUPS * L::ROW_PITCH + d);
#pragma unroll
      for (int j = 0; j < L::PER_THREAD; j++) {
        const float4 code = *reinterpret_cast<const float4*>(b + j * L::GROUPS * L::CODE_PITCH + d);
#pragma unroll
        for (int i = 0; i < L::PER_THREAD; i++) {
          // The first product of a tile takes the half norm as its addend: no separate start of the sums.
          const float start = decltype(first)::value && d == 0 ? h[j] : score[i][j];
          score[i][j] = fmaf(row[i].x, code.x, start);
          score[i][j] = fmaf(row[i].y, code.y, score[i][j]);
          score[i][j] = fmaf(row[i].z, code.z, score[i][j]);
          score[i][j] = fmaf(row[i].w, code.w, score[i][j]);
        }
      }
    }
  };

  Watch<L::PER_THREAD> watch;
  int buffer = 0;
  for (int tile = range.from; tile < range.to; tile++) {
    for (int step = 0; step < in.steps; step++) {
      // One barrier a step: it says that everybody's copies are in and that the other buffer is free.
      cp_wait<0>();
      __syncthreads();
      if (step == 0) watch.keep(state, row_of, list, in.rows - row0, (tile - 1) * TILE + tx);
      const bool last = step + 1 == in.steps;
      if (!last || tile + 1 < range.to) load(buffer ^ 1, last ? tile + 1 : tile, last);
      if (step == 0)
        multiply(buffer, tile, step, Yes());
      else
        multiply(buffer, tile, step, No());
      buffer ^= 1;
    }
#pragma unroll
    for (int i = 0; i < L::PER_THREAD; i++) {
      watch.smallest[i] = score[i][0];
#pragma unroll
      for (int j = 1; j < L::PER_THREAD; j++) watch.smallest[i] = fminf(watch.smallest[i], score[i][j]);
    }
    watch.lower(state, row_of);
  }
  __syncthreads();  // not for the answer: with everybody's minima known, fewer candidates are kept
  watch.keep(state, row_of, list, in.rows - row0, (range.to - 1) * TILE + tx);
  __syncthreads();
  finish_rows<L::ROWS, true>(in, row0, state);
}

}  // namespace nearest_code
