// The filter in bfloat16 on the tensor cores (mma.sync m16n8k16, ldmatrix), for any number of channels.
//
// 8 warps as 2 x 4 over a tile of 32 MT rows x 128 codes: a warp owns 16 MT rows x 32 codes. Rows are
// rounded once and stay in shared memory while they fit (128 rows up to 256 channels, 64 rows up to 512);
// beyond, they stream by with the codes. Codes stream in steps of 32 channels through two buffers.
#pragma once
#include "filter.cuh"

namespace nearest_code {

template <int MT, bool STREAMED>
struct Bfloat16Layout {
  static constexpr int ROWS = 32 * MT, NT = 4, WARP_COLUMNS = 4, DEPTH = 32;
  // An odd number of 16-byte pieces per row: ldmatrix reads 8 rows without bank conflicts.
  static constexpr int CODE_PITCH = DEPTH + 8;
  static constexpr int CODES = 0, HALF = CODES + 2 * TILE * CODE_PITCH * 2, STATE = HALF + 2 * TILE * 4;
  static constexpr int X = STATE + ROWS * RowState::BYTES_PER_ROW;
  static constexpr int COPIES = TILE * DEPTH / 8 / THREADS;

  __host__ __device__ static constexpr int row_pitch(int steps) { return STREAMED ? CODE_PITCH : steps * DEPTH + 8; }
  __host__ __device__ static constexpr int bytes(int steps) {
    return X + (STREAMED ? 2 : 1) * ROWS * row_pitch(steps) * 2;
  }
};

template <int MT, bool STREAMED>
__global__ void __launch_bounds__(THREADS, 1) filter_bfloat16(FilterInput in, const uint16_t* __restrict__ packed) {
  using L = Bfloat16Layout<MT, STREAMED>;
  unsigned char* shared = dynamic_shared();
  uint16_t* const codes = reinterpret_cast<uint16_t*>(shared + L::CODES);
  float* const half = reinterpret_cast<float*>(shared + L::HALF);
  uint16_t* const rows = reinterpret_cast<uint16_t*>(shared + L::X);
  const RowState state(shared + L::STATE, L::ROWS);
  const int pitch = L::row_pitch(in.steps);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / L::WARP_COLUMNS * 16 * MT, warp_code = warp % L::WARP_COLUMNS * 8 * L::NT;
  const int64_t row0 = int64_t{blockIdx.x} * L::ROWS;
  Candidate* const list = in.list + (int64_t{blockIdx.y} * in.rows + row0) * CANDIDATES;
  const TileRange range(in);
  // Truncating adders of the tensor cores lose up to a unit in the last place, not half: 2^-22 is generous.
  constexpr float UNIT = 2.4e-7f;

  const uint16_t* source = packed + int64_t{range.from} * in.steps * TILE * L::DEPTH + thread * 8;
  auto load_codes = [&](int buffer, int tile, bool first) {
#pragma unroll
    for (int i = 0; i < L::COPIES; i++) {
      const int chunk = thread + i * THREADS, r = chunk / (L::DEPTH / 8), q = chunk % (L::DEPTH / 8);
      cp_async16(codes + (buffer * TILE + r) * L::CODE_PITCH + q * 8, source + i * THREADS * 8);
    }
    if (first && thread < TILE / 4)
      cp_async16(half + tile % 2 * TILE + thread * 4, in.half + int64_t{tile} * TILE + thread * 4);
    cp_commit();
    source += TILE * L::DEPTH;
  };
  // Rows are kept negative: the product is then added to the half norm.
  auto load_rows = [&](int buffer, int step) {
#pragma unroll 4
    for (int i = thread; i < L::ROWS * L::DEPTH; i += THREADS) {
      const int r = i / L::DEPTH, d = step * L::DEPTH + i % L::DEPTH;
      const bool real = row0 + r < in.rows && d < in.channels;
      const float v = real ? read(in.centre + d) - read(in.x + (row0 + r) * in.row_stride + d) : 0.0f;
      rows[(buffer * L::ROWS + r) * L::CODE_PITCH + i % L::DEPTH] = to_bf16(v);
    }
  };
  auto load = [&](int buffer, int tile, int step) {
    load_codes(buffer, tile, step == 0);
    if (STREAMED) load_rows(buffer, step);
  };
  // Fragment layout of mma: a thread's results are rows lane/4 and lane/4 + 8 of each 16, and columns
  // 2 (lane%4) and the next of each 8.
  auto row_of = [=](int i) { return warp_row + i / 2 * 16 + i % 2 * 8 + lane / 4; };
  const int first_code = warp_code + lane % 4 * 2;

  const bool empty = range.from >= range.to;  // the last splits may be; the same for the whole block
  if (!empty) load(0, range.from, 0);
  take_rows<L::ROWS>(in, row0, state, UNIT, in.steps * L::DEPTH, [=](int r, int d, float v) {
    const uint16_t rounded = to_bf16(v);
    if (!STREAMED) rows[r * pitch + d] = rounded ^ 0x8000;
    return of_bf16(rounded);
  });

  // ldmatrix: lanes 8m..8m+7 point at the rows of 8 x 8 matrix m. Rows: matrices 0-3 are (upper, left),
  // (lower, left), (upper, right), (lower, right) of 16 x 16. Codes: (first 8, left), (first 8, right), ...
  const uint16_t* const row_lane = rows + (warp_row + lane % 16) * pitch + lane / 16 * 8;
  const uint16_t* const code_lane =
      codes + (warp_code + lane / 16 * 8 + lane % 8) * L::CODE_PITCH + lane / 8 % 2 * 8;
  float score[MT][L::NT][4];
  auto multiply = [&](int buffer, int tile, int step, auto first) {
    const uint16_t* const a = row_lane + (STREAMED ? buffer * L::ROWS * L::CODE_PITCH : step * L::DEPTH);
    const uint16_t* const b = code_lane + buffer * TILE * L::CODE_PITCH;
    const float* const h = half + tile % 2 * TILE + first_code;
#pragma unroll
    for (int d = 0; d < L::DEPTH; d += 16) {
      uint32_t row[MT][4], code[L::NT / 2][4];
#pragma unroll
      for (int i = 0; i < MT; i++) ldmatrix_x4(row[i], a + i * 16 * pitch + d);
#pragma unroll
      for (int j = 0; j < L::NT / 2; j++) ldmatrix_x4(code[j], b + j * 16 * L::CODE_PITCH + d);
#pragma unroll
      for (int j = 0; j < L::NT; j++) {
        const uint32_t b0 = code[j / 2][j % 2 * 2], b1 = code[j / 2][j % 2 * 2 + 1];
        if (decltype(first)::value && d == 0) {
          // The first product of a tile takes the half norms as its addend: no separate start of the sums.
          const float2 pair = *reinterpret_cast<const float2*>(h + j * 8);
          const float start[4] = {pair.x, pair.y, pair.x, pair.y};
#pragma unroll
          for (int i = 0; i < MT; i++) mma_bf16(score[i][j], row[i], b0, b1, start);
        } else {
#pragma unroll
          for (int i = 0; i < MT; i++) mma_bf16(score[i][j], row[i], b0, b1, score[i][j]);
        }
      }
    }
  };

  Watch<2 * MT> watch;
  int buffer = 0;
  for (int tile = range.from; tile < range.to; tile++) {
    for (int step = 0; step < in.steps; step++) {
      // One barrier a step: it says that everybody's copies are in and that the other buffer is free.
      cp_wait<0>();
      __syncthreads();
      if (step == 0) watch.keep(state, row_of, list, in.rows - row0, (tile - 1) * TILE + first_code);
      const bool last = step + 1 == in.steps;
      if (!last || tile + 1 < range.to) load(buffer ^ 1, last ? tile + 1 : tile, last ? 0 : step + 1);
      if (step == 0)
        multiply(buffer, tile, step, Yes());
      else
        multiply(buffer, tile, step, No());
      buffer ^= 1;
    }
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
      const int at = i % 2 * 2;
      watch.smallest[i] = fminf(score[i / 2][0][at], score[i / 2][0][at + 1]);
#pragma unroll
      for (int j = 1; j < L::NT; j++)
        watch.smallest[i] = fminf(watch.smallest[i], fminf(score[i / 2][j][at], score[i / 2][j][at + 1]));
    }
    watch.lower(state, row_of);
  }
  __syncthreads();  // not for the answer: with everybody's minima known, fewer candidates are kept
  watch.keep(state, row_of, list, in.rows - row0, (range.to - 1) * TILE + first_code);
  __syncthreads();
  finish_rows<L::ROWS>(in, row0, state);
}

}  // namespace nearest_code
