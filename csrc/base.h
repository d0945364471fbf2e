/* What every kernel file stands on: the rules of arithmetic, and how code is shared between backends. */
#ifndef FORGE_BASE_H
#define FORGE_BASE_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "blocks.h"
#include "forge.h"
#include "grid_tables.h"
#include "half.h"
#include "iq_grids.h"

/* Each operation rounds once, to binary32: the bytes depend on it. The build adds -ffp-contract=off. */
#ifdef __FAST_MATH__
#error "the kernels are exact only without -ffast-math"
#endif
_Static_assert(FLT_EVAL_METHOD == 0, "floats must be computed as floats");

#define INLINE static inline __attribute__((always_inline))
/* Keeps GCC from unrolling a hot loop whole, after which it runs short of registers. */
#define ROLLED            _Pragma("GCC unroll 1")
#define UNROLLED          _Pragma("GCC unroll 8")
#define PREFETCH(address) __builtin_prefetch(address)

/* A word of eight equal bytes. */
#define BYTES(x) (0x0101010101010101u * (x))

/* The number of the lowest bit set; there is one. */
INLINE int first_bit(uint32_t bits) { return __builtin_ctz(bits); }

typedef struct {
    void (*quantize)(const forge_request *request, uint8_t *dst);
    void (*dequantize)(const uint8_t *src, float *dst, int64_t n);
} forge_kernel;

typedef struct {
    const char *name;
    int lanes;
    forge_kernel kernels[TYPE_COUNT]; /* by type id; where NULL, those of the backend before */
} forge_backend;

#endif
