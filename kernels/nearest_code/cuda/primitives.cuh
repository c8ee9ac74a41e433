// The few instructions the kernels need by name: as PTX for nvcc, emulated for a C++ compiler.
#pragma once
#include <cstdint>
#ifdef __CUDACC__
#include <cuda_runtime.h>
#define NEAREST_SHARED_ARRAY(T, name, count) __shared__ T name[count]
#define NEAREST_LAUNCH(kernel, grid, size, shared, stream, ...) \
  kernel<<<grid, size, shared, stream>>>(__VA_ARGS__)
#else
#include "../../simt/simt.h"
using cudaStream_t = void*;
#define NEAREST_SHARED_ARRAY(T, name, count) T* name = simt::shared_array<T, (count)>(__LINE__)
#define NEAREST_LAUNCH(kernel, grid, size, shared, stream, ...) \
  simt::launch(grid, size, shared, [=] { (void)(stream), kernel(__VA_ARGS__); })
#endif

namespace nearest_code {

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ bool finite(float v) { return (__float_as_uint(v) & 0x7f800000u) != 0x7f800000u; }

// Order of floats as order of integers, so that an integer minimum in shared memory serves floats.
__device__ __forceinline__ int to_ordered(float v) {
  const int bits = __float_as_int(v);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
__device__ __forceinline__ float from_ordered(int v) { return __int_as_float(v < 0 ? v ^ 0x7fffffff : v); }

// The nearest bfloat16, ties to even, as bits. Callers pass finite values; too large ones become infinite.
__device__ __forceinline__ uint16_t to_bf16(float v) {
  const unsigned bits = __float_as_uint(v);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
__device__ __forceinline__ float of_bf16(uint16_t v) { return __uint_as_float(static_cast<unsigned>(v) << 16); }

#ifdef __CUDACC__

template <class T>
__device__ __forceinline__ T read(const T* p) {
  return *p;
}
template <class T, class V>
__device__ __forceinline__ void write(T* p, V v) {
  *p = v;
}
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char nearest_code_dynamic_shared[];
  return nearest_code_dynamic_shared;
}
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void cp_async16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void cp_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void cp_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                         const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};\n"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

#else

using simt::cp_async16;
using simt::cp_commit;
using simt::cp_wait;
using simt::ldmatrix_x4;
using simt::mma_bf16;
using simt::read;
using simt::write;
inline unsigned char* dynamic_shared() { return reinterpret_cast<unsigned char*>(simt::dynamic_shared()); }

#endif

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
  for (int bits = 16; bits; bits >>= 1) v += __shfl_xor_sync(ALL_LANES, v, bits);
  return v;
}

}  // namespace nearest_code
