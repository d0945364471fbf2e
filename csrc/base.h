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

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#pragma fp_contract(off)
#define INLINE static __forceinline
#define ROLLED
#define UNROLLED
#define PREFETCH(address) ((void)(address))
#else
#define INLINE            static inline __attribute__((always_inline))
/* Keeps GCC from unrolling a hot loop whole, after which it runs short of registers. */
#define ROLLED            _Pragma("GCC unroll 1")
#define UNROLLED          _Pragma("GCC unroll 8")
#define PREFETCH(address) __builtin_prefetch(address)
#endif

/* A word of eight equal bytes. */
#define BYTES(x) (0x0101010101010101u * (x))

/* The number of the lowest bit set; there is one. */
INLINE int first_bit(uint32_t bits)
{
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long index;
    _BitScanForward(&index, bits);
    return (int)index;
#else
    return __builtin_ctz(bits);
#endif
}

/* Rows of floats to quantize. */
typedef struct {
    const uint8_t *data;
    const float *weights; /* one for each column, or NULL */
    const void *tables;   /* those of the type's grid, see grid_tables.h */
    int64_t nrows, n_per_row;
    enum forge_source source;
} forge_rows;

typedef struct {
    void (*quantize)(const forge_rows *rows, uint8_t *dst);
    void (*dequantize)(const uint8_t *src, float *dst, int64_t n);
} forge_kernel;

typedef struct {
    const char *name;
    int lanes;
    forge_kernel kernels[TYPE_COUNT]; /* by type id; where NULL, those of the backend before */
} forge_backend;

#endif
