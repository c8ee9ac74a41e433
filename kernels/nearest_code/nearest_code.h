// Nearest-codeword search on the CPU: the interface between the torch binding and one file per
// instruction set. No torch header here: the kernels compile in a second and run under sanitizers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokenizers_vq {

// A codebook. Its rows are contiguous; the distance between rows may be anything.
struct Codes {
  const float* start;
  int64_t count;   // at least one
  int64_t width;   // numbers per row, at least one
  int64_t stride;  // numbers from row to row
  bool product;    // what decides: false the smallest distance, true the largest inner product
};

struct Search {
  const float* x;  // rows as wide as the codes, contiguous each
  int64_t rows;
  int64_t x_stride;
  Codes codes;
  float* value;    // out: squared distance to the winner, or the inner product with it
  int64_t* index;  // out: of the winner
  int threads;
};

// Calls body(begin, end, context) on pieces of [0, count), on several threads. The host supplies it.
using Body = void (*)(int64_t begin, int64_t end, void* context);
void parallel(int64_t count, Body body, void* context);

// Memory for one search. Throws std::bad_alloc; freed at the end of the scope.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const { return static_cast<T*>(start_); }

 private:
  void* start_;
};

// A codebook as one filter reads it, and what bounds the filter's errors.
struct Packed {
  Packed(int64_t codes, int64_t words, int64_t width);
  Buffer words, halves, around;
  const float* centre = nullptr;  // what was subtracted from every code, kept in around; or nothing
  int64_t bytes;                  // of the three
  double squared = 0;  // largest |c|^2 of the finite codes
  double lost = 0;     // largest |c - rounded c|^2
};

// One kernel: how it packs a codebook, and how it searches. With no packed codebook the search packs
// a few codes at a time and forgets them, which is best for few rows.
#define TOKENIZERS_VQ_KERNEL(name)          \
  Packed* pack_##name(const Codes&);        \
  void search_##name(const Search&, const Packed*)
TOKENIZERS_VQ_KERNEL(generic);
#if defined(__x86_64__)
TOKENIZERS_VQ_KERNEL(avx2);
TOKENIZERS_VQ_KERNEL(avx512);
TOKENIZERS_VQ_KERNEL(avx512_bf16);
#endif
#undef TOKENIZERS_VQ_KERNEL

// Names of what this machine can run, separated by blanks, and the one that is usually fastest.
const char* supported();
const char* preferred();
// Runs the preferred one, or the one that the environment variable TOKENIZERS_VQ_ISA names.
// Packed codebooks are kept and used again as long as every number of the codebook is the same.
void search(const Search&);

// How often a kept codebook was used, how often one was packed anew, and the bytes of what is kept,
// a small one counted as 256 KiB.
struct CacheState { int64_t hits, misses, bytes; };
CacheState cache_state();

// Codes of a residual stack: each codebook is searched for what the sum of the codes before leaves
// of x. index has one column per codebook. All are as wide as x and end in distances.
void search_residual(const float* x, int64_t rows, int64_t x_stride, const Codes* books,
                     int64_t depth, int64_t* index, int threads);

// Rows per code and their sums, in the order of the rows whatever the number of threads.
// Returns false, with nothing written, if an index lies outside [0, count).
bool code_stats(const float* x, int64_t rows, int64_t x_stride, int64_t width, const int64_t* index,
                int64_t count, float* counts, float* sums);

}  // namespace tokenizers_vq
