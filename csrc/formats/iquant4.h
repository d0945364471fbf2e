/* IQ4_NL and IQ4_XS: x = d * value[q], where the 16 values lie closer together around zero.
 *
 * The scale is searched for: of 16 scales, the one whose levels fit best. Source: quantize_row_iq4_nl_impl,
 * best_index_int8 and dequantize_row_iq4_* in ggml-quants.c. */

enum { NONLINEAR_TRIES = 7 }; /* on either side of the plain scale */

static const float nonlinear_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};
static const float nonlinear_even[8] = {-127, -83, -49, -22, 1, 25, 53, 89};
static const float nonlinear_odd[8] = {-104, -65, -35, -10, 13, 38, 69, 113};

/* From this value on, level k + 1 is nearer than level k: halfway between them, exactly, in floats too. The
 * thresholds for a binary search, step by step. */
static const float half_way[1] = {-4.5f};
static const float half_way2[2] = {-57.0f, 45.5f};
static const float half_way4[4] = {-93.5f, -28.5f, 19.0f, 79.0f};
static const float half_way8[8] = {-115.5f, -74.0f, -42.0f, -16.0f, 7.0f, 31.5f, 61.0f, 101.0f};

/* The nearest level's code, which is 2 * pair + 1, less 1 if `below`; NaN has the last. */
typedef struct {
    hi pair;
    hm below;
} h_level_code;

INLINE h_level_code h_nonlinear(hf x)
{
    const hm below = h_lt(x, h_set(half_way[0]));
    const hm below2 = h_lt(x, h_select(below, h_set(half_way2[0]), h_set(half_way2[1])));
    const hi quarter = hi_sub(hi_sub(hi_set(3), hi_where(below, 2)), hi_where(below2, 1));
    const hm below4 = h_lt(x, h_lookup4(half_way4, quarter));
    const hi pair = hi_sub(hi_add(hi_add(quarter, quarter), hi_set(1)), hi_where(below4, 1));
    return (h_level_code){pair, h_lt(x, h_lookup8(half_way8, pair))};
}

INLINE hf h_nonlinear_value(hf x)
{
    const h_level_code c = h_nonlinear(x);
    return h_select(c.below, h_lookup8(nonlinear_even, c.pair), h_lookup8(nonlinear_odd, c.pair));
}

INLINE vf v_nonlinear_value(vf x)
{
    return LIFT(vf, h_nonlinear_value(PART_A(x)), h_nonlinear_value(PART_B(x)));
}

typedef struct {
    vf qx, q2;
} nonlinear_sums;

INLINE nonlinear_sums sum_nonlinear(const tile *t, vf id)
{
    nonlinear_sums sum = {v_set(0.0f), v_set(0.0f)};
    ROLLED
    for (int i = 0; i < BLOCK; i++) {
        const vf x = v_load(t->x[i]), q = v_nonlinear_value(v_mul(id, x)), wq = v_mul(v_load(t->w[i]), q);
        sum.qx = v_add(sum.qx, v_mul(wq, x));
        sum.q2 = v_add(sum.q2, v_mul(wq, q));
    }
    return sum;
}

/* Scales of a tile of blocks of 32. */
INLINE vf search_nonlinear(tile *t)
{
    const vf zero = v_set(0.0f), one = v_set(1.0f), first = v_set(nonlinear_values[0]);
    vf amax;
    vf max = v_extreme(BLOCK, t->x, &amax);
    const vm empty = v_lt(amax, v_set(TINY));
    max = v_select(empty, one, max);
    nonlinear_sums sum = sum_nonlinear(t, v_div(one, v_div(v_neg(max), first)));
    vf scale = v_select(v_lt(zero, sum.q2), v_div(sum.qx, sum.q2), zero);
    vf best = v_mul(scale, sum.qx);
    for (int k = -NONLINEAR_TRIES; k <= NONLINEAR_TRIES; k++) {
        sum = sum_nonlinear(t, v_div(v_add(v_set((float)k), first), max));
        const vm gain = v_lt(v_mul(best, sum.q2), v_mul(sum.qx, sum.qx));
        const vm better = vm_and(v_lt(zero, sum.q2), gain);
        scale = v_select(better, v_div(sum.qx, sum.q2), scale);
        best = v_select(better, v_mul(scale, sum.qx), best);
    }
    return v_select(empty, zero, scale);
}

/* Scales of up to LANES blocks; with importance, `variances` are those of their segments. */
INLINE void nonlinear_scales(const forge_request *request, int64_t first, int live, const float *variances,
                             int64_t at, int64_t per_segment, float *scale)
{
    tile t;
    load_values(request, first, live, BLOCK, t.x);
    if (request->importance)
        load_weights(request, first, live, BLOCK, variances, at, per_segment, &t);
    else
        for (int i = 0; i < BLOCK; i++)
            v_store(t.w[i], v_mul(v_load(t.x[i]), v_load(t.x[i])));
    v_store(scale, search_nonlinear(&t));
}

