// Chooses the kernel at run time; holds what does not depend on the instruction set.
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "nearest_code.h"

namespace tokenizers_vq {

Buffer::Buffer(size_t bytes) : start_(aligned_alloc(64, (bytes + 64) / 64 * 64)) {
  if (!start_) throw std::bad_alloc();
}
Buffer::~Buffer() { free(start_); }

namespace {

struct Kernel {
  const char* name;
  void (*run)(const Search&);
  const char* names_up_to_here;
};

#if defined(__x86_64__)
constexpr Kernel kKernels[] = {
    {"generic", search_generic, "generic"},
    {"avx2", search_avx2, "generic avx2"},
    {"avx512", search_avx512, "generic avx2 avx512"},
    {"avx512_bf16", search_avx512_bf16, "generic avx2 avx512 avx512_bf16"},
};

int best_kernel() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) {
    return 1;
  }
  return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
}

// Intel's cores multiply bfloat16 no faster than their two float32 units do, and refine more then.
int default_kernel() {
  const int best = best_kernel();
  return best == 3 && !__builtin_cpu_is("amd") ? 2 : best;
}
#else
constexpr Kernel kKernels[] = {{"generic", search_generic, "generic"}};
int best_kernel() { return 0; }
int default_kernel() { return 0; }
#endif

}  // namespace

const char* supported() { return kKernels[best_kernel()].names_up_to_here; }
const char* preferred() { return kKernels[default_kernel()].name; }

void search(const Search& task) {
  static const int best = best_kernel(), usual = default_kernel();
  const char* wish = getenv("TOKENIZERS_VQ_ISA");
  int chosen = usual;
  for (int i = 0; wish && i <= best; ++i) {
    if (!strcmp(wish, kKernels[i].name)) chosen = i;
  }
  kKernels[chosen].run(task);
}

bool code_stats(const float* x, int64_t rows, int64_t x_stride, int64_t width, const int64_t* index,
                int64_t count, float* counts, float* sums) {
  std::vector<int64_t> start(static_cast<size_t>(count) + 1, 0);
  for (int64_t n = 0; n < rows; ++n) {
    if (index[n] < 0 || index[n] >= count) return false;
    ++start[index[n] + 1];
  }
  for (int64_t k = 0; k < count; ++k) {
    counts[k] = static_cast<float>(start[k + 1]);
    start[k + 1] += start[k];
  }
  // A stable counting sort: each code then adds its rows in their order, with no atomics.
  std::vector<int64_t> order(static_cast<size_t>(rows)), next(start.begin(), start.end() - 1);
  for (int64_t n = 0; n < rows; ++n) order[next[index[n]]++] = n;
  struct Context {
    const float* x;
    int64_t x_stride, width;
    const int64_t *start, *order;
    float* sums;
  } context{x, x_stride, width, start.data(), order.data(), sums};
  parallel(count, [](int64_t begin, int64_t end, void* raw) {
    const Context& c = *static_cast<Context*>(raw);
    for (int64_t k = begin; k < end; ++k) {
      float* sum = c.sums + k * c.width;
      memset(sum, 0, static_cast<size_t>(c.width) * 4);
      for (int64_t j = c.start[k]; j < c.start[k + 1]; ++j) {
        const float* row = c.x + c.order[j] * c.x_stride;
        for (int64_t d = 0; d < c.width; ++d) sum[d] += row[d];
      }
    }
  }, &context);
  return true;
}

}  // namespace tokenizers_vq
