/* Conversion between 16-bit floats and binary32, on bit patterns. It is exact on every machine that keeps
 * denormals.
 *
 * Rounding is to nearest even. A NaN becomes what ggml makes of it: 0x7e00 with its sign as f16; the same
 * leading bits, made quiet, as bf16. Source: ggml_compute_fp32_to_fp16 and ggml_compute_fp32_to_bf16. */
#ifndef FORGE_HALF_H
#define FORGE_HALF_H

#include <stdint.h>
#include <string.h>

#define UNLIKELY(condition) __builtin_expect(condition, 0)

static inline uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint16_t load_u16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* The sign, exponent and mantissa of an f16, moved to where an f32 has them. The exponent is 112 too
 * small. */
static inline uint32_t f16_fields(uint16_t h) { return ((uint32_t)(int16_t)h << 13) & 0x8fffe000u; }

/* Converts a finite f16. A loop of this can be vectorised, because it has no branch. The multiplication
 * also normalises denormals, but many CPUs take a hundred cycles for that. */
static inline float finite_f16_to_f32(uint16_t h) { return bits_float(f16_fields(h)) * 0x1p112f; }

/* Converts a denormal, an infinity or a NaN. A NaN is made quiet. */
static inline float special_f16_to_f32(uint16_t h)
{
    const uint32_t sign = f16_fields(h) & 0x80000000u, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00)
        return bits_float(f16_fields(h) | (magnitude > 0x7c00 ? 0x7fc00000u : 0x7f800000u));
    /* A multiple of 2^-24, which is the spacing of floats in [0.5, 1). */
    return bits_float(sign | float_bits(bits_float(0x3f000000u | magnitude) - 0.5f));
}

static inline float f16_to_f32(uint16_t h)
{
    const uint32_t fields = f16_fields(h), magnitude = fields & 0x0fffe000u;
    if (UNLIKELY(magnitude - 0x00800000u >= 0x0f000000u))
        return special_f16_to_f32(h);
    return bits_float(fields + (112u << 23));
}

static inline uint16_t f32_to_f16(float x)
{
    const uint32_t bits = float_bits(x);
    const int32_t magnitude = (int32_t)(bits & 0x7fffffffu);
    /* Below 2^-14 an f16 is a multiple of 2^-24, which is the spacing of floats in [0.5, 1). */
    const int32_t tiny = (int32_t)float_bits(bits_float((uint32_t)magnitude) + 0.5f) - 0x3f000000;
    const int32_t normal = (magnitude - 0x38000000 + 0x0fff + (magnitude >> 13 & 1)) >> 13;
    int32_t half = magnitude < 0x38800000 ? tiny : normal;
    half = magnitude >= 0x477ff000 ? 0x7c00 : half;
    half = magnitude > 0x7f800000 ? 0x7e00 : half;
    return (uint16_t)((bits >> 16 & 0x8000u) | (uint32_t)half);
}

static inline float bf16_to_f32(uint16_t h) { return bits_float((uint32_t)h << 16); }

static inline uint16_t f32_to_bf16(float x)
{
    const uint32_t bits = float_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

#endif
