/* One lane: plain C. The readable reference of what every h_ operation means.
 *
 * hf holds floats, hi 32-bit integers, hm one truth value for each lane. */
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
/* To the nearest integer, ties to even; for |x| < 2^22, where ulp(x + 1.5 * 2^23) is 1. */
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
/* Of numbers that are not negative. */
INLINE hi hi_shr(hi a, int n) { return a >> n; }
/* Bit `n` of lane j becomes bit j. */
INLINE uint32_t hi_bit_of_each(hi a, int n) { return (uint32_t)a >> n & 1; }
/* Bit j becomes lane j, 0 or 1. */
INLINE hi hi_from_bits(uint32_t bits) { return (hi)(bits & 1); }
INLINE hi h_bits(hf x) { return (hi)float_bits(x); }
INLINE hf hi_as_float(hi x) { return bits_float((uint32_t)x); }
INLINE hf hi_float(hi x) { return (float)x; }
/* Towards zero; what an int32 can't hold, NaN included, gives 0 or, as x86 does, INT32_MIN: 0 in the low
 * byte. */
INLINE hi h_trunc(hf x) { return (hi)(fabsf(x) < 2147483648.0f ? x : 0.0f); }

/* x plus, with its sign, the float below 0.5: truncated, that is x rounded to nearest, ties away from zero.
 */
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
/* The low byte of each lane. */
INLINE void hi_store_u8(void *p, hi x) { *(uint8_t *)p = (uint8_t)x; }

/* The least and the greatest lane. */
INLINE float h_least(hf x) { return x; }
INLINE float h_greatest(hf x) { return x; }
/* H_LANES rows of H_LANES floats, `from` apart, become columns, `to` apart. */
INLINE void h_transpose(const float *src, int from, float *dst, int to)
{
    (void)from, (void)to;
    *dst = *src;
}

/* ---- for the formats with tables: levels by code, packed codes, signs ---- */

INLINE hi hi_load(const int32_t *p) { return *p; }
INLINE void hi_store(int32_t *p, hi x) { *p = x; }
INLINE hi hi_load_u16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}
/* An entry of a table for each lane, by its low 2, 3 or 4 bits. */
INLINE hf h_lookup4(const float *table, hi code) { return table[code & 3]; }
INLINE hf h_lookup8(const float *table, hi code) { return table[code & 7]; }
INLINE hf h_lookup16(const float *table, hi code) { return table[code & 15]; }
/* Lane j is p[(first + j) / 4], or / 8; `first` is a multiple of H_LANES. */
INLINE hf h_repeat4(const float *p, int first) { return h_load(p + first / 4); }
INLINE hf h_repeat8(const float *p, int first) { return h_load(p + first / 8); }
/* In the low bits of lane j, level first + j of packed points: eight of 2 bits, or four of 3, each. */
INLINE hi hi_pairs(const uint16_t *codes, int first) { return codes[first / 8] >> 2 * (first % 8); }
/* Negates lane j if bit first + j is set. */
INLINE hf h_flip(hf x, uint32_t bits, int first) { return bits >> first & 1 ? -x : x; }
/* The first lane that is true; there is one. */
INLINE int hm_first(hm a)
{
    (void)a;
    return 0;
}
/* x where the lane is true, else 0. */
INLINE hi hi_where(hm a, int32_t x) { return a ? x : 0; }
/* The four floats from base + at[j] * unit of each lane j, as columns. */
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
/* To integers of the same order, and back. */
INLINE hs hs_order(hs x) { return (hs)(x ^ (x >> 15 & 0x7fff)); }
INLINE hs hs_min(hs a, hs b) { return a < b ? a : b; }
INLINE hs hs_max(hs a, hs b) { return a > b ? a : b; }
/* The least and the greatest lane. */
INLINE int16_t hs_least(hs x) { return x; }
INLINE int16_t hs_greatest(hs x) { return x; }

#endif
