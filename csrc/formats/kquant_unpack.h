/* The k-quants, back to floats.
 *
 * Source: dequantize_row_q*_K in ggml-quants.c. */

INLINE hi hi_field(hi bytes, int shift, int mask) { return hi_and(hi_shr(bytes, shift), hi_set(mask)); }

static void dequantize_q2_K(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (; n > 0; n -= SUPER, src += sizeof(block_q2_K)) {
        const block_q2_K *in = (const block_q2_K *)src;
        const float d = f16_to_f32(in->d), dmin = f16_to_f32(in->dmin);
        for (int j = 0; j < SUBS; j++, dst += 16) {
            const uint8_t *qs = in->qs + 32 * (j / 8) + 16 * (j % 2);
            const hf dl = h_set(d * (float)(in->scales[j] & 15)),
                     ml = h_set(dmin * (float)(in->scales[j] >> 4));
            for (int i = 0; i < 16; i += H_LANES) {
                const hi l = hi_field(hi_load_u8(qs + i), 2 * (j / 2 % 4), 3);
                h_store(dst + i, h_sub(h_mul(dl, hi_float(l)), ml));
            }
        }
    }
}

INLINE void unpack_scales_q3_K(const uint8_t *in, int8_t *scale)
{
    for (int j = 0; j < SUBS; j++) {
        const int low = j < 8 ? in[j] & 15 : in[j - 8] >> 4;
        scale[j] = (int8_t)((low | (in[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
    }
}

static void dequantize_q3_K(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (; n > 0; n -= SUPER, src += sizeof(block_q3_K)) {
        const block_q3_K *in = (const block_q3_K *)src;
        const float d = f16_to_f32(in->d);
        int8_t scale[SUBS];
        unpack_scales_q3_K(in->scales, scale);
        for (int j = 0; j < SUBS; j++, dst += 16) {
            const uint8_t *low = in->qs + 32 * (j / 8) + 16 * (j % 2), *high = in->hmask + 16 * (j % 2);
            const hf dl = h_set(d * (float)scale[j]);
            for (int i = 0; i < 16; i += H_LANES) {
                const hi two = hi_field(hi_load_u8(low + i), 2 * (j / 2 % 4), 3);
                const hi third = hi_field(hi_load_u8(high + i), j / 2, 1);
                const hi l = hi_sub(hi_or(two, hi_shl(third, 2)), hi_set(4));
                h_store(dst + i, h_mul(dl, hi_float(l)));
            }
        }
    }
}

/* A sub-block: the low nibbles of qs if j is even, else the high ones, with the fifth bits j of Q5_K. j must
 * be a constant: then one lane's loop is made over bytes. */
INLINE void unpack_nibbles(int j, const uint8_t *restrict qs, const uint8_t *restrict fifth, float d, float m,
                           float *restrict y)
{
    const hf dl = h_set(d), ml = h_set(m);
    for (int i = 0; i < 32; i += H_LANES) {
        const hi both = hi_load_u8(qs + i);
        hi l = j % 2 ? hi_shr(both, 4) : hi_and(both, hi_set(15));
        if (fifth) {
            const hi bits = hi_load_u8(fifth + i);
            l = hi_or(l, j < 4 ? hi_shl(hi_and(bits, hi_set(1 << j)), 4 - j) : hi_field(bits, j - 4, 16));
        }
        h_store(y + i, h_sub(h_mul(dl, hi_float(l)), ml));
    }
}

static void dequantize_q4_K(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (; n > 0; n -= SUPER, src += sizeof(block_q4_K), dst += SUPER) {
        const block_q4_K *in = (const block_q4_K *)src;
        const float d = f16_to_f32(in->d), dmin = f16_to_f32(in->dmin);
        uint64_t scale, minimum;
        unpack_scales_k4(in->scales, &scale, &minimum);
        for (int j = 0; j < 8; j += 2, scale >>= 16, minimum >>= 16) {
            const uint8_t *qs = in->qs + 16 * j;
            float *y = dst + 32 * j;
            unpack_nibbles(0, qs, NULL, d * (uint8_t)scale, dmin * (uint8_t)minimum, y);
            unpack_nibbles(1, qs, NULL, d * (uint8_t)(scale >> 8), dmin * (uint8_t)(minimum >> 8), y + 32);
        }
    }
}

static void dequantize_q5_K(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (; n > 0; n -= SUPER, src += sizeof(block_q5_K), dst += SUPER) {
        const block_q5_K *in = (const block_q5_K *)src;
        const float d = f16_to_f32(in->d), dmin = f16_to_f32(in->dmin);
        uint64_t scale, minimum;
        unpack_scales_k4(in->scales, &scale, &minimum);
#define SUB_BLOCK(j)                                                                                         \
    unpack_nibbles(j, in->qs + 32 * (j / 2), in->qh, d * (uint8_t)(scale >> 8 * j),                          \
                   dmin * (uint8_t)(minimum >> 8 * j), dst + 32 * j)
        SUB_BLOCK(0);
        SUB_BLOCK(1);
        SUB_BLOCK(2);
        SUB_BLOCK(3);
        SUB_BLOCK(4);
        SUB_BLOCK(5);
        SUB_BLOCK(6);
        SUB_BLOCK(7);
#undef SUB_BLOCK
    }
}

static void dequantize_q6_K(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (; n > 0; n -= SUPER, src += sizeof(block_q6_K)) {
        const block_q6_K *in = (const block_q6_K *)src;
        const float d = f16_to_f32(in->d);
        for (int h = 0; h < 4; h++) { /* 16 values of each of 4 stretches of 32, of one half */
            const uint8_t *ql = in->ql + 64 * (h / 2) + 16 * (h % 2), *qh = in->qh + 16 * h;
            const int8_t *scale = in->scales + 8 * (h / 2) + h % 2;
            float *y = dst + 128 * (h / 2) + 16 * (h % 2);
            const hf d0 = h_set(d * scale[0]), d1 = h_set(d * scale[2]);
            const hf d2 = h_set(d * scale[4]), d3 = h_set(d * scale[6]);
            const hi middle = hi_set(32);
            for (int i = 0; i < 16; i += H_LANES) {
                const hi a = hi_load_u8(ql + i), b = hi_load_u8(ql + 32 + i), high = hi_load_u8(qh + i);
                const hi l0 = hi_or(hi_and(a, hi_set(15)), hi_shl(hi_field(high, 0, 3), 4));
                const hi l1 = hi_or(hi_and(b, hi_set(15)), hi_shl(hi_field(high, 2, 3), 4));
                const hi l2 = hi_or(hi_shr(a, 4), hi_shl(hi_field(high, 4, 3), 4));
                const hi l3 = hi_or(hi_shr(b, 4), hi_shl(hi_field(high, 6, 3), 4));
                h_store(y + i, h_mul(d0, hi_float(hi_sub(l0, middle))));
                h_store(y + 32 + i, h_mul(d1, hi_float(hi_sub(l1, middle))));
                h_store(y + 64 + i, h_mul(d2, hi_float(hi_sub(l2, middle))));
                h_store(y + 96 + i, h_mul(d3, hi_float(hi_sub(l3, middle))));
            }
        }
        dst += SUPER;
    }
}
