// The launches as ordinary functions. A C++ compiler takes this file, too: then everything runs on the CPU.
#include "launch.h"

#include "code_stats.cuh"
#include "nearest_code.cuh"
#include "residual.cuh"

namespace nearest_code {

namespace {

const char* reason(bool taken) {
#ifdef __CUDACC__
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return cudaGetErrorString(error);
#endif
  return taken ? nullptr : "the sizes are outside what the kernels take";
}

}  // namespace

const char* launch(const Problem& problem, const float* x, const float* codebook, void* workspace, float* value,
                   int64_t* index, void* stream) {
  return reason(search(problem, x, codebook, workspace, value, index, static_cast<cudaStream_t>(stream)));
}

const char* launch(const Stage* stages, int64_t depth, const float* x, float* sum, float* rest, void* workspace,
                   int64_t* index, void* stream) {
  const cudaStream_t here = static_cast<cudaStream_t>(stream);
  return reason(search_stack(stages, depth, x, sum, rest, workspace, index, here));
}

const char* launch(const Stats& stats, void* stream) {
  return reason(add_by_code(stats, static_cast<cudaStream_t>(stream)));
}

int multiprocessors() {
  int count = 8;
#ifdef __CUDACC__
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return count;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
#endif
  return count;
}

}  // namespace nearest_code
