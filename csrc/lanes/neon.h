/* The lanes of NEON on AArch64: four of them. scalar.h explains the operations, which are in the same
 * order here. */
#ifndef FORGE_LANES_NEON_H
#define FORGE_LANES_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../base.h"

#define H_LANES  4
#define VECS     2
#define TILES    2
#define DESCENTS 4

typedef float32x4_t hf;
typedef int32x4_t hi;
typedef uint32x4_t hm;

INLINE hf h_set(float x) { return vdupq_n_f32(x); }
INLINE hf h_load(const float *p) { return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); }
INLINE void h_store(float *p, hf x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_f32(x)); }
INLINE hf h_add(hf a, hf b) { return vaddq_f32(a, b); }
INLINE hf h_sub(hf a, hf b) { return vsubq_f32(a, b); }
INLINE hf h_mul(hf a, hf b) { return vmulq_f32(a, b); }
INLINE hf h_div(hf a, hf b) { return vdivq_f32(a, b); }
INLINE hf h_sqrt(hf x) { return vsqrtq_f32(x); }
INLINE hf h_abs(hf x) { return vabsq_f32(x); }
INLINE hf h_neg(hf x) { return vnegq_f32(x); }
/* FMIN and FMAX are not used, because they differ from C's a < b ? a : b on NaN and on signed zeros. */
INLINE hf h_min(hf a, hf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE hf h_max(hf a, hf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE hf h_round(hf x) { return vrndnq_f32(x); }

INLINE hm h_lt(hf a, hf b) { return vcltq_f32(a, b); }
INLINE hm h_eq(hf a, hf b) { return vceqq_f32(a, b); }
INLINE hm hm_and(hm a, hm b) { return vandq_u32(a, b); }
INLINE hm hm_or(hm a, hm b) { return vorrq_u32(a, b); }
INLINE hm hm_not(hm a) { return vmvnq_u32(a); }
INLINE int hm_any(hm a) { return vmaxvq_u32(a) != 0; }
INLINE uint32_t hm_bits(hm a)
{
    static const uint32_t place[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(a, vld1q_u32(place)));
}
INLINE hf h_select(hm m, hf yes, hf no) { return vbslq_f32(m, yes, no); }

INLINE hi hi_set(int32_t x) { return vdupq_n_s32(x); }
INLINE hi hi_add(hi a, hi b) { return vaddq_s32(a, b); }
INLINE hi hi_sub(hi a, hi b) { return vsubq_s32(a, b); }
INLINE hi hi_and(hi a, hi b) { return vandq_s32(a, b); }
INLINE hi hi_or(hi a, hi b) { return vorrq_s32(a, b); }
INLINE hi hi_min(hi a, hi b) { return vminq_s32(a, b); }
INLINE hi hi_max(hi a, hi b) { return vmaxq_s32(a, b); }
INLINE hi hi_min_unsigned(hi a, hi b)
{
    return vreinterpretq_s32_u32(vminq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)));
}
INLINE hm hi_lt_unsigned(hi a, hi b) { return vcltq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)); }
INLINE hi hi_shl(hi a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
INLINE hi hi_shr(hi a, int n)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
}
INLINE uint32_t hi_bit_of_each(hi a, int n)
{
    static const int32_t place[4] = {0, 1, 2, 3};
    const uint32x4_t bit = vreinterpretq_u32_s32(hi_and(hi_shr(a, n), hi_set(1)));
    return vaddvq_u32(vshlq_u32(bit, vld1q_s32(place)));
}
INLINE hi hi_from_bits(uint32_t bits)
{
    static const int32_t place[4] = {0, -1, -2, -3};
    const uint32x4_t moved = vshlq_u32(vdupq_n_u32(bits), vld1q_s32(place));
    return vreinterpretq_s32_u32(vandq_u32(moved, vdupq_n_u32(1)));
}
INLINE hi h_bits(hf x) { return vreinterpretq_s32_f32(x); }
INLINE hf hi_as_float(hi x) { return vreinterpretq_f32_s32(x); }
INLINE hf hi_float(hi x) { return vcvtq_f32_s32(x); }
/* The instruction saturates, but a value out of range must give 0 in the low byte. */
INLINE hi h_trunc(hf x)
{
    const hm fits = vcltq_f32(vabsq_f32(x), vdupq_n_f32(2147483648.0f));
    return vandq_s32(vcvtq_s32_f32(x), vreinterpretq_s32_u32(fits));
}
INLINE hf h_away_from_zero(hf x)
{
    return vaddq_f32(x, vbslq_f32(vdupq_n_u32(0x80000000u), x, vdupq_n_f32(0x1.fffffep-2f)));
}

