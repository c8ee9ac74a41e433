// What the binding calls: no CUDA header, no torch header. `stream` is a cudaStream_t.
#pragma once
#include "problem.h"

namespace nearest_code {

// Null when the launches were accepted, else the reason. The caller has set the device of the stream.
const char* launch(const Problem& problem, const float* x, const float* codebook, void* workspace, float* distance,
                   int64_t* index, void* stream);

}  // namespace nearest_code
