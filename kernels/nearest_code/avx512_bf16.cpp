// AVX-512 with products of bfloat16, two per lane: a coarser filter, the same answers.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma,bmi,bmi2")
#define TOKENIZERS_VQ_BF16
#include "avx512.h"
#include "search.h"

TOKENIZERS_VQ_DEFINE_KERNEL(avx512_bf16, Bfloat16)
#endif
