// AVX-512 with float32 products.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi,bmi2")
#include "avx512.h"
#include "search.h"

TOKENIZERS_VQ_DEFINE_KERNEL(avx512, Float32)
#endif
