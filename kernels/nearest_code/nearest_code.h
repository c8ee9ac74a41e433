// Nearest-codeword search on the CPU: the interface between the torch binding and one file per
// instruction set. No torch header here: the kernels compile in a second and run under sanitizers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokenizers_vq {

// Rows of x and of the codebook are contiguous; the distance between rows may be anything.
struct Search {
  const float* x;
  int64_t rows;
  int64_t x_stride;
  const float* codes;
  int64_t count;  // codes, at least one
  int64_t code_stride;
  int64_t width;     // numbers per row, at least one
  float* distance;   // out: squared, of the winner
  int64_t* index;    // out: of the winner
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

void search_generic(const Search&);
#if defined(__x86_64__)
void search_avx2(const Search&);
void search_avx512(const Search&);
void search_avx512_bf16(const Search&);
#endif

// Names of what this machine can run, separated by blanks, and the one that is usually fastest.
const char* supported();
const char* preferred();
// Runs the preferred one, or the one that the environment variable TOKENIZERS_VQ_ISA names.
void search(const Search&);

// Rows per code and their sums, in the order of the rows whatever the number of threads.
// Returns false, with nothing written, if an index lies outside [0, count).
bool code_stats(const float* x, int64_t rows, int64_t x_stride, int64_t width, const int64_t* index,
                int64_t count, float* counts, float* sums);

}  // namespace tokenizers_vq
