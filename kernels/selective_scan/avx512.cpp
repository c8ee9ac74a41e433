// x86 with AVX-512: sixteen channels side by side.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi,bmi2")
#define LANES 16
#include "scan.h"

namespace tokenizers_vq {
namespace scan {
const Kernel kAvx512 = {"avx512", LANES, forward, backward};
}
}  // namespace tokenizers_vq
#endif
