// x86 with AVX2 and FMA: eight channels side by side.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,bmi,bmi2")
#define LANES 8
#include "scan.h"

namespace tokenizers_vq {
namespace scan {
const Kernel kAvx2 = {"avx2", LANES, forward, backward};
}
}  // namespace tokenizers_vq
#endif
