// The filter in bfloat16 on the tensor cores (mma.sync m16n8k16, ldmatrix), for any number of channels.
//
// 8 warps as 2 x 4 over a tile of 128 rows x 128 codes: a warp owns 64 rows x 32 codes. Rows are rounded once
// and stay in registers up to 32 channels and in shared memory up to 256; beyond, they are rounded by a kernel
// of their own and stream by with the codes. Codes stream in steps of DEPTH channels through two buffers.
#pragma once
#include "filter.cuh"

namespace nearest_code {

template <int DEPTH, bool STREAMED>
struct Bfloat16Layout {
  static constexpr int MT = 4, NT = 4, WARP_COLUMNS = 4;
  static constexpr int PIECES = DEPTH / 8;        // of 16 bytes, what ldmatrix and cp.async move
  static constexpr int STEP = TILE * DEPTH;       // elements of a step, of codes or of rows
  static constexpr int COPIES = STEP / 8 / THREADS;
  static constexpr int BUFFER = STEP + 2 * TILE;  // elements: codes of a step, and half norms for a tile's first
  static constexpr bool KEPT = DEPTH < 64;        // rows of one step stay in registers
  static constexpr int CODES = 0, STATE = CODES + 2 * BUFFER * 2;
  static constexpr int X = STATE + BLOCK_ROWS * RowState::BYTES_PER_ROW;
  static_assert(TILE == BLOCK_ROWS, "a step of rows is as large as one of codes");

  __host__ __device__ static constexpr int bytes(int steps) { return X + (STREAMED ? 2 : steps) * STEP * 2; }

