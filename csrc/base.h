/* What every kernel file includes: the rules of arithmetic, the macros that the backends share, and the
 * table of kernels that each backend fills. */
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

/* Each operation must round once, to binary32, because the packed bytes depend on it. The build adds
 * -ffp-contract=off, so that no compiler fuses a multiplication and an addition. */
#ifdef __FAST_MATH__
#error "the kernels are exact only without -ffast-math"
#endif
_Static_assert(FLT_EVAL_METHOD == 0, "floats must be computed as floats");

#define INLINE static inline __attribute__((always_inline))
/* ROLLED keeps GCC from unrolling a hot loop completely, after which it would run out of registers. */
#define ROLLED            _Pragma("GCC unroll 1")
#define UNROLLED          _Pragma("GCC unroll 8")
#define PREFETCH(address) __builtin_prefetch(address)

/* A 64-bit word whose eight bytes all equal x. */
#define BYTES(x) (0x0101010101010101u * (x))

/* The number of the lowest bit that is set. At least one bit must be set. */
INLINE int first_bit(uint32_t bits) { return __builtin_ctz(bits); }

typedef struct {
    void (*quantize)(const forge_request *request, uint8_t *dst);
    /* In place of `quantize`, where packing shows without another pass what forge_quantize returns. */
    bool (*quantize_checked)(const forge_request *request, uint8_t *dst);
    void (*dequantize)(const uint8_t *src, float *dst, int64_t n);
    bool (*finite)(const uint8_t *src, int64_t n);
} forge_kernel;

typedef struct {
    const char *name;
    int lanes;
    void (*product)(const float *b, const float *a, float *dst, int64_t n_rows, int64_t n_ranks,
                    int64_t n_columns);
    forge_kernel kernels[TYPE_COUNT]; /* by type id; NULL where the backend before does the work */
} forge_backend;

#endif
