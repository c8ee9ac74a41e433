// The whole search, on a stream and in a workspace of the caller's: nothing is allocated, nothing waits, so
// it can be captured in a CUDA graph. Four launches: centre, pack, filter, refine; one
// more, that packs the rows, for more channels than stay in shared memory.
#pragma once
#include "filter_bfloat16.cuh"
#include "filter_float32.cuh"
#include "prepare.cuh"
#include "refine.cuh"

namespace nearest_code {

// More than 48 KB of shared memory has to be asked for, once per kernel and device; not a stream operation.
template <class Kernel>
inline bool allow_shared(Kernel kernel, int bytes) {
#ifdef __CUDACC__
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaSuccess;
#else
  (void)kernel;
  return bytes <= 99 * 1024;
#endif
}

inline void prepare(const Problem& p, const float* codebook, const Workspace& at, unsigned char* memory,
                    cudaStream_t stream) {
  float* const centre = reinterpret_cast<float*>(memory + at.centre);
  float* const half = reinterpret_cast<float*>(memory + at.half);
  Limits* const limits = reinterpret_cast<Limits*>(memory + at.limits);
  const int padded = p.steps() * p.depth();
  const dim3 warps(static_cast<unsigned>(p.tiles() * (TILE * 32 / THREADS)));
  // Inner products are seen from the origin, the centre of no codes, and have no norm in their scores.
  const int seen = p.product ? 0 : p.codes;
  const double part = p.product ? 0 : 0.5;
  NEAREST_LAUNCH(find_centre, dim3(static_cast<unsigned>(up(padded, 32))), dim3(THREADS), 0, stream, codebook,
                 p.code_stride, seen, p.channels, padded, centre, limits);
  if (p.filter == Filter::Bfloat16)
    NEAREST_LAUNCH(pack_codes<uint16_t>, warps, dim3(THREADS), 0, stream, codebook, p.code_stride, p.codes,
                   p.channels, p.depth(), p.steps(), centre, part,
                   reinterpret_cast<uint16_t*>(memory + at.packed), half, limits);
  else
    NEAREST_LAUNCH(pack_codes<float>, warps, dim3(THREADS), 0, stream, codebook, p.code_stride, p.codes, p.channels,
                   p.depth(), p.steps(), centre, part, reinterpret_cast<float*>(memory + at.packed), half, limits);
}

template <class Kernel, class T>
inline bool run_filter(Kernel kernel, const Problem& p, int shared, const FilterInput& in, const T* packed,
                       cudaStream_t stream) {
  if (!allow_shared(kernel, shared)) return false;
  const dim3 grid(static_cast<unsigned>(p.row_blocks()), static_cast<unsigned>(p.splits));
  NEAREST_LAUNCH(kernel, grid, dim3(THREADS), shared, stream, in, packed);
  return true;
}

template <int DEPTH, bool STREAMED>
inline bool run_bfloat16(const Problem& p, const FilterInput& in, const void* packed, cudaStream_t stream) {
  return run_filter(filter_bfloat16<DEPTH, STREAMED>, p, Bfloat16Layout<DEPTH, STREAMED>::bytes(p.steps()), in,
                    static_cast<const uint16_t*>(packed), stream);
}

template <int DEPTH>
inline bool run_float32(const Problem& p, const FilterInput& in, const void* packed, cudaStream_t stream) {
  return run_filter(filter_float32<DEPTH>, p, Float32Layout<DEPTH>::BYTES, in, static_cast<const float*>(packed),
                    stream);
}

inline bool filter(const Problem& p, const FilterInput& in, const void* packed, cudaStream_t stream) {
  if (p.filter == Filter::Float32)
    return p.depth() == 8 ? run_float32<8>(p, in, packed, stream) : run_float32<16>(p, in, packed, stream);
  if (p.streamed()) {
    NEAREST_LAUNCH(pack_rows, dim3(static_cast<unsigned>(p.row_blocks() * (BLOCK_ROWS * 32 / THREADS))),
                   dim3(THREADS), 0, stream, in, in.packed_rows);
    return run_bfloat16<64, true>(p, in, packed, stream);
  }
  if (p.depth() == 16) return run_bfloat16<16, false>(p, in, packed, stream);
  if (p.depth() == 32) return run_bfloat16<32, false>(p, in, packed, stream);
  return run_bfloat16<64, false>(p, in, packed, stream);
}

// What the filter reads and writes, at its places in the workspace.
inline FilterInput filter_input(const Problem& p, const float* x, unsigned char* memory) {
  const Workspace at(p);
  FilterInput in{};
  in.x = x, in.rows = p.rows, in.row_stride = p.row_stride;
  in.channels = p.channels, in.steps = p.steps(), in.tiles = p.tiles(), in.tiles_per_split = p.tiles_per_split();
  in.centre = reinterpret_cast<const float*>(memory + at.centre);
  in.half = reinterpret_cast<const float*>(memory + at.half);
  in.limits = reinterpret_cast<const Limits*>(memory + at.limits), in.product = p.product;
  in.packed_rows = reinterpret_cast<uint16_t*>(memory + at.rows);
  in.list = reinterpret_cast<Candidate*>(memory + at.list);
  in.count = reinterpret_cast<int*>(memory + at.count);
  in.best = reinterpret_cast<float*>(memory + at.best);
  in.margin = reinterpret_cast<float*>(memory + at.margin);
  return in;
}

// Squared distances (rows) and indices (rows) of the nearest codes, or the largest inner products and where they
// are. `value` may be null; `memory`: Workspace(p).bytes, aligned to 256. Rows that are not finite get index 0 and
// an infinite distance, or product -infinity; codes that are not, are never chosen.
// Returns false if the problem is outside what the kernels take or the device refused; cudaGetLastError knows.
inline bool search(const Problem& p, const float* x, const float* codebook, void* memory, float* value,
                   int64_t* index, cudaStream_t stream) {
  if (p.rows < 0 || p.codes < 1 || p.channels < 1 || p.splits < 1 || p.splits > 65535) return false;
  if (p.filter == Filter::Float32 && p.channels > FLOAT32_CHANNELS) return false;
  // Grids and code numbers are 32 bits.
  if (p.row_blocks() > 0x7fffffff / 32 || p.tiles() > 0x7fffffff / TILE - 1) return false;
  if (p.rows == 0) return true;
  const Workspace at(p);
  unsigned char* const bytes = static_cast<unsigned char*>(memory);
  prepare(p, codebook, at, bytes, stream);
  const FilterInput in = filter_input(p, x, bytes);
  if (!filter(p, in, bytes + at.packed, stream)) return false;

  RefineInput judge{};
  judge.x = x, judge.codebook = codebook;
  judge.rows = p.rows, judge.row_stride = p.row_stride, judge.code_stride = p.code_stride;
  judge.codes = p.codes, judge.channels = p.channels, judge.splits = p.splits;
  judge.shift = p.filter == Filter::Bfloat16 ? 1 : 0;
  judge.stride = p.filter == Filter::Bfloat16 ? 8 : 16;
  judge.list = in.list, judge.count = in.count, judge.best = in.best, judge.margin = in.margin;
  judge.product = p.product, judge.value = value;
  judge.index = index, judge.index_stride = p.index_stride;
  NEAREST_LAUNCH(refine, dim3(static_cast<unsigned>(up(p.rows * 32, THREADS))), dim3(THREADS), 0, stream, judge);
  return true;
}

}  // namespace nearest_code
