// What the binding calls: no CUDA header, no torch header. `stream` is a cudaStream_t; the caller has set its
// device. All return null when the launches were accepted, else the reason.
#pragma once
#include "problem.h"

namespace nearest_code {

const char* launch(const Problem& problem, const float* x, const float* codebook, void* workspace, float* value,
                   int64_t* index, void* stream);
const char* launch(const Stage* stages, int64_t depth, const float* x, float* sum, float* rest, void* workspace,
                   int64_t* index, void* stream);
const char* launch(const Stats& stats, void* stream);

int multiprocessors();  // of the current device

}  // namespace nearest_code
