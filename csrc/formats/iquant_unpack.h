/* The i-quants with a grid, back to floats.
 *
 * Source: dequantize_row_iq1_*, dequantize_row_iq2_* and dequantize_row_iq3_* in ggml-quants.c. */

/* What the levels stand for. */
static const float values_iq1[4] = {-1, 0, 1, 0};
static const float values_iq2[4] = {8, 25, 43, 0};
static const float values_iq3_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};

/* Seven signs and the eighth that makes the number of negative ones even. */
INLINE uint8_t even_signs(uint32_t seven)
{
    seven &= 127;
    const uint32_t folded = seven ^ seven >> 4, nibble = folded ^ folded >> 2;
    return (uint8_t)(seven | ((nibble ^ nibble >> 1) & 1) << 7);
}

/* Values scale * (+-) value[level] of `n` packed levels; bit i of `signs` makes the i-th negative. */
INLINE void unpack_pairs(const uint16_t *codes, float scale, uint32_t signs, int n, float *restrict y)
{
    for (int i = 0; i < n; i += H_LANES)
        h_store(y + i, h_flip(h_mul(h_set(scale), h_lookup4(values_iq2, hi_pairs(codes, i))), signs, i));
}

INLINE void unpack_octals(const uint16_t *codes, float scale, const float *value, uint32_t signs,
                          float *restrict y)
{
    for (int i = 0; i < 32; i += H_LANES)
        h_store(y + i, h_flip(h_mul(h_set(scale), h_lookup8(value, hi_octals(codes, i))), signs, i));
}

/* Values scale * (level - 1 + shift). */
INLINE void unpack_shifted(const uint16_t *codes, float scale, const float *shift, int n, float *restrict y)
{
    for (int i = 0; i < n; i += H_LANES) {
        const hf level = h_lookup4(values_iq1, hi_pairs(codes, i));
        h_store(y + i, h_mul(h_set(scale), h_add(level, h_repeat8(shift, i))));
    }
}

static void dequantize_iq2_xxs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_xxs *in = (const block_iq2_xxs *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint32_t rest = in->qs[j][1];
            uint16_t codes[4];
            uint32_t signs = 0;
            for (int k = 0; k < 4; k++) {
                codes[k] = grid_iq2_xxs[in->qs[j][0] >> 8 * k & 255];
                signs |= (uint32_t)even_signs(rest >> 7 * k) << 8 * k;
            }
            unpack_pairs(codes, f16_to_f32(in->d) * (0.5f + (float)(rest >> 28)) * 0.25f, signs, 32, dst);
        }
}

static void dequantize_iq2_xs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_xs *in = (const block_iq2_xs *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 16; j++, dst += 16) {
            const float scale = (float)(in->scales[j / 2] >> 4 * (j % 2) & 15);
            uint16_t codes[2];
            uint32_t signs = 0;
            for (int k = 0; k < 2; k++) {
                codes[k] = grid_iq2_xs[in->qs[2 * j + k] & 511];
                signs |= (uint32_t)even_signs(in->qs[2 * j + k] >> 9) << 8 * k;
            }
            unpack_pairs(codes, f16_to_f32(in->d) * (0.5f + scale) * 0.25f, signs, 16, dst);
        }
}

static void dequantize_iq2_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq2_s *in = (const block_iq2_s *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 16; j++, dst += 16) {
            const float scale = (float)(in->scales[j / 2] >> 4 * (j % 2) & 15);
            uint16_t codes[2];
            for (int k = 2 * j; k < 2 * j + 2; k++)
                codes[k % 2] = grid_iq2_s[in->qs[k] | (in->qh[k / 4] >> 2 * (k % 4) & 3) << 8];
            unpack_pairs(codes, f16_to_f32(in->d) * (0.5f + scale) * 0.25f,
                         in->signs[2 * j] | (uint32_t)in->signs[2 * j + 1] << 8, 16, dst);
        }
}

static void dequantize_iq3_xxs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq3_xxs *in = (const block_iq3_xxs *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint32_t rest = in->signs_scales[j];
            uint16_t codes[8];
            uint32_t signs = 0;
            for (int k = 0; k < 8; k++)
                codes[k] = grid_iq3_xxs[in->qs[8 * j + k]];
            for (int k = 0; k < 4; k++)
                signs |= (uint32_t)even_signs(rest >> 7 * k) << 8 * k;
            unpack_octals(codes, f16_to_f32(in->d) * (0.5f + (float)(rest >> 28)) * 0.5f, values_iq3_xxs,
                          signs, dst);
        }
}

static void dequantize_iq3_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq3_s *in = (const block_iq3_s *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 8; j++, dst += 32) {
            const int scale = 1 + 2 * (in->scales[j / 2] >> 4 * (j % 2) & 15);
            uint16_t codes[8];
            uint32_t signs;
            for (int k = 0; k < 8; k++)
                codes[k] = grid_iq3_s[in->qs[8 * j + k] | (in->qh[j] >> k & 1) << 8];
            memcpy(&signs, in->signs + 4 * j, sizeof signs);
            unpack_octals(codes, f16_to_f32(in->d) * (float)scale, odd_numbers, signs, dst);
        }
}

static void dequantize_iq1_s(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq1_s *in = (const block_iq1_s *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 8; j++, dst += 32) {
            const int high = in->qh[j];
            const float shift = high & 0x8000 ? -0.125f : 0.125f, shifts[4] = {shift, shift, shift, shift};
            uint16_t codes[4];
            for (int k = 0; k < 4; k++)
                codes[k] = grid_iq1[in->qs[4 * j + k] | (high >> 3 * k & 7) << 8];
            unpack_shifted(codes, f16_to_f32(in->d) * (float)(2 * (high >> 12 & 7) + 1), shifts, 32, dst);
        }
}

static void dequantize_iq1_m(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq1_m *in = (const block_iq1_m *)src; n > 0; n -= SUPER, in++) {
        uint16_t half = 0;
        for (int k = 0; k < 4; k++)
            half |= (uint16_t)(in->scales[k] >> 12 << 4 * k);
        for (int j = 0; j < 16; j++, dst += 16) {
            const int scale = 2 * (in->scales[j / 4] >> 3 * (j % 4) & 7) + 1, high = in->qh[j];
            const float shifts[2] = {high & 0x08 ? -0.125f : 0.125f, high & 0x80 ? -0.125f : 0.125f};
            const uint16_t codes[2] = {grid_iq1[in->qs[2 * j] | (high & 7) << 8],
                                       grid_iq1[in->qs[2 * j + 1] | (high >> 4 & 7) << 8]};
            unpack_shifted(codes, f16_to_f32(half) * (float)scale, shifts, 16, dst);
        }
    }
}
