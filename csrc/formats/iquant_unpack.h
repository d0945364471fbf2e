/* The i-quants with a grid, back to floats.
 *
 * Source: dequantize_row_iq1_*, dequantize_row_iq2_* and dequantize_row_iq3_* in ggml-quants.c. */

/* ---- eight values at a time, each in a byte of a word ---- */

/* A point of eight levels of 2 bits. */
INLINE uint64_t spread_pairs(uint64_t code)
{
    code = (code | code << 24) & 0x000000ff000000ffu;
    code = (code | code << 12) & 0x000f000f000f000fu;
    return (code | code << 6) & BYTES(3);
}

/* Two points of four levels of 3 bits. */
INLINE uint64_t spread_octals(uint64_t first, uint64_t second)
{
    uint64_t code = first | second << 32;
    code = (code & 0x0000003f0000003fu) | (code & 0x00000fc000000fc0u) << 10;
    return (code & 0x0007000700070007u) | (code & 0x0038003800380038u) << 5;
}

/* What the levels stand for: 8, 25, 43; 4, 12, 20 ... 52, 62; 1, 3, 5 ... 15. */
INLINE uint64_t values_iq2(uint64_t level) { return BYTES(8) + 17 * level + (level >> 1 & BYTES(1)); }
INLINE uint64_t values_iq3_xxs(uint64_t level)
{
    return BYTES(4) + 8 * level + ((level + BYTES(1)) >> 2 & BYTES(2));
}
INLINE uint64_t values_iq3_s(uint64_t level) { return BYTES(1) + 2 * level; }

/* Negates byte i, which is not 0, where bit i of `signs` is set. */
INLINE uint64_t sign_bytes(uint64_t bytes, uint8_t signs)
{
    const uint64_t ones = ((BYTES(signs) & 0x8040201008040201u) + BYTES(0x7f)) >> 7 & BYTES(1);
    return (bytes ^ ones * 255) + ones;
}

/* Seven signs and the eighth that makes the number of negative ones even. */
INLINE uint8_t even_signs(uint32_t seven)
{
    seven &= 127;
    const uint32_t folded = seven ^ seven >> 4, nibble = folded ^ folded >> 2;
    return (uint8_t)(seven | ((nibble ^ nibble >> 1) & 1) << 7);
}

INLINE void scale_bytes(const uint64_t *bytes, int n, float scale, float *restrict y)
{
    for (int i = 0; i < n; i += H_LANES)
        h_store(y + i, h_mul(h_set(scale), hi_float(hi_load_i8((const int8_t *)bytes + i))));
}

/* Of IQ1: what a level of 0 stands for. */
#define UP   (-1.0f + 0.125f)
#define DOWN (-1.0f - 0.125f)

/* Values scale * (level + shift) of n levels; each eight have a shift. */
INLINE void scale_shifted(const uint64_t *levels, int n, float scale, const float *shift, float *restrict y)
{
    for (int i = 0; i < n; i += H_LANES) {
        const hf level = hi_float(hi_load_u8((const uint8_t *)levels + i));
        h_store(y + i, h_mul(h_set(scale), h_add(level, h_repeat8(shift, i))));
    }
}

static void dequantize_iq2_xxs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_xxs *in = (const block_iq2_xxs *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint32_t points = in->qs[j][0], rest = in->qs[j][1];
            uint64_t value[4];
            for (int k = 0; k < 4; k++)
                value[k] = sign_bytes(values_iq2(spread_pairs(grid_iq2_xxs[points >> 8 * k & 255])),
                                      even_signs(rest >> 7 * k));
            scale_bytes(value, 32, d * (0.5f + (float)(rest >> 28)) * 0.25f, dst);
        }
    }
}

/* The scales of two neighbours, one for 16 values, share a byte. */
INLINE void scale_halves(const uint64_t *bytes, float d, uint8_t scales, float *restrict y)
{
    scale_bytes(bytes, 16, d * (0.5f + (float)(scales & 15)) * 0.25f, y);
    scale_bytes(bytes + 2, 16, d * (0.5f + (float)(scales >> 4)) * 0.25f, y + 16);
}

