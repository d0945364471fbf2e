/* The backend for AVX2 and F16C, which x86-64 CPUs have had since 2013. */
#if defined(__x86_64__)
#include "base.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,f16c")
#endif

#include "lanes/avx2.h"

#include "kernels/table.inc"

const forge_backend forge_avx2 = {"avx2", LANES, product, KERNEL_TABLE};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
