/* Formats of two to four levels: TQ1_0, TQ2_0, Q1_0, Q2_0. Importance plays no part.
 *
 * Source: quantize_row_tq*_ref, quantize_row_q1_0_ref, quantize_row_q2_0_ref and their dequantize_row in
 * ggml-quants.c. */

enum { BLOCK_Q1_0 = 128, BLOCK_Q2_0 = 64 };

/* ---- TQ1_0, TQ2_0: x = d * (-1, 0 or 1) ---- */

/* Levels round(x / d) + 1 of a super-block; d, the greatest magnitude. */
INLINE float ternary_levels(values x, uint8_t *level)
{
    const float d = magnitude(x, SUPER, magnitude_since_nan);
    const hf id = h_set(inverse(d));
    for (int i = 0; i < SUPER; i += H_LANES) {
        const hi rounded = h_trunc(h_away_from_zero(h_mul(load_value(x, i), id)));
        hi_store_u8(level + i, hi_add(rounded, hi_set(1)));
    }
    return d;
}

/* `parts` levels a byte, as digits of a fraction in base 3 of 5 digits, so that it is read by
 * multiplications: the byte is the fraction of 256 that is next above. */
INLINE void pack_trits(const uint8_t *level, int parts, int bytes, uint8_t *qs)
{
    for (int m = 0; m < bytes; m++) {
        uint8_t q = 0;
        for (int n = 0; n < 5; n++)
            q = (uint8_t)(q * 3 + (n < parts ? level[m + n * bytes] : 0));
        qs[m] = (uint8_t)((q * 256 + 242) / 243);
    }
}

/* Levels and d into a block. */
typedef void put_ternary(const uint8_t *level, uint16_t d, uint8_t *dst);

INLINE void put_tq1_0(const uint8_t *level, uint16_t d, uint8_t *dst)
{
    block_tq1_0 *out = (block_tq1_0 *)dst;
    out->d = d;
    pack_trits(level, 5, 32, out->qs);
    pack_trits(level + 160, 5, 16, out->qs + 32);
    pack_trits(level + 240, 4, 4, out->qh);
}

INLINE void put_tq2_0(const uint8_t *level, uint16_t d, uint8_t *dst)
{
    block_tq2_0 *out = (block_tq2_0 *)dst;
    out->d = d;
    pack_two_bits(level, out->qs);
}

INLINE void quantize_ternary(enum forge_source source, const forge_request *request, uint8_t *dst, int bytes,
                             put_ternary *put)
{
    const int64_t total = element_count(request);
    for (int64_t first = 0; first < total; first += SUPER, dst += bytes) {
        _Alignas(64) float buffer[SUPER];
        _Alignas(64) uint8_t level[SUPER];
        const values x = view_values(request, source, first, SUPER, buffer);
        const uint16_t d = f32_to_f16(ternary_levels(x, level));
        put(level, d, dst);
    }
}

static void quantize_tq1_0(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_ternary, request->source, request, dst, sizeof(block_tq1_0), put_tq1_0);
}

static void quantize_tq2_0(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_ternary, request->source, request, dst, sizeof(block_tq2_0), put_tq2_0);
}

/* Values d * (level - 1). */
INLINE void scale_ternary(const uint8_t *level, int n, float d, float *restrict y)
{
    for (int i = 0; i < n; i += H_LANES)
        h_store(y + i, h_mul(hi_float(hi_sub(hi_load_u8(level + i), hi_set(1))), h_set(d)));
}

/* Three times a byte's fraction is the next level, and the fraction of the others. */
INLINE void unpack_trits(const uint8_t *restrict qs, int bytes, float d, float *restrict y)
{
    for (int m = 0; m < bytes; m += H_LANES) {
        hi fraction = hi_load_u8(qs + m);
        for (int n = 0; n < 5; n++) {
            const hi thrice = hi_add(hi_add(fraction, fraction), fraction);
            h_store(y + bytes * n + m, h_mul(hi_float(hi_sub(hi_shr(thrice, 8), hi_set(1))), h_set(d)));
            fraction = hi_and(thrice, hi_set(255));
        }
    }
}

static void dequantize_tq1_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_tq1_0 *in = (const block_tq1_0 *)src; n > 0; n -= SUPER, in++, dst += SUPER) {
        const float d = f16_to_f32(in->d);
        unpack_trits(in->qs, 32, d, dst);
        unpack_trits(in->qs + 32, 16, d, dst + 160);
        for (int j = 0; j < 4; j++) {
            int fraction = in->qh[j];
            for (int k = 0; k < 4; k++, fraction = fraction * 3 & 255)
                dst[240 + 4 * k + j] = (float)((fraction * 3 >> 8) - 1) * d;
        }
    }
}

static void dequantize_tq2_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_tq2_0 *in = (const block_tq2_0 *)src; n > 0; n -= SUPER, in++, dst += SUPER) {
        _Alignas(64) uint8_t level[SUPER];
        for (int j = 0; j < 2; j++)
            for (int m = 0; m < 32; m++) {
                uint8_t *l = level + 128 * j + m;
                const uint8_t q = in->qs[32 * j + m];
                l[0] = q & 3;
                l[32] = q >> 2 & 3;
                l[64] = q >> 4 & 3;
                l[96] = q >> 6;
            }
        scale_ternary(level, SUPER, f16_to_f32(in->d), dst);
    }
}

