/* 16-bit floats to binary32 and back, on bit patterns; exact on any machine that keeps denormals.
 *
 * Rounding is to nearest even. A NaN becomes what ggml makes of it: 0x7e00 with its sign as f16; the same
 * leading bits, made quiet, as bf16. Source: ggml_compute_fp32_to_fp16 and ggml_compute_fp32_to_bf16. */
#ifndef FORGE_HALF_H
#define FORGE_HALF_H

#include <stdint.h>
#include <string.h>

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

static inline float f16_to_f32(uint16_t h)
{
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    /* An f16 exponent read as an f32 one is 112 too small; the product also normalises denormals. */
    const uint32_t finite = float_bits(bits_float(magnitude) * 0x1p112f);
    const uint32_t special = magnitude | 0x7f800000u | (magnitude > 0x0f800000u ? 0x00400000u : 0);
    return bits_float((uint32_t)(h & 0x8000) << 16 | (magnitude >= 0x0f800000u ? special : finite));
}

static inline uint16_t f32_to_f16(float x)
{
    const uint32_t bits = float_bits(x), magnitude = bits & 0x7fffffffu;
    /* Below 2^-14 an f16 is a multiple of 2^-24, which is the spacing of floats in [0.5, 1). */
    const uint32_t tiny = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + (magnitude >> 13 & 1)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? tiny : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    return (uint16_t)(bits >> 16 & 0x8000u) | (uint16_t)half;
}

static inline float bf16_to_f32(uint16_t h) { return bits_float((uint32_t)h << 16); }

static inline uint16_t f32_to_bf16(float x)
{
    const uint32_t bits = float_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

#endif