  // Where piece q of line r is kept: without padding, and so that the 8 lines that ldmatrix reads together
  // lie in different banks. Lines 16 apart are swizzled alike.
  __device__ static constexpr int place(int r, int q) { return r * DEPTH + (q ^ r / (8 / PIECES) % PIECES) * 8; }
};

__device__ __forceinline__ float negated(uint16_t* to, float v) {
  const uint16_t rounded = to_bf16(v);
  *to = rounded ^ 0x8000;
  return of_bf16(rounded);
}

// Truncating adders of the tensor cores lose up to a unit in the last place, not half: 2^-22 is generous.
constexpr float TENSOR_UNIT = 2.4e-7f;

// Rows that stream, packed as codes are: [block][step][row in block][channel in step]. One warp per row.
__global__ void __launch_bounds__(THREADS) pack_rows(FilterInput in, uint16_t* __restrict__ packed) {
  constexpr int DEPTH = 64;
  const int64_t row = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / 32;
  const int64_t block = row / BLOCK_ROWS, inside = row % BLOCK_ROWS;
  const float2 sums = take_row(in, row, in.centre, in.steps * DEPTH, [=](int d, float v) {
    uint16_t stored;
    const float used = negated(&stored, v);
    write(packed + ((block * in.steps + d / DEPTH) * BLOCK_ROWS + inside) * DEPTH + d % DEPTH, stored);
    return used;
  });
  if (threadIdx.x % 32 == 0 && row < in.rows)
    write(in.margin + row, margin_of(sums.x, sums.y, largest(in), in.channels, TENSOR_UNIT));
}

template <int DEPTH, bool STREAMED>
__global__ void __launch_bounds__(THREADS, 1) filter_bfloat16(FilterInput in, const uint16_t* __restrict__ packed) {
  using L = Bfloat16Layout<DEPTH, STREAMED>;
  unsigned char* shared = dynamic_shared();
  uint16_t* const codes = reinterpret_cast<uint16_t*>(shared + L::CODES);
  uint16_t* const rows = reinterpret_cast<uint16_t*>(shared + L::X);
  const RowState state(shared + L::STATE, BLOCK_ROWS);
  const int steps = DEPTH < 64 ? 1 : in.steps;  // the small depths are for codes of one step
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / L::WARP_COLUMNS * 16 * L::MT, warp_code = warp % L::WARP_COLUMNS * 8 * L::NT;
  const int64_t row0 = int64_t{blockIdx.x} * BLOCK_ROWS;
  Candidate* const list = in.list + (int64_t{blockIdx.y} * in.rows + row0) * CANDIDATES;
  const TileRange range(in);

  // A step is dense in memory; thread t copies pieces t, t + 256, ... of it.
  const int piece = L::place(thread / L::PIECES, thread % L::PIECES);
  const uint16_t* source = packed + int64_t{range.from} * steps * L::STEP + thread * 8;
  const uint16_t* const row_source =
      STREAMED ? in.packed_rows + int64_t{blockIdx.x} * steps * L::STEP + thread * 8 : nullptr;
  const float* half_source = in.half + int64_t{range.from} * TILE + thread * 4;
  // `buffer`: where it starts, of the codes' two.
  auto load = [&](int buffer, int step) {
#pragma unroll
    for (int i = 0; i < L::COPIES; i++)
      cp_async16(codes + buffer + piece + i * THREADS * 8, source + i * THREADS * 8);
    if (STREAMED) {
#pragma unroll
      for (int i = 0; i < L::COPIES; i++)
        cp_async16(rows + (buffer ? L::STEP : 0) + piece + i * THREADS * 8,
                   row_source + (step * L::STEP + i * THREADS * 8));
    }
    if (step == 0) {
      if (thread < TILE / 4) cp_async16(codes + buffer + L::STEP + thread * 8, half_source);
      half_source += TILE;
    }
    cp_commit();
    source += L::STEP;
  };
  // Fragment layout of mma: a thread's results are rows lane/4 and lane/4 + 8 of each 16, and columns
  // 2 (lane%4) and the next of each 8.
  auto row_of = [=](int i) { return warp_row + i / 2 * 16 + i % 2 * 8 + lane / 4; };
  const int first_code = warp_code + lane % 4 * 2;

  if (range.from < range.to) load(0, 0);  // the last splits may be empty
  if (STREAMED) {
    if (thread < BLOCK_ROWS)
      start_row(in, state, thread, row0 + thread, row0 + thread < in.rows ? read(in.margin + row0 + thread) : 0.0f);
  } else {
    // Rows are kept negative: the product is then added to the half norm. The second buffer of codes is free
    // until the first barrier of the loop: the centre waits there.
    take_rows<BLOCK_ROWS>(in, row0, state, reinterpret_cast<float*>(codes + L::BUFFER), TENSOR_UNIT, steps * DEPTH,
                          [=](int r, int d, float v) {
                            uint16_t* const to = rows + d / DEPTH * L::STEP;
                            return negated(to + L::place(r, d % DEPTH / 8) + d % 8, v);
                          });
  }

  // ldmatrix: lanes 8m..8m+7 point at the lines of 8 x 8 matrix m. Rows: matrices 0-3 are (upper, left),
  // (lower, left), (upper, right), (lower, right) of 16 x 16. Codes: (first 8, left), (first 8, right), ...
  // The next 16 channels are two pieces on, which in a swizzled line is an exclusive or.
  const int row_place = L::place(warp_row + lane % 16, lane / 16);
  const int code_place = L::place(warp_code + lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const int half_place = warp_code * 2 + lane / 8 % 2 * 8;
  float score[L::MT][L::NT][4];
  auto read_rows = [&](uint32_t(&row)[L::MT][4], const uint16_t* a, int d) {
#pragma unroll
    for (int i = 0; i < L::MT; i++) ldmatrix_x4(row[i], a + (row_place ^ d) + i * 16 * DEPTH);
  };
  uint32_t kept[L::KEPT ? DEPTH / 16 : 1][L::MT][4];
  if (L::KEPT) {
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH; d += 16) read_rows(kept[d / 16], rows, d);
  }
  auto multiply = [&](int buffer, int step, auto first) {
    const uint16_t* const a = rows + (STREAMED ? buffer > 0 : step) * L::STEP;
    const uint16_t* const b = codes + buffer;
    const uint16_t* const h = b + L::STEP + half_place;
#pragma unroll
    for (int d = 0; d < DEPTH; d += 16) {
      uint32_t fresh[L::MT][4], code[L::NT / 2][4];
      if (!L::KEPT) read_rows(fresh, a, d);
      const auto& row = L::KEPT ? kept[d / 16] : fresh;
#pragma unroll
      for (int j = 0; j < L::NT / 2; j++) ldmatrix_x4(code[j], b + (code_place ^ d) + j * 16 * DEPTH);
#pragma unroll
      for (int j = 0; j < L::NT; j++) {
        const uint32_t b0 = code[j / 2][j % 2 * 2], b1 = code[j / 2][j % 2 * 2 + 1];
        if (decltype(first)::value && d == 0) {
          // The first product of a tile takes the half norms as its addend: no separate start of the sums.
          // By ldmatrix they land as it wants them, (x, y, x, y); put there one by one, a tile takes 42 moves.
          uint32_t bits[4];
          ldmatrix_x4(bits, h + j * 16);
          const float start[4] = {__uint_as_float(bits[0]), __uint_as_float(bits[1]), __uint_as_float(bits[2]),
                                  __uint_as_float(bits[3])};
#pragma unroll
          for (int i = 0; i < L::MT; i++) mma_bf16(score[i][j], row[i], b0, b1, start);
        } else {
#pragma unroll
          for (int i = 0; i < L::MT; i++) mma_bf16(score[i][j], row[i], b0, b1, score[i][j]);
        }
      }
    }
  };

  Watch<2 * L::MT> watch;
  int buffer = 0;
  for (int tile = range.from; tile < range.to; tile++) {
    for (int step = 0; step < steps; step++) {
      // One barrier a step: it says that everybody's copies are in and that the other buffer is free.
      cp_wait<0>();
      __syncthreads();
      if (step == 0) watch.keep(state, row_of, list, in.rows - row0, (tile - 1) * TILE + first_code);
      const bool last = step + 1 == steps;
      if (!last || tile + 1 < range.to) load(L::BUFFER - buffer, last ? 0 : step + 1);
      if (step == 0)
        multiply(buffer, step, Yes());
      else
        multiply(buffer, step, No());
      buffer = L::BUFFER - buffer;
    }
#pragma unroll
    for (int i = 0; i < 2 * L::MT; i++) {
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
  finish_rows<BLOCK_ROWS, !STREAMED>(in, row0, state);
}

}  // namespace nearest_code