/* ---- Q1_0: x = d or -d, d the mean magnitude ---- */

INLINE void quantize_binary_block(const float *x, float d, block_q1_0 *out)
{
    out->d = f32_to_f16(d);
    for (int i = 0; i < BLOCK_Q1_0; i += 32) {
        uint32_t bits = 0;
        for (int j = 0; j < 32; j += H_LANES) {
            const hf value = h_load(x + i + j), zero = h_set(0.0f);
            bits |= hm_bits(hm_or(h_lt(zero, value), h_eq(zero, value))) << j;
        }
        memcpy(out->qs + i / 8, &bits, sizeof bits);
    }
}

static void quantize_q1_0(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / BLOCK_Q1_0;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        _Alignas(64) float buffer[LANES * BLOCK_Q1_0], column[32][LANES], d[LANES];
        vf sum = v_set(0.0f);
        load_elements(request, first * BLOCK_Q1_0, live * BLOCK_Q1_0, buffer);
        memset(buffer + live * BLOCK_Q1_0, 0, (size_t)(LANES - live) * BLOCK_Q1_0 * sizeof(float));
        for (int i = 0; i < BLOCK_Q1_0; i += 32) {
            for (int lane = 0; lane < LANES; lane += H_LANES)
                for (int k = 0; k < 32; k += H_LANES)
                    h_transpose(buffer + lane * BLOCK_Q1_0 + i + k, BLOCK_Q1_0, &column[k][lane], LANES);
            for (int k = 0; k < 32; k++)
                sum = v_add(sum, v_abs(v_load(column[k])));
        }
        v_store(d, v_div(sum, v_set((float)BLOCK_Q1_0)));
        for (int j = 0; j < live; j++, dst += sizeof(block_q1_0))
            quantize_binary_block(buffer + j * BLOCK_Q1_0, d[j], (block_q1_0 *)dst);
    }
}

static void dequantize_q1_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q1_0 *in = (const block_q1_0 *)src; n > 0; n -= BLOCK_Q1_0, in++)
        for (int k = 0; k < 4; k++, dst += 32) {
            const float d = f16_to_f32(in->d);
            uint32_t bits;
            memcpy(&bits, in->qs + 4 * k, sizeof bits);
            for (int i = 0; i < 32; i += H_LANES)
                h_store(dst + i, h_flip(h_set(d), ~bits, i));
        }
}

/* ---- Q2_0: x = d * (-1, 0, 1 or 2), d the greatest magnitude ---- */

INLINE void put_q2_0(values x, float d, block_q2_0 *out)
{
    _Alignas(64) int32_t words[BLOCK_Q2_0 / 4];
    const hf id = h_set(d > 0.0f ? 1.0f / d : 0.0f);
    for (int i = 0; i < BLOCK_Q2_0; i += H_LANES) {
        const hf scaled = h_mul(load_value(x, i), id);
        /* What no int can hold becomes the least one. */
        const hf held = h_select(h_lt(h_abs(scaled), h_set(4.0f)), scaled, h_set(-2.0f));
        const hi q = hi_add(h_trunc(h_away_from_zero(held)), hi_set(1));
        hi_store_u8((uint8_t *)words + i, hi_min(hi_max(q, hi_set(0)), hi_set(3)));
    }
    out->d = f32_to_f16(d);
    for (int j = 0; j < BLOCK_Q2_0 / 4; j += H_LANES) {
        const hi four = hi_load(words + j), pairs = hi_or(four, hi_shr(four, 6));
        hi_store_u8(out->qs + j, hi_or(pairs, hi_shr(pairs, 12)));
    }
}

INLINE void quantize_q2_0_from(enum forge_source source, const forge_request *request, uint8_t *dst)
{
    const int64_t total = element_count(request) / BLOCK_Q2_0;
    for (int64_t first = 0; first < total; first += GROUP) {
        _Alignas(64) float buffer[GROUP * BLOCK_Q2_0], d[GROUP];
        const int blocks = total - first < GROUP ? (int)(total - first) : GROUP;
        const values x = view_values(request, source, first * BLOCK_Q2_0, blocks * BLOCK_Q2_0, buffer);
        group_magnitudes(x, blocks, BLOCK_Q2_0, magnitude_of_numbers, d);
        for (int b = 0; b < blocks; b++, dst += sizeof(block_q2_0))
            put_q2_0(skip(x, b * BLOCK_Q2_0), d[b], (block_q2_0 *)dst);
    }
}

static void quantize_q2_0(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_q2_0_from, request->source, request, dst);
}

static void dequantize_q2_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    static const float value[4] = {-1, 0, 1, 2};
    for (const block_q2_0 *in = (const block_q2_0 *)src; n > 0; n -= BLOCK_Q2_0, in++, dst += BLOCK_Q2_0) {
        uint16_t codes[8];
        memcpy(codes, in->qs, sizeof codes);
        for (int i = 0; i < BLOCK_Q2_0; i += H_LANES)
            h_store(dst + i, h_mul(h_lookup4(value, hi_pairs(codes, i)), h_set(f16_to_f32(in->d))));
    }
}