static void dequantize_iq2_xs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_xs *in = (const block_iq2_xs *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            uint64_t value[4];
            for (int k = 0; k < 4; k++)
                value[k] = sign_bytes(values_iq2(spread_pairs(grid_iq2_xs[in->qs[4 * j + k] & 511])),
                                      even_signs(in->qs[4 * j + k] >> 9));
            scale_halves(value, d, in->scales[j], dst);
        }
    }
}

static void dequantize_iq2_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_s *in = (const block_iq2_s *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            uint64_t value[4];
            for (int k = 0; k < 4; k++) {
                const int index = in->qs[4 * j + k] | (in->qh[j] >> 2 * k & 3) << 8;
                value[k] = sign_bytes(values_iq2(spread_pairs(grid_iq2_s[index])), in->signs[4 * j + k]);
            }
            scale_halves(value, d, in->scales[j], dst);
        }
    }
}

static void dequantize_iq3_xxs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq3_xxs *in = (const block_iq3_xxs *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint32_t rest = in->signs_scales[j];
            const uint8_t *qs = in->qs + 8 * j;
            uint64_t value[4];
            for (int k = 0; k < 4; k++)
                value[k] = sign_bytes(
                    values_iq3_xxs(spread_octals(grid_iq3_xxs[qs[2 * k]], grid_iq3_xxs[qs[2 * k + 1]])),
                    even_signs(rest >> 7 * k));
            scale_bytes(value, 32, d * (0.5f + (float)(rest >> 28)) * 0.5f, dst);
        }
    }
}

static void dequantize_iq3_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq3_s *in = (const block_iq3_s *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            const int scale = 1 + 2 * (in->scales[j / 2] >> 4 * (j % 2) & 15), high = in->qh[j];
            const uint8_t *qs = in->qs + 8 * j;
            uint64_t value[4];
            for (int k = 0; k < 4; k++) {
                const uint16_t first = grid_iq3_s[qs[2 * k] | (high >> 2 * k & 1) << 8];
                const uint16_t second = grid_iq3_s[qs[2 * k + 1] | (high >> (2 * k + 1) & 1) << 8];
                value[k] = sign_bytes(values_iq3_s(spread_octals(first, second)), in->signs[4 * j + k]);
            }
            scale_bytes(value, 32, d * (float)scale, dst);
        }
    }
}

static void dequantize_iq1_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq1_s *in = (const block_iq1_s *)src; n > 0; n -= SUPER, in++) {
        const float d = f16_to_f32(in->d);
        uint64_t level[32];
        for (int k = 0; k < 32; k++)
            level[k] = spread_pairs(grid_iq1[in->qs[k] | (in->qh[k / 4] >> 3 * (k % 4) & 7) << 8]);
        for (int j = 0; j < 8; j++, dst += 32) {
            const int high = in->qh[j];
            const float shift = high & 0x8000 ? DOWN : UP, shifts[4] = {shift, shift, shift, shift};
            scale_shifted(level + 4 * j, 32, d * (float)(2 * (high >> 12 & 7) + 1), shifts, dst);
        }
    }
}

static void dequantize_iq1_m(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq1_m *in = (const block_iq1_m *)src; n > 0; n -= SUPER, in++) {
        uint16_t half = 0;
        for (int k = 0; k < 4; k++)
            half |= (uint16_t)(in->scales[k] >> 12 << 4 * k);
        const float d = f16_to_f32(half);
        for (int j = 0; j < 16; j++, dst += 16) {
            const int scale = 2 * (in->scales[j / 4] >> 3 * (j % 4) & 7) + 1, high = in->qh[j];
            const float shifts[2] = {high & 0x08 ? DOWN : UP, high & 0x80 ? DOWN : UP};
            const uint64_t level[2] = {spread_pairs(grid_iq1[in->qs[2 * j] | (high & 7) << 8]),
                                       spread_pairs(grid_iq1[in->qs[2 * j + 1] | (high >> 4 & 7) << 8])};
            scale_shifted(level, 16, d * (float)scale, shifts, dst);
        }
    }
}