/* Twice the mean square. The variance without a factor, because its double could overflow on the way. */
INLINE void double_variance(const forge_request *request, int64_t length, int64_t first, int live, float *out)
{
    variance(request, length, first, live, 1.0f, out);
    for (int j = 0; j < live; j++)
        out[j] *= 2.0f;
}

INLINE hi h_nonlinear_code(hf x)
{
    const h_level_code c = h_nonlinear(x);
    return hi_sub(hi_add(hi_add(c.pair, c.pair), hi_set(1)), hi_where(c.below, 1));
}

/* 32 levels of x times id. */
INLINE void pack_nonlinear(const float *x, float id, uint8_t *qs)
{
    for (int i = 0; i < BLOCK / 2; i += H_LANES) {
        const hi low = h_nonlinear_code(h_mul(h_set(id), h_load(x + i)));
        const hi high = h_nonlinear_code(h_mul(h_set(id), h_load(x + BLOCK / 2 + i)));
        hi_store_u8(qs + i, hi_or(low, hi_shl(high, 4)));
    }
}

static void quantize_iq4_nl(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / BLOCK;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        _Alignas(64) float variances[LANES] = {0}, scale[LANES];
        if (request->importance)
            double_variance(request, BLOCK, first, live, variances);
        nonlinear_scales(request, first, live, variances, 0, 1, scale);
        for (int j = 0; j < live; j++, dst += sizeof(block_iq4_nl)) {
            block_iq4_nl *out = (block_iq4_nl *)dst;
            _Alignas(64) float buffer[BLOCK];
            const float *x = view_elements(request, (first + j) * BLOCK, BLOCK, buffer);
            out->d = f32_to_f16(scale[j]);
            pack_nonlinear(x, inverse(scale[j]), out->qs);
        }
    }
}

INLINE void put_iq4_xs(const float *x, const float *scale, block_iq4_xs *out)
{
    float max = 0.0f;
    for (int j = 0; j < 8; j++)
        max = fabsf(scale[j]) > fabsf(max) ? scale[j] : max;
    const float d = -max / 32, id = inverse(d);
    out->d = f32_to_f16(d);
    out->scales_h = 0;
    memset(out->scales_l, 0, sizeof out->scales_l);
    for (int j = 0; j < 8; j++) {
        int l = nearest_int(id * scale[j]);
        l = l < -32 ? -32 : l > 31 ? 31 : l;
        pack_nonlinear(x + BLOCK * j, inverse(d * (float)l), out->qs + 16 * j);
        l += 32;
        out->scales_l[j / 2] |= (uint8_t)((l & 15) << 4 * (j % 2));
        out->scales_h |= (uint16_t)(l >> 4 << 2 * j);
    }
}

static void quantize_iq4_xs(const forge_request *request, uint8_t *dst)
{
    enum { SUB = SUPER / BLOCK };
    const int64_t blocks = element_count(request) / SUPER;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        _Alignas(64) float variances[LANES] = {0}, scale[LANES * SUB];
        if (request->importance)
            double_variance(request, SUPER, first, live, variances);
        for (int sub = 0; sub < live * SUB; sub += LANES)
            nonlinear_scales(request, first * SUB + sub, lanes_in_use(live * SUB - sub), variances, sub, SUB,
                             scale + sub);
        for (int j = 0; j < live; j++, dst += sizeof(block_iq4_xs)) {
            _Alignas(64) float buffer[SUPER];
            const float *x = view_elements(request, (first + j) * SUPER, SUPER, buffer);
            put_iq4_xs(x, scale + j * SUB, (block_iq4_xs *)dst);
        }
    }
}

/* ---- back to floats ---- */

/* 32 values scale * table[nibble]. */
INLINE void dequantize_table(const uint8_t *restrict qs, float scale, const float *table, int half,
                             float *restrict y)
{
    for (int high = 0; high < 2; high++)
        for (int i = 0; i < half; i += H_LANES) {
            const hi code = hi_shr(hi_load_u8(qs + i), 4 * high);
            h_store(y + half * high + i, h_mul(h_set(scale), h_lookup16(table, code)));
        }
}

static void dequantize_iq4_nl(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq4_nl *in = (const block_iq4_nl *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_table(in->qs, f16_to_f32(in->d), nonlinear_values, BLOCK / 2, dst);
}

static void dequantize_iq4_xs(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_iq4_xs *in = (const block_iq4_xs *)src; n > 0; n -= SUPER, in++)
        for (int j = 0; j < 8; j++, dst += BLOCK) {
            const int l = (in->scales_l[j / 2] >> 4 * (j % 2) & 15) | (in->scales_h >> 2 * j & 3) << 4;
            dequantize_table(in->qs + 16 * j, f16_to_f32(in->d) * (float)(l - 32), nonlinear_values,
                             BLOCK / 2, dst);
        }
}
