/* The backend for AVX-512 F, BW, DQ and VL, which servers have had since 2017, and desktops since Zen 4. */
#if defined(__x86_64__)
#include "base.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c"))),             \
                             apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,f16c")
#endif

#include "lanes/avx512.h"

#include "kernels/table.inc"

const forge_backend forge_avx512 = {"avx512", LANES, product, KERNEL_TABLE};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
