/* The lanes of AVX2 and F16C: eight of them. scalar.h explains the operations, which are in the same order
 * here. */
#ifndef FORGE_LANES_AVX2_H
#define FORGE_LANES_AVX2_H

#if defined(__x86_64__)
#include <immintrin.h>

#include "../base.h"
#include "x86_halves.h"

#define H_LANES  8
#define VECS     2
#define TILES    2
#define DESCENTS 4

typedef __m256 hf;
typedef __m256i hi;
typedef __m256 hm;

INLINE hf h_set(float x) { return _mm256_set1_ps(x); }
INLINE hf h_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void h_store(float *p, hf x) { _mm256_storeu_ps(p, x); }
INLINE hf h_add(hf a, hf b) { return _mm256_add_ps(a, b); }
INLINE hf h_sub(hf a, hf b) { return _mm256_sub_ps(a, b); }
INLINE hf h_mul(hf a, hf b) { return _mm256_mul_ps(a, b); }
INLINE hf h_div(hf a, hf b) { return _mm256_div_ps(a, b); }
INLINE hf h_sqrt(hf x) { return _mm256_sqrt_ps(x); }
INLINE hf h_abs(hf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
INLINE hf h_neg(hf x) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x); }
/* minps and maxps return their second operand unless the first is less, or greater, as C's a < b ? a : b
 * does. */
INLINE hf h_min(hf a, hf b) { return _mm256_min_ps(a, b); }
INLINE hf h_max(hf a, hf b) { return _mm256_max_ps(a, b); }
INLINE hf h_round(hf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

INLINE hm h_lt(hf a, hf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE hm h_eq(hf a, hf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
INLINE hm hm_and(hm a, hm b) { return _mm256_and_ps(a, b); }
INLINE hm hm_or(hm a, hm b) { return _mm256_or_ps(a, b); }
INLINE hm hm_not(hm a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
INLINE int hm_any(hm a) { return _mm256_movemask_ps(a); }
INLINE uint32_t hm_bits(hm a) { return (uint32_t)_mm256_movemask_ps(a); }
INLINE hf h_select(hm m, hf yes, hf no) { return _mm256_blendv_ps(no, yes, m); }

INLINE hi hi_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE hi hi_add(hi a, hi b) { return _mm256_add_epi32(a, b); }
INLINE hi hi_sub(hi a, hi b) { return _mm256_sub_epi32(a, b); }
INLINE hi hi_and(hi a, hi b) { return _mm256_and_si256(a, b); }
INLINE hi hi_or(hi a, hi b) { return _mm256_or_si256(a, b); }
INLINE hi hi_min(hi a, hi b) { return _mm256_min_epi32(a, b); }
INLINE hi hi_max(hi a, hi b) { return _mm256_max_epi32(a, b); }
INLINE hi hi_min_unsigned(hi a, hi b) { return _mm256_min_epu32(a, b); }
INLINE hm hi_lt_unsigned(hi a, hi b)
{
    const hi top = _mm256_set1_epi32(INT32_MIN);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b, top), _mm256_xor_si256(a, top)));
}
INLINE hi hi_shl(hi a, int n) { return _mm256_slli_epi32(a, n); }
INLINE hi hi_shr(hi a, int n) { return _mm256_srli_epi32(a, n); }
INLINE uint32_t hi_bit_of_each(hi a, int n)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 31 - n)));
}
INLINE hi hi_from_bits(uint32_t bits)
{
    const hi place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int32_t)bits), place), _mm256_set1_epi32(1));
}
INLINE hi h_bits(hf x) { return _mm256_castps_si256(x); }
INLINE hf hi_as_float(hi x) { return _mm256_castsi256_ps(x); }
INLINE hf hi_float(hi x) { return _mm256_cvtepi32_ps(x); }
INLINE hi h_trunc(hf x) { return _mm256_cvttps_epi32(x); }
INLINE hf h_away_from_zero(hf x)
{
    const hf sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    return _mm256_add_ps(x, _mm256_or_ps(sign, _mm256_set1_ps(0x1.fffffep-2f)));
}

