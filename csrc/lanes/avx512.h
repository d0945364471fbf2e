/* The lanes of AVX-512 F, BW, DQ and VL: sixteen of them. scalar.h explains the operations, which are in
 * the same order here. */
#ifndef FORGE_LANES_AVX512_H
#define FORGE_LANES_AVX512_H

#if defined(__x86_64__)
#include <immintrin.h>

#include "../base.h"
#include "x86_halves.h"

#define H_LANES  16
#define VECS     2
#define TILES    2
#define DESCENTS 4

typedef __m512 hf;
typedef __m512i hi;
typedef __mmask16 hm;

INLINE hf h_set(float x) { return _mm512_set1_ps(x); }
INLINE hf h_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void h_store(float *p, hf x) { _mm512_storeu_ps(p, x); }
INLINE hf h_add(hf a, hf b) { return _mm512_add_ps(a, b); }
INLINE hf h_sub(hf a, hf b) { return _mm512_sub_ps(a, b); }
INLINE hf h_mul(hf a, hf b) { return _mm512_mul_ps(a, b); }
INLINE hf h_div(hf a, hf b) { return _mm512_div_ps(a, b); }
INLINE hf h_sqrt(hf x) { return _mm512_sqrt_ps(x); }
INLINE hf h_abs(hf x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
INLINE hf h_neg(hf x) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x); }
/* As with AVX2, these return their second operand unless the first is less, or greater. */
INLINE hf h_min(hf a, hf b) { return _mm512_min_ps(a, b); }
INLINE hf h_max(hf a, hf b) { return _mm512_max_ps(a, b); }
INLINE hf h_round(hf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

INLINE hm h_lt(hf a, hf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE hm h_eq(hf a, hf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE hm hm_and(hm a, hm b) { return (hm)(a & b); }
INLINE hm hm_or(hm a, hm b) { return (hm)(a | b); }
INLINE hm hm_not(hm a) { return (hm)~a; }
INLINE int hm_any(hm a) { return a; }
INLINE uint32_t hm_bits(hm a) { return a; }
INLINE hf h_select(hm m, hf yes, hf no) { return _mm512_mask_blend_ps(m, no, yes); }

INLINE hi hi_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE hi hi_add(hi a, hi b) { return _mm512_add_epi32(a, b); }
INLINE hi hi_sub(hi a, hi b) { return _mm512_sub_epi32(a, b); }
INLINE hi hi_and(hi a, hi b) { return _mm512_and_si512(a, b); }
INLINE hi hi_or(hi a, hi b) { return _mm512_or_si512(a, b); }
INLINE hi hi_min(hi a, hi b) { return _mm512_min_epi32(a, b); }
INLINE hi hi_max(hi a, hi b) { return _mm512_max_epi32(a, b); }
INLINE hi hi_min_unsigned(hi a, hi b) { return _mm512_min_epu32(a, b); }
INLINE hm hi_lt_unsigned(hi a, hi b) { return _mm512_cmplt_epu32_mask(a, b); }
INLINE hi hi_shl(hi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE hi hi_shr(hi a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
INLINE uint32_t hi_bit_of_each(hi a, int n) { return _mm512_test_epi32_mask(a, _mm512_set1_epi32(1 << n)); }
INLINE hi hi_from_bits(uint32_t bits) { return _mm512_maskz_set1_epi32((hm)bits, 1); }
INLINE hi h_bits(hf x) { return _mm512_castps_si512(x); }
INLINE hf hi_as_float(hi x) { return _mm512_castsi512_ps(x); }
INLINE hf hi_float(hi x) { return _mm512_cvtepi32_ps(x); }
INLINE hi h_trunc(hf x) { return _mm512_cvttps_epi32(x); }
INLINE hf h_away_from_zero(hf x)
{
    const hf sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    return _mm512_add_ps(x, _mm512_or_ps(sign, _mm512_set1_ps(0x1.fffffep-2f)));
}

INLINE hf h_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE hf h_load_bf16(const void *p)
{
    const hi wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void h_store_f16(void *p, hf x)
{
    const hm nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m256i half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i sign = _mm256_and_si256(half, _mm256_set1_epi16(-0x8000));
    const __m256i signed_nan = _mm256_or_si256(sign, _mm256_set1_epi16(0x7e00));
    _mm256_storeu_si256((__m256i *)p, _mm256_mask_blend_epi16(nan, half, signed_nan));
}
INLINE void h_store_bf16(void *p, hf x)
{
    const hi bits = _mm512_castps_si512(x), top = _mm512_srli_epi32(bits, 16);
    const hi odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const hi up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const hi quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
    const hm nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const hi half = _mm512_mask_blend_epi32(nan, _mm512_srli_epi32(up, 16), quiet);
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(half));
}
INLINE hi hi_load_u8(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE hi hi_load_i8(const void *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE void hi_store_u8(void *p, hi x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x)); }

INLINE float h_least(hf x) { return _mm512_reduce_min_ps(x); }
INLINE float h_greatest(hf x) { return _mm512_reduce_max_ps(x); }
INLINE void h_transpose(const float *src, int from, float *dst, int to)
{
    hf row[16], pair[16], quad[16], eight[16];
    for (int i = 0; i < 16; i++)
        row[i] = _mm512_loadu_ps(src + i * from);
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            quad[i + 2 * k] = _mm512_shuffle_ps(pair[i + k], pair[i + k + 2], 0x44);
            quad[i + 2 * k + 1] = _mm512_shuffle_ps(pair[i + k], pair[i + k + 2], 0xee);
        }
    /* quad[4 j + k] holds columns k, k + 4, k + 8, k + 12 of rows 4 j .. 4 j + 3: a 4 by 4 transpose remains.
     */
    for (int k = 0; k < 4; k++) {
        eight[k] = _mm512_shuffle_f32x4(quad[k], quad[k + 4], 0x88);
        eight[k + 4] = _mm512_shuffle_f32x4(quad[k], quad[k + 4], 0xdd);
        eight[k + 8] = _mm512_shuffle_f32x4(quad[k + 8], quad[k + 12], 0x88);
        eight[k + 12] = _mm512_shuffle_f32x4(quad[k + 8], quad[k + 12], 0xdd);
    }
    for (int k = 0; k < 4; k++) {
        _mm512_storeu_ps(dst + k * to, _mm512_shuffle_f32x4(eight[k], eight[k + 8], 0x88));
        _mm512_storeu_ps(dst + (k + 8) * to, _mm512_shuffle_f32x4(eight[k], eight[k + 8], 0xdd));
        _mm512_storeu_ps(dst + (k + 4) * to, _mm512_shuffle_f32x4(eight[k + 4], eight[k + 12], 0x88));
        _mm512_storeu_ps(dst + (k + 12) * to, _mm512_shuffle_f32x4(eight[k + 4], eight[k + 12], 0xdd));
    }
}

INLINE hi hi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void hi_store(int32_t *p, hi x) { _mm512_storeu_si512(p, x); }
INLINE hi hi_load_u16(const void *p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
INLINE hf h_lookup4(const float *table, hi code)
{
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(table)), code);
}
INLINE hf h_lookup8(const float *table, hi code)
{
    return _mm512_permutexvar_ps(code, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
}
INLINE hf h_lookup16(const float *table, hi code) { return _mm512_permutexvar_ps(code, h_load(table)); }
INLINE hf h_repeat4(const float *p, int first)
{
    const hi lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(p + first / 4)), lanes);
}
INLINE hf h_repeat8(const float *p, int first)
{
    return _mm512_insertf32x8(_mm512_set1_ps(p[first / 8]), _mm256_set1_ps(p[first / 8 + 1]), 1);
}
INLINE hi hi_pairs(const uint16_t *codes, int first)
{
    uint32_t two;
    memcpy(&two, codes + first / 8, sizeof two);
    return _mm512_srlv_epi32(_mm512_set1_epi32((int)two),
                             _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
}
INLINE hf h_flip(hf x, uint32_t bits, int first)
{
    return _mm512_mask_xor_ps(x, (hm)(bits >> first), x, _mm512_set1_ps(-0.0f));
}
INLINE int hm_first(hm a) { return first_bit(a); }
INLINE hi hi_where(hm a, int32_t x) { return _mm512_maskz_set1_epi32(a, x); }
INLINE void h_columns4(const void *base, const uint32_t *at, size_t unit, hf *out)
{
    hf row[4], pair[4];
    for (int i = 0; i < 4; i++) {
        const char *p = base;
        row[i] = _mm512_castps128_ps512(_mm_loadu_ps((const float *)(p + at[i] * unit)));
        row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps((const float *)(p + at[i + 4] * unit)), 1);
        row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps((const float *)(p + at[i + 8] * unit)), 2);
        row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps((const float *)(p + at[i + 12] * unit)), 3);
    }
    for (int i = 0; i < 4; i += 2) {
        pair[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        out[2 * i] = _mm512_shuffle_ps(pair[i], pair[i + 2], 0x44);
        out[2 * i + 1] = _mm512_shuffle_ps(pair[i], pair[i + 2], 0xee);
    }
}

#endif
#endif