INLINE hf h_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p))); }
INLINE hf h_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}
INLINE void h_store_f16(void *p, hf x)
{
    const uint16x4_t half = vreinterpret_u16_f16(vcvt_f16_f32(x));
    const uint16x4_t signed_nan = vorr_u16(vand_u16(half, vdup_n_u16(0x8000)), vdup_n_u16(0x7e00));
    const uint16x4_t number = vmovn_u32(vceqq_f32(x, x));
    vst1_u8((uint8_t *)p, vreinterpret_u8_u16(vbsl_u16(number, half, signed_nan)));
}
INLINE void h_store_bf16(void *p, hf x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x), top = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = vandq_u32(top, vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(top, vdupq_n_u32(0x40));
    const uint32x4_t half = vbslq_u32(vceqq_f32(x, x), vshrq_n_u32(up, 16), quiet);
    vst1_u8((uint8_t *)p, vreinterpret_u8_u16(vmovn_u32(half)));
}
INLINE hi hi_load_u8(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint16x8_t wide = vmovl_u8(vcreate_u8(four));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}
INLINE hi hi_load_i8(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
INLINE void hi_store_u8(void *p, hi x)
{
    const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_s32(x));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(halves, halves));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(p, &four, sizeof four);
}

INLINE float h_least(hf x) { return vminvq_f32(x); }
INLINE float h_greatest(hf x) { return vmaxvq_f32(x); }
INLINE void h_transpose(const float *src, int from, float *dst, int to)
{
    const float32x4x2_t low = vtrnq_f32(h_load(src), h_load(src + from));
    const float32x4x2_t high = vtrnq_f32(h_load(src + 2 * from), h_load(src + 3 * from));
    h_store(dst, vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0])));
    h_store(dst + to, vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1])));
    h_store(dst + 2 * to, vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0])));
    h_store(dst + 3 * to, vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1])));
}

INLINE hi hi_load(const int32_t *p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p)); }
INLINE void hi_store(int32_t *p, hi x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_s32(x)); }
INLINE hi hi_load_u16(const void *p)
{
    return vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p))));
}
/* The places of the bytes of float number `code` in a table of bytes. */
INLINE uint8x16_t float_bytes(hi code)
{
    const uint32x4_t start = vmulq_n_u32(vreinterpretq_u32_s32(code), 0x04040404u);
    return vreinterpretq_u8_u32(vaddq_u32(start, vdupq_n_u32(0x03020100u)));
}
INLINE hf h_lookup4(const float *table, hi code)
{
    const uint8x16_t bytes = vld1q_u8((const uint8_t *)table);
    return vreinterpretq_f32_u8(vqtbl1q_u8(bytes, float_bytes(vandq_s32(code, vdupq_n_s32(3)))));
}
INLINE hf h_lookup8(const float *table, hi code)
{
    const uint8x16x2_t bytes = vld1q_u8_x2((const uint8_t *)table);
    return vreinterpretq_f32_u8(vqtbl2q_u8(bytes, float_bytes(vandq_s32(code, vdupq_n_s32(7)))));
}
INLINE hf h_lookup16(const float *table, hi code)
{
    const uint8x16x4_t bytes = vld1q_u8_x4((const uint8_t *)table);
    return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, float_bytes(vandq_s32(code, vdupq_n_s32(15)))));
}
INLINE hf h_repeat4(const float *p, int first) { return vdupq_n_f32(p[first / 4]); }
INLINE hf h_repeat8(const float *p, int first) { return vdupq_n_f32(p[first / 8]); }
INLINE hi hi_pairs(const uint16_t *codes, int first)
{
    const int32x4_t shift = {0, -2, -4, -6};
    const uint32x4_t code = vdupq_n_u32((uint32_t)codes[first / 8] >> 2 * (first % 8));
    return vreinterpretq_s32_u32(vshlq_u32(code, shift));
}
INLINE hf h_flip(hf x, uint32_t bits, int first)
{
    const int32x4_t top = {31, 30, 29, 28};
    const uint32x4_t sign = vandq_u32(vshlq_u32(vdupq_n_u32(bits >> first), top), vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), sign));
}
INLINE int hm_first(hm a) { return first_bit(hm_bits(a)); }
INLINE hi hi_where(hm a, int32_t x) { return vandq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(x)); }
INLINE void h_columns4(const void *base, const uint32_t *at, size_t unit, hf *out)
{
    float rows[4][4], columns[4][4];
    for (int i = 0; i < 4; i++)
        memcpy(rows[i], (const char *)base + at[i] * unit, sizeof rows[i]);
    h_transpose(rows[0], 4, columns[0], 4);
    for (int i = 0; i < 4; i++)
        out[i] = h_load(columns[i]);
}

#define S_LANES 8

typedef int16x8_t hs;

INLINE hs hs_set(int16_t x) { return vdupq_n_s16(x); }
INLINE hs hs_load(const void *p) { return vreinterpretq_s16_u8(vld1q_u8((const uint8_t *)p)); }
INLINE hs hs_magnitude(hs x) { return vandq_s16(x, vdupq_n_s16(0x7fff)); }
INLINE hs hs_order(hs x) { return veorq_s16(x, vandq_s16(vshrq_n_s16(x, 15), vdupq_n_s16(0x7fff))); }
INLINE hs hs_min(hs a, hs b) { return vminq_s16(a, b); }
INLINE hs hs_max(hs a, hs b) { return vmaxq_s16(a, b); }
INLINE int16_t hs_least(hs x) { return vminvq_s16(x); }
INLINE int16_t hs_greatest(hs x) { return vmaxvq_s16(x); }

#endif
#endif
