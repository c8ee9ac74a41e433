// The emulation itself: kernels that are wrong in one way each must be reported, right ones must not.
#include <cstdio>

#include "../../kernels/nearest_code/cuda/primitives.cuh"

using namespace nearest_code;

static int failed = 0;

// Runs 64 threads; `expected` is a piece of the error, or nothing if there must be none.
void expect(const char* what, const char* expected, std::function<void()> kernel) {
  std::string got;
  try {
    simt::launch(dim3(1), dim3(64), 256, kernel);
  } catch (const std::exception& e) {
    got = e.what();
  }
  const bool good = *expected ? got.find(expected) != std::string::npos : got.empty();
  if (!good) std::printf("FAILED %s: expected '%s'; got '%s'\n", what, expected, got.c_str());
  failed += !good;
}

void products() {
  // mma against plain sums, through ldmatrix: rows 0..15 of a and of b are in shared memory.
  static float wrong;
  wrong = 0;
  expect("mma", "", [] {
    NEAREST_SHARED_ARRAY(uint16_t, a, 16 * 24);
    NEAREST_SHARED_ARRAY(uint16_t, b, 16 * 24);
    const int lane = threadIdx.x % 32;
    for (int i = threadIdx.x; i < 256; i += 64) {
      a[i / 16 * 24 + i % 16] = to_bf16(float(i % 7 - 3));
      b[i / 16 * 24 + i % 16] = to_bf16(float(i % 5 - 2));
    }
    __syncthreads();
    uint32_t x[4], y[4];
    ldmatrix_x4(x, a + lane % 16 * 24 + lane / 16 * 8);
    ldmatrix_x4(y, b + (lane / 16 * 8 + lane % 8) * 24 + lane / 8 % 2 * 8);
    float c[4] = {1, 2, 3, 4}, d[4];
    mma_bf16(d, x, y[0], y[1], c);
    for (int e = 0; e < 4; e++) {
      const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
      float sum = c[e];
      for (int k = 0; k < 16; k++) sum += of_bf16(a[row * 24 + k]) * of_bf16(b[column * 24 + k]);
      wrong += std::fabs(sum - d[e]);
    }
  });
  if (wrong != 0) std::printf("FAILED mma: off by %g\n", double(wrong)), failed++;
}

int main() {
  alignas(16) static float memory[256];
  for (int schedule = 0; schedule < 5; schedule++) {
    simt::settings.schedule = static_cast<simt::Schedule>(schedule);
    expect("barrier", "", [] { __syncthreads(); });
    expect("divergent barrier", "some threads ended", [] {
      if (threadIdx.x < 32) __syncthreads();
    });
    expect("divergent shuffle", "deadlock", [] {
      if (threadIdx.x % 32 < 8) __shfl_xor_sync(ALL_LANES, 1.0f, 1);
    });
    expect("mixed operations", "different operations", [] {
      if (threadIdx.x % 2)
        __shfl_xor_sync(ALL_LANES, 1.0f, 1);
      else
        __ballot_sync(ALL_LANES, true);
    });
    expect("partial mask", "without all lanes", [] { __shfl_sync(0xffu, 1, 0); });
    expect("forgotten copy", "waited for", [] { cp_async16(dynamic_shared(), memory); });
    expect("skewed copy", "not aligned", [] { cp_async16(dynamic_shared() + 4, memory); });
    expect("shuffle", "", [] {
      if (warp_sum(1) != 32) simt::fail("warp_sum");
    });
    products();
  }
  // A late copy lands at the wait, an early one at once; shared memory starts as NaN.
  for (auto copies : {simt::Copies::Early, simt::Copies::Late}) {
    simt::settings.copies = copies;
    expect("copy timing", "", [copies] {
      float* const to = reinterpret_cast<float*>(dynamic_shared());
      if (threadIdx.x) return;
      if (!std::isnan(to[0])) simt::fail("shared memory is not poisoned");
      cp_async16(to, memory);
      cp_commit();
      if (std::isnan(to[0]) != (copies == simt::Copies::Late)) simt::fail("landed at the wrong time");
      cp_wait<0>();
      if (to[0] != memory[0]) simt::fail("not landed");
    });
  }
  std::printf("%d failed\n", failed);
  return failed != 0;
}