INLINE hf h_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE hf h_load_bf16(const void *p)
{
    const hi twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    const hi place = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, /* -1: zero */
                                      -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, place));
}
INLINE void h_store_f16(void *p, hf x)
{
    const hi nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m128i nan16 = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
    const __m128i half = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m128i signed_nan =
        _mm_or_si128(_mm_and_si128(half, _mm_set1_epi16(-0x8000)), _mm_set1_epi16(0x7e00));
    _mm_storeu_si128((__m128i *)p, _mm_blendv_epi8(half, signed_nan, nan16));
}
INLINE void h_store_bf16(void *p, hf x)
{
    const hi bits = _mm256_castps_si256(x), top = _mm256_srli_epi32(bits, 16);
    const hi odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    const hi up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const hi quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    const hi nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const hi half = _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), quiet, nan);
    const __m128i low = _mm256_castsi256_si128(half), high = _mm256_extracti128_si256(half, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(low, high));
}
INLINE hi hi_load_u8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE hi hi_load_i8(const void *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE void hi_store_u8(void *p, hi x)
{
    const hi low_bytes = _mm256_set1_epi32(0x0c080400);
    const hi quads = _mm256_shuffle_epi8(x, low_bytes);
    const __m128i low = _mm256_castsi256_si128(quads), high = _mm256_extracti128_si256(quads, 1);
    _mm_storel_epi64((__m128i *)p, _mm_unpacklo_epi32(low, high));
}

INLINE float h_least(hf x)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}
INLINE float h_greatest(hf x)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
INLINE void h_transpose(const float *src, int from, float *dst, int to)
{
    hf row[8], pair[8], quad[8];
    for (int i = 0; i < 8; i++)
        row[i] = _mm256_loadu_ps(src + i * from);
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            quad[i + 2 * k] = _mm256_shuffle_ps(pair[i + k], pair[i + k + 2], 0x44);
            quad[i + 2 * k + 1] = _mm256_shuffle_ps(pair[i + k], pair[i + k + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(dst + i * to, _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20));
        _mm256_storeu_ps(dst + (i + 4) * to, _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31));
    }
}

INLINE hi hi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void hi_store(int32_t *p, hi x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE hi hi_load_u16(const void *p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE hf h_lookup4(const float *table, hi code)
{
    return _mm256_permutevar_ps(_mm256_broadcast_ps((const __m128 *)table), code);
}
INLINE hf h_lookup8(const float *table, hi code)
{
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), code);
}
INLINE hf h_lookup16(const float *table, hi code)
{
    const hf low = h_lookup8(table, code), high = h_lookup8(table + 8, code);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}
INLINE hf h_repeat4(const float *p, int first)
{
    const hi half = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    return _mm256_permutevar_ps(_mm256_castpd_ps(_mm256_broadcast_sd((const double *)(p + first / 4))), half);
}
INLINE hf h_repeat8(const float *p, int first) { return _mm256_set1_ps(p[first / 8]); }
INLINE hi hi_pairs(const uint16_t *codes, int first)
{
    return _mm256_srlv_epi32(_mm256_set1_epi32(codes[first / 8]),
                             _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
}
INLINE hf h_flip(hf x, uint32_t bits, int first)
{
    const hi top = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    const hi sign = _mm256_sllv_epi32(_mm256_set1_epi32((int)(bits >> first)), top);
    return _mm256_xor_ps(x, _mm256_and_ps(_mm256_castsi256_ps(sign), _mm256_set1_ps(-0.0f)));
}
INLINE int hm_first(hm a) { return first_bit(hm_bits(a)); }
INLINE hi hi_where(hm a, int32_t x) { return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(x)); }
INLINE void h_columns4(const void *base, const uint32_t *at, size_t unit, hf *out)
{
    hf row[4], pair[4];
    for (int i = 0; i < 4; i++) {
        const char *p = base;
        row[i] = _mm256_castps128_ps256(_mm_loadu_ps((const float *)(p + at[i] * unit)));
        row[i] = _mm256_insertf128_ps(row[i], _mm_loadu_ps((const float *)(p + at[i + 4] * unit)), 1);
    }
    for (int i = 0; i < 4; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        out[2 * i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        out[2 * i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
    }
}

#endif
#endif
