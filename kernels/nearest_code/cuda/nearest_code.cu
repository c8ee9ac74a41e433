#include "launch.h"
#include "nearest_code.cuh"

namespace nearest_code {

const char* launch(const Problem& problem, const float* x, const float* codebook, void* workspace, float* distance,
                   int64_t* index, void* stream) {
  const bool taken = search(problem, x, codebook, workspace, distance, index, static_cast<cudaStream_t>(stream));
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return taken ? nullptr : "the problem is outside what the kernels take";
}

}  // namespace nearest_code
