/* The lanes of plain C: one of them. This file is the readable definition of every h_ operation; the other
 * lanes headers do the same with vectors.
 *
 * The types are hf (float lanes), hi (32-bit integer lanes), hm (a truth value, or mask, for each lane)
 * and hs (16-bit integer lanes, which hold half floats). An operation is named after the type that it
 * takes: h_ takes floats, hi_ integers, hm_ masks, hs_ 16-bit integers. csrc/README.md has more. */
#ifndef FORGE_LANES_SCALAR_H
#define FORGE_LANES_SCALAR_H

#include "../base.h"

#define H_LANES  1
#define VECS     1
#define TILES    1
#define DESCENTS 1

typedef float hf;
typedef int32_t hi;
typedef int hm;

INLINE hf h_set(float x) { return x; }
INLINE hf h_load(const float *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void h_store(float *p, hf x) { memcpy(p, &x, sizeof x); }
INLINE hf h_add(hf a, hf b) { return a + b; }
INLINE hf h_sub(hf a, hf b) { return a - b; }
INLINE hf h_mul(hf a, hf b) { return a * b; }
INLINE hf h_div(hf a, hf b) { return a / b; }
INLINE hf h_sqrt(hf x) { return sqrtf(x); }
INLINE hf h_abs(hf x) { return fabsf(x); }
INLINE hf h_neg(hf x) { return -x; }
INLINE hf h_min(hf a, hf b) { return a < b ? a : b; }
INLINE hf h_max(hf a, hf b) { return a > b ? a : b; }
/* Rounds to the nearest integer, ties to even, for |x| < 2^22: ulp(x + 1.5 * 2^23) is 1. */
INLINE hf h_round(hf x) { return (x + 12582912.0f) - 12582912.0f; }

INLINE hm h_lt(hf a, hf b) { return a < b; }
INLINE hm h_eq(hf a, hf b) { return a == b; }
INLINE hm hm_and(hm a, hm b) { return a & b; }
INLINE hm hm_or(hm a, hm b) { return a | b; }
INLINE hm hm_not(hm a) { return !a; }
INLINE int hm_any(hm a) { return a; }
/* Lane j becomes bit j. */
INLINE uint32_t hm_bits(hm a) { return (uint32_t)a; }
INLINE hf h_select(hm m, hf yes, hf no) { return m ? yes : no; }

INLINE hi hi_set(int32_t x) { return x; }
INLINE hi hi_add(hi a, hi b) { return (hi)((uint32_t)a + (uint32_t)b); }
INLINE hi hi_sub(hi a, hi b) { return (hi)((uint32_t)a - (uint32_t)b); }
INLINE hi hi_and(hi a, hi b) { return a & b; }
INLINE hi hi_or(hi a, hi b) { return a | b; }
INLINE hi hi_min(hi a, hi b) { return a < b ? a : b; }
INLINE hi hi_max(hi a, hi b) { return a > b ? a : b; }
INLINE hi hi_min_unsigned(hi a, hi b) { return (uint32_t)a < (uint32_t)b ? a : b; }
INLINE hm hi_lt_unsigned(hi a, hi b) { return (uint32_t)a < (uint32_t)b; }
INLINE hi hi_shl(hi a, int n) { return (hi)((uint32_t)a << n); }
/* Shifts right. No lane may be negative. */
INLINE hi hi_shr(hi a, int n) { return a >> n; }
/* Bit `n` of lane j becomes bit j. */
INLINE uint32_t hi_bit_of_each(hi a, int n) { return (uint32_t)a >> n & 1; }
/* Bit j becomes lane j, 0 or 1. */
INLINE hi hi_from_bits(uint32_t bits) { return (hi)(bits & 1); }
INLINE hi h_bits(hf x) { return (hi)float_bits(x); }
INLINE hf hi_as_float(hi x) { return bits_float((uint32_t)x); }
INLINE hf hi_float(hi x) { return (float)x; }
/* Rounds towards zero. For what an int32 cannot hold, NaN included, the result is 0 or, as on x86,
 * INT32_MIN: in either case 0 in the low byte. */
INLINE hi h_trunc(hf x) { return (hi)(fabsf(x) < 2147483648.0f ? x : 0.0f); }

/* Adds the greatest float below 0.5, with the sign of x. Truncating the sum rounds x to nearest, ties away
 * from zero. */
INLINE hf h_away_from_zero(hf x) { return x + copysignf(0x1.fffffep-2f, x); }

INLINE hf h_load_f16(const void *p) { return f16_to_f32(load_u16(p)); }
INLINE hf h_load_bf16(const void *p) { return bf16_to_f32(load_u16(p)); }
INLINE void h_store_f16(void *p, hf x)
{
    uint16_t h = f32_to_f16(x);
    memcpy(p, &h, sizeof h);
}
INLINE void h_store_bf16(void *p, hf x)
{
    uint16_t h = f32_to_bf16(x);
    memcpy(p, &h, sizeof h);
}
INLINE hi hi_load_u8(const void *p) { return *(const uint8_t *)p; }
INLINE hi hi_load_i8(const void *p) { return *(const int8_t *)p; }
/* Stores the low byte of each lane. */
INLINE void hi_store_u8(void *p, hi x) { *(uint8_t *)p = (uint8_t)x; }

/* The least and the greatest lane. */
INLINE float h_least(hf x) { return x; }
INLINE float h_greatest(hf x) { return x; }
/* Transposes H_LANES rows of H_LANES floats. The rows are `from` floats apart, the columns `to` floats. */
INLINE void h_transpose(const float *src, int from, float *dst, int to)
{
    (void)from, (void)to;
    *dst = *src;
}

/* ---- for the types with tables: levels by code, packed codes, signs ---- */

INLINE hi hi_load(const int32_t *p) { return *p; }
INLINE void hi_store(int32_t *p, hi x) { *p = x; }
INLINE hi hi_load_u16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}
/* Looks up an entry of a table for each lane, by the low 2, 3 or 4 bits of its code. */
INLINE hf h_lookup4(const float *table, hi code) { return table[code & 3]; }
INLINE hf h_lookup8(const float *table, hi code) { return table[code & 7]; }
INLINE hf h_lookup16(const float *table, hi code) { return table[code & 15]; }
/* Lane j is p[(first + j) / 4], or p[(first + j) / 8]. `first` is a multiple of H_LANES. */
INLINE hf h_repeat4(const float *p, int first) { return h_load(p + first / 4); }
INLINE hf h_repeat8(const float *p, int first) { return h_load(p + first / 8); }
/* Unpacks points: the low bits of lane j are level first + j. A point has eight levels of 2 bits, or four
 * of 3 bits each. */
