// Chooses the kernel at run time; holds what does not depend on the instruction set.
#include <pthread.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "nearest_code.h"

namespace tokenizers_vq {

Buffer::Buffer(size_t bytes) : start_(aligned_alloc(64, (bytes + 64) / 64 * 64)) {
  if (!start_) throw std::bad_alloc();
}
Buffer::~Buffer() { free(start_); }
Packed::Packed(int64_t codes, int64_t words_per_code, int64_t width)
    : words(static_cast<size_t>(codes * words_per_code * 4)),
      halves(static_cast<size_t>(codes * 4)),
      around(static_cast<size_t>(width * 4)),
      bytes((codes * (words_per_code + 1) + width) * 4) {}

namespace {

struct Kernel {
  const char* name;
  Packed* (*pack)(const Codes&);
  void (*run)(const Search&, const Packed*);
  const char* names_up_to_here;
};

#if defined(__x86_64__)
constexpr Kernel kKernels[] = {
    {"generic", pack_generic, search_generic, "generic"},
    {"avx2", pack_avx2, search_avx2, "generic avx2"},
    {"avx512", pack_avx512, search_avx512, "generic avx2 avx512"},
    {"avx512_bf16", pack_avx512_bf16, search_avx512_bf16, "generic avx2 avx512 avx512_bf16"},
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
constexpr Kernel kKernels[] = {{"generic", pack_generic, search_generic, "generic"}};
int best_kernel() { return 0; }
int default_kernel() { return 0; }
#endif

}  // namespace

const char* supported() { return kKernels[best_kernel()].names_up_to_here; }
const char* preferred() { return kKernels[default_kernel()].name; }

namespace {

int chosen_kernel() {
  static const int best = best_kernel(), usual = default_kernel();
  const char* wish = getenv("TOKENIZERS_VQ_ISA");
  int chosen = usual;
  for (int i = 0; wish && i <= best; ++i) {
    if (!strcmp(wish, kKernels[i].name)) chosen = i;
  }
  return chosen;
}

int64_t bytes(const Codes& c) { return c.count * c.width * 4; }

// Small packed codebooks, most recently used first. Each is kept with a copy of the numbers it was
// made from, and used only for a codebook that equals that copy: no write to the codebook, however
// it is done, and no other codebook at the same address can be answered with old codes. Comparing
// costs a tenth of packing, and almost nothing where the first code already differs.
class Cache {
 public:
  static constexpr int64_t kLargest = 2 << 20;  // bytes of a codebook that is kept
  static constexpr int64_t kTotal = 32 << 20;   // bytes of all that is kept
  static constexpr int64_t kLeast = 256 << 10;  // what a small one counts: at most 128 are compared

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  std::shared_ptr<const Packed> get(int kernel, const Codes& codes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto at = entries_.begin(); at != entries_.end(); ++at) {
        if (at->kernel == kernel && at->holds(codes)) {
          ++state_.hits;
          entries_.splice(entries_.begin(), entries_, at);
          return at->packed;
        }
      }
      ++state_.misses;
    }
    std::unique_ptr<float[]> copy(new float[static_cast<size_t>(codes.count * codes.width)]);
    for (int64_t k = 0; k < codes.count; ++k) {
      memcpy(copy.get() + k * codes.width, codes.start + k * codes.stride,
             static_cast<size_t>(codes.width) * 4);
    }
    // Packed from the copy: the two belong together even if another thread writes meanwhile.
    const Codes copied{copy.get(), codes.count, codes.width, codes.width, codes.product};
    std::shared_ptr<const Packed> packed(kKernels[kernel].pack(copied));
    const std::lock_guard<std::mutex> lock(mutex_);
    // What was at this address has changed, as in training: the old one will not come back.
    entries_.remove_if([&](const Entry& e) {
      return e.kernel == kernel && e.codes.start == codes.start && e.codes.count == codes.count &&
             e.codes.product == codes.product;
    });
    entries_.push_front({kernel, codes, std::move(copy), packed});
    state_.bytes = 0;
    for (auto at = entries_.begin(); at != entries_.end();) {
      state_.bytes += at->size();
      if (state_.bytes > kTotal) {
        state_.bytes -= at->size();
        at = entries_.erase(at);
      } else {
        ++at;
      }
    }
    return packed;
  }

  CacheState state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return state_;
  }

 private:
  struct Entry {
    int kernel;
    Codes codes;
    std::unique_ptr<float[]> copy;
    std::shared_ptr<const Packed> packed;

    int64_t size() const {
      const int64_t held = bytes(codes) + packed->bytes;
      return held > kLeast ? held : kLeast;
    }

    bool holds(const Codes& c) const {
      if (c.count != codes.count || c.width != codes.width || c.product != codes.product) {
        return false;
      }
      const size_t row = static_cast<size_t>(c.width) * 4;
      if (c.stride == c.width) {
        return !memcmp(copy.get(), c.start, row * static_cast<size_t>(c.count));
      }
      for (int64_t k = 0; k < c.count; ++k) {
        if (memcmp(copy.get() + k * c.width, c.start + k * c.stride, row)) return false;
      }
      return true;
    }
  };
  std::mutex mutex_;
  std::list<Entry> entries_;
  CacheState state_{0, 0, 0};
};

Cache& cache() {
  static Cache& kept = [&]() -> Cache& {
    // A process that forks while another thread searches gets a free lock, not one held for ever.
    pthread_atfork([] { cache().lock(); }, [] { cache().unlock(); }, [] { cache().unlock(); });
    return *new Cache;  // never destroyed: threads may outlive static objects
  }();
  return kept;
}

// Made when the library is loaded: a process forked amid the first call would wait for its end for ever.
[[maybe_unused]] const Cache& made = cache();

// Few rows per thread: each packs the codes it is about to read, and no packed codebook exists.
constexpr int64_t kFewRows = 576;

void search_with(int kernel, const Search& task) {
  const Kernel& k = kKernels[kernel];
  if (bytes(task.codes) <= Cache::kLargest) {
    k.run(task, cache().get(kernel, task.codes).get());
  } else if (task.rows <= kFewRows * task.threads &&
             (task.threads == 1 || task.rows >= 64 * task.threads)) {
    k.run(task, nullptr);
  } else {
    k.run(task, std::unique_ptr<const Packed>(k.pack(task.codes)).get());
  }
}

}  // namespace

void search(const Search& task) { search_with(chosen_kernel(), task); }

CacheState cache_state() { return cache().state(); }

void search_residual(const float* x, int64_t rows, int64_t x_stride, const Codes* books,
                     int64_t depth, int64_t* index, int threads) {
  const int64_t width = books[0].width;
  const size_t size = static_cast<size_t>(rows * width), count = static_cast<size_t>(rows);
  std::vector<float> sum(size, 0.0f), rest(size), distance(count);
  std::vector<int64_t> found(count);
  for (int64_t m = 0; m < depth; ++m) {
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t d = 0; d < width; ++d) {
        rest[n * width + d] = x[n * x_stride + d] - sum[n * width + d];
      }
    }
    search({rest.data(), rows, width, books[m], distance.data(), found.data(), threads});
    for (int64_t n = 0; n < rows; ++n) {
      index[n * depth + m] = found[n];
      const float* code = books[m].start + found[n] * books[m].stride;
      for (int64_t d = 0; d < width; ++d) sum[n * width + d] += code[d];
    }
  }
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