INLINE hi hi_pairs(const uint16_t *codes, int first) { return codes[first / 8] >> 2 * (first % 8); }
/* Negates lane j if bit first + j is set. */
INLINE hf h_flip(hf x, uint32_t bits, int first) { return bits >> first & 1 ? -x : x; }
/* The number of the first lane that is true. At least one lane must be. */
INLINE int hm_first(hm a)
{
    (void)a;
    return 0;
}
/* x where the lane is true, else 0. */
INLINE hi hi_where(hm a, int32_t x) { return a ? x : 0; }
/* Loads the four floats at base + at[j] * unit for each lane j. out[i] gets float i of every lane. */
INLINE void h_columns4(const void *base, const uint32_t *at, size_t unit, hf *out)
{
    memcpy(out, (const char *)base + at[0] * unit, 4 * sizeof(float));
}

/* ---- half floats, compared as integers ---- */

#define S_LANES 1

typedef int16_t hs;

INLINE hs hs_set(int16_t x) { return x; }
INLINE hs hs_load(const void *p) { return (hs)load_u16(p); }
INLINE hs hs_magnitude(hs x) { return x & 0x7fff; }
/* Maps the bits of 16-bit floats to integers of the same order, and back. */
INLINE hs hs_order(hs x) { return (hs)(x ^ (x >> 15 & 0x7fff)); }
INLINE hs hs_min(hs a, hs b) { return a < b ? a : b; }
INLINE hs hs_max(hs a, hs b) { return a > b ? a : b; }
/* The least and the greatest lane. */
INLINE int16_t hs_least(hs x) { return x; }
INLINE int16_t hs_greatest(hs x) { return x; }

#endif
