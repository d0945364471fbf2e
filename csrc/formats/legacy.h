/* The formats of blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * Without importance the scale follows from the extremes of the block; with it, it is searched for.
 * Source: quantize_row_q*_ref, quantize_row_q*_impl and dequantize_row_q* in ggml-quants.c. */

/* ---- levels into blocks ---- */

/* How one block's values become levels. */
typedef struct {
    hf base, factor;
    hi low, high, bias;
    hf half;
} level_rule;

/* Without importance: (x - base) * factor + half, truncated, at most `high`; of a garbage level the low byte.
 */
INLINE hi truncated_level(hf x, const level_rule *r)
{
    return hi_min(h_trunc(h_add(h_mul(h_sub(x, r->base), r->factor), r->half)), r->high);
}

/* With importance: what a search found. */
INLINE hi found_level(hf x, const level_rule *r)
{
    const hi l = h_nearest(h_mul(r->factor, h_sub(x, r->base)));
    return hi_add(hi_min(hi_max(l, r->low), r->high), r->bias);
}

typedef hi level_function(hf x, const level_rule *r);

INLINE void put_4_bits(values x, level_function *level, const level_rule *r, uint8_t *qs)
{
    for (int j = 0; j < BLOCK / 2; j += H_LANES) {
        const hi low = level(load_value(x, j), r), high = level(load_value(x, BLOCK / 2 + j), r);
        hi_store_u8(qs + j, hi_or(hi_and(low, hi_set(15)), hi_shl(high, 4)));
    }
}

INLINE void put_5_bits(values x, level_function *level, const level_rule *r, uint8_t *qs, uint8_t *qh)
{
    uint32_t fifth = 0;
    for (int j = 0; j < BLOCK / 2; j += H_LANES) {
        const hi low = level(load_value(x, j), r), high = level(load_value(x, BLOCK / 2 + j), r);
        hi_store_u8(qs + j, hi_or(hi_and(low, hi_set(15)), hi_shl(high, 4)));
        fifth |= (uint32_t)hi_bit_of_each(low, 4) << j | (uint32_t)hi_bit_of_each(high, 4) << (BLOCK / 2 + j);
    }
    memcpy(qh, &fifth, sizeof fifth);
}

/* A block of values, with its scale and minimum in f16. */
typedef void put_block(values x, uint16_t d, uint16_t m, level_function *level, const level_rule *r,
                       uint8_t *dst);

INLINE void put_q4_0(values x, uint16_t d, uint16_t m, level_function *level, const level_rule *r,
                     uint8_t *dst)
{
    block_q4_0 *out = (block_q4_0 *)dst;
    (void)m;
    out->d = d;
    put_4_bits(x, level, r, out->qs);
}

INLINE void put_q4_1(values x, uint16_t d, uint16_t m, level_function *level, const level_rule *r,
                     uint8_t *dst)
{
    block_q4_1 *out = (block_q4_1 *)dst;
    out->d = d;
    out->m = m;
    put_4_bits(x, level, r, out->qs);
}

INLINE void put_q5_0(values x, uint16_t d, uint16_t m, level_function *level, const level_rule *r,
                     uint8_t *dst)
{
    block_q5_0 *out = (block_q5_0 *)dst;
    (void)m;
    out->d = d;
    put_5_bits(x, level, r, out->qs, out->qh);
}

INLINE void put_q5_1(values x, uint16_t d, uint16_t m, level_function *level, const level_rule *r,
                     uint8_t *dst)
{
    block_q5_1 *out = (block_q5_1 *)dst;
    out->d = d;
    out->m = m;
    put_5_bits(x, level, r, out->qs, out->qh);
}

/* ---- without importance: the scale follows from the extremes of the block ---- */

typedef struct {
    _Alignas(64) float least[GROUP], greatest[GROUP]; /* later: minimum, inverse of d */
    _Alignas(64) float d[GROUP];
    _Alignas(64) uint16_t half_d[GROUP], half_m[GROUP];
} group_scales;

/* Independent partial results, so that even one lane is done several at a time. */
enum { PARTS = H_LANES == 1 ? 4 : 2 };

/* NaN is passed over, as it is by a scalar `if (x < min) min = x`. */
INLINE void block_extremes(values x, float *out_least, float *out_greatest)
{
    hf least[PARTS], greatest[PARTS];
    for (int k = 0; k < PARTS; k++) {
        least[k] = h_set(FLT_MAX);
        greatest[k] = h_set(-FLT_MAX);
    }
    for (int i = 0; i < BLOCK; i += PARTS * H_LANES)
        for (int k = 0; k < PARTS; k++) {
            const hf value = load_value(x, i + k * H_LANES);
            least[k] = h_min(value, least[k]);
            greatest[k] = h_max(value, greatest[k]);
        }
    for (int k = 1; k < PARTS; k++) {
        least[0] = h_min(least[k], least[0]);
        greatest[0] = h_max(greatest[k], greatest[0]);
    }
    *out_least = h_least(least[0]);
    *out_greatest = h_greatest(greatest[0]);
}

INLINE void group_extremes(values x, int blocks, group_scales *g)
{
    if (x.source != FORGE_F32 && half_extremes(x, blocks, BLOCK, g->least, g->greatest))
        return;
    for (int b = 0; b < blocks; b++)
        block_extremes(skip(x, b * BLOCK), &g->least[b], &g->greatest[b]);
}

/* The first value of magnitude `amax`; 0 if that is 0, or if there is none. */
INLINE float first_of_magnitude(values x, float amax)
{
    for (int i = 0; i < BLOCK && amax != 0.0f; i += H_LANES) {
        const hm found = h_eq(h_abs(load_value(x, i)), h_set(amax));
        if (hm_any(found))
            return scalar_value(x, i + hm_first(found));
    }
    return 0.0f;
}

/* The sign of the first zero: a scalar search for the minimum keeps the first of equals. */
INLINE float first_zero(values x)
{
    for (int i = 0; i < BLOCK; i++)
        if (scalar_value(x, i) == 0.0f)
            return scalar_value(x, i);
    return 0.0f;
}

INLINE hf h_inverse_or_zero(hf d)
{
    const hf zero = h_set(0.0f);
    return h_select(h_eq(d, zero), zero, h_div(h_set(1.0f), d));
}

/* d from what is in g->d; its inverse goes to g->greatest. */
INLINE void finish_scales(group_scales *g)
{
    for (int i = 0; i < GROUP; i += H_LANES) {
        h_store(g->greatest + i, h_inverse_or_zero(h_load(g->d + i)));
        h_store_f16(g->half_d + i, h_load(g->d + i));
        h_store_f16(g->half_m + i, h_load(g->least + i));
    }
}

/* Q4_0, Q5_0: the value of greatest magnitude, the first of equals, becomes level 0: d = extreme / -middle.
 */
INLINE void centred_scales(values x, int blocks, int middle, group_scales *g)
{
    for (int i = 0; i < GROUP; i += H_LANES) {
        const hf least = h_load(g->least + i), greatest = h_load(g->greatest + i);
        const hf extreme = h_select(h_lt(h_neg(least), greatest), greatest, least);
        h_store(g->d + i, h_div(extreme, h_set((float)-middle)));
    }
    for (int b = 0; b < blocks; b++)
        if (g->greatest[b] == -g->least[b])
            g->d[b] = first_of_magnitude(skip(x, b * BLOCK), g->greatest[b]) / (float)-middle;
    memset(g->least, 0, sizeof g->least);
    finish_scales(g);
}

/* Q4_1, Q5_1: d = (greatest - least) / top. */
INLINE void ranged_scales(values x, int blocks, int top, group_scales *g)
{
    for (int b = 0; b < blocks; b++)
        if (g->least[b] == 0.0f)
            g->least[b] = first_zero(skip(x, b * BLOCK));
    for (int i = 0; i < GROUP; i += H_LANES) {
        const hf greatest = h_add(h_load(g->greatest + i), h_set(0.0f)); /* a zero's sign must not reach d */
        h_store(g->d + i, h_div(h_sub(greatest, h_load(g->least + i)), h_set((float)top)));
    }
    finish_scales(g);
}

/* `levels` levels, from -levels / 2 (centred) or from a minimum. */
INLINE void quantize_plain(enum forge_source source, const forge_request *request, uint8_t *dst, int levels,
                           bool centred, int bytes, put_block *put)
{
    const int64_t total = element_count(request) / BLOCK;
    for (int64_t first = 0; first < total; first += GROUP) {
        _Alignas(64) float buffer[GROUP * BLOCK];
        const int blocks = total - first < GROUP ? (int)(total - first) : GROUP;
        const values x = view_values(request, source, first * BLOCK, blocks * BLOCK, buffer);
        group_scales g = {.least = {0}, .greatest = {0}};
        group_extremes(x, blocks, &g);
        if (centred)
            centred_scales(x, blocks, levels / 2, &g);
        else
            ranged_scales(x, blocks, levels - 1, &g);
        for (int b = 0; b < blocks; b++, dst += bytes) {
            const level_rule rule = {.base = h_set(g.least[b]),
                                     .factor = h_set(g.greatest[b]),
                                     .half = h_set(centred ? (float)(levels / 2) + 0.5f : 0.5f),
                                     .high = hi_set(levels - 1)};
            put(skip(x, b * BLOCK), g.half_d[b], g.half_m[b], truncated_level, &rule, dst);
        }
    }
}

INLINE void quantize_q8_0_from(enum forge_source source, const forge_request *request, uint8_t *dst)
{
    const int64_t total = element_count(request) / BLOCK;
    for (int64_t first = 0; first < total; first += GROUP) {
        _Alignas(64) float buffer[GROUP * BLOCK];
        const int blocks = total - first < GROUP ? (int)(total - first) : GROUP;
        const values x = view_values(request, source, first * BLOCK, blocks * BLOCK, buffer);
        group_scales g = {.d = {0}};
        group_magnitudes(x, blocks, BLOCK, magnitude_since_nan, g.d);
        for (int i = 0; i < GROUP; i += H_LANES)
            h_store(g.d + i, h_div(h_load(g.d + i), h_set(127.0f)));
        finish_scales(&g);
        for (int b = 0; b < blocks; b++, dst += sizeof(block_q8_0)) {
            block_q8_0 *out = (block_q8_0 *)dst;
            out->d = g.half_d[b];
            for (int i = 0; i < BLOCK; i += H_LANES) {
                const hf scaled = h_mul(load_value(x, b * BLOCK + i), h_set(g.greatest[b]));
                hi_store_u8(out->qs + i, h_trunc(h_away_from_zero(scaled)));
            }
        }
    }
}

static void quantize_q8_0(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_q8_0_from, request->source, request, dst);
}

/* ---- with importance: the scale is searched for ---- */

/* Packs `live` blocks from block `first` of the flattened rows, by what was found for them. */
INLINE void pack_centred(const forge_request *request, int64_t first, int live, const symmetric_found *found,
                         int nmax, int bytes, put_block *put, uint8_t *dst)
{
    for (int j = 0; j < live; j++, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        const float *x = view_elements(request, (first + j) * BLOCK, BLOCK, buffer);
        const level_rule rule = {.base = h_set(0.0f),
                                 .factor = h_set(found->iscale[j]),
                                 .low = hi_set(-nmax),
                                 .high = hi_set(nmax - 1),
                                 .bias = hi_set((int)found->bias[j])};
        put(values_of(x), f32_to_f16(found->scale[j]), 0, found_level, &rule, dst);
    }
}

INLINE void pack_ranged(const forge_request *request, int64_t first, int live, const affine_found *found,
                        int nmax, int bytes, put_block *put, uint8_t *dst)
{
    for (int j = 0; j < live; j++, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        const float *x = view_elements(request, (first + j) * BLOCK, BLOCK, buffer);
        const level_rule rule = {.base = h_set(found->base[j]),
                                 .factor = h_set(found->iscale[j]),
                                 .low = hi_set(0),
                                 .high = hi_set(nmax),
                                 .bias = hi_set(0)};
        put(values_of(x), f32_to_f16(found->scale[j]), f32_to_f16(-found->minimum[j]), found_level, &rule,
            dst);
    }
}

/* nmax levels from -nmax (centred), or from 0 with a minimum. */
INLINE void quantize_by_importance(const forge_request *request, uint8_t *dst, int nmax, bool centred,
                                   int bytes, put_block *put)
{
    const affine_search ranged = {.n = BLOCK, .nmax = nmax, .first = -0.9f, .step = 0.05f, .steps = 36};
    const int64_t per_row = request->n_per_row / BLOCK;
    for (int64_t row = 0; row < request->nrows; row += LANES) {
        const int live_rows = lanes_in_use(request->nrows - row);
        float row_variance[LANES] = {0};
        variance(request, request->n_per_row, row, live_rows, 1.0f, row_variance);
        for (int64_t at = 0; at < live_rows * per_row;) {
            const int64_t first = row * per_row + at;
            tile t[TILES];
            int tiles = 0, live = 0;
            for (; tiles < (centred ? 1 : TILES) && at < live_rows * per_row; tiles++) {
                const int count = lanes_in_use(live_rows * per_row - at);
                load_values(request, first + live, count, BLOCK, t[tiles].x);
                load_weights(request, first + live, count, BLOCK, row_variance, at, per_row, &t[tiles]);
                live += count;
                at += count;
            }
            prefetch_elements(request, (first + live) * BLOCK, live * BLOCK);
            if (centred) {
                symmetric_found found;
                search_symmetric(BLOCK, nmax, t, &found, 0);
                pack_centred(request, first, live, &found, nmax, bytes, put, dst + first * bytes);
            } else {
                affine_found found;
                search_affine(&ranged, t, tiles, &found, 0);
                pack_ranged(request, first, live, &found, nmax, bytes, put, dst + first * bytes);
            }
        }
    }
}

static void quantize_q4_0(const forge_request *request, uint8_t *dst)
{
    if (request->importance)
        quantize_by_importance(request, dst, 8, true, sizeof(block_q4_0), put_q4_0);
    else
        FOR_SOURCE(quantize_plain, request->source, request, dst, 16, true, sizeof(block_q4_0), put_q4_0);
}

static void quantize_q4_1(const forge_request *request, uint8_t *dst)
{
    if (request->importance)
        quantize_by_importance(request, dst, 15, false, sizeof(block_q4_1), put_q4_1);
    else
        FOR_SOURCE(quantize_plain, request->source, request, dst, 16, false, sizeof(block_q4_1), put_q4_1);
}

static void quantize_q5_0(const forge_request *request, uint8_t *dst)
{
    if (request->importance)
        quantize_by_importance(request, dst, 16, true, sizeof(block_q5_0), put_q5_0);
    else
        FOR_SOURCE(quantize_plain, request->source, request, dst, 32, true, sizeof(block_q5_0), put_q5_0);
}

static void quantize_q5_1(const forge_request *request, uint8_t *dst)
{
    if (request->importance)
        quantize_by_importance(request, dst, 31, false, sizeof(block_q5_1), put_q5_1);
    else
        FOR_SOURCE(quantize_plain, request->source, request, dst, 32, false, sizeof(block_q5_1), put_q5_1);
}

/* ---- back to floats ---- */

/* d * (level - middle), plus m where there is no middle. */
INLINE hf h_value(hi level, float d, float m, int middle)
{
    const hf scaled = h_mul(hi_float(hi_sub(level, hi_set(middle))), h_set(d));
    return middle ? scaled : h_add(scaled, h_set(m));
}

INLINE void get_4_bits(const uint8_t *qs, float d, float m, int middle, float *y)
{
    for (int i = 0; i < BLOCK / 2; i += H_LANES) {
        const hi both = hi_load_u8(qs + i);
        h_store(y + i, h_value(hi_and(both, hi_set(15)), d, m, middle));
        h_store(y + BLOCK / 2 + i, h_value(hi_shr(both, 4), d, m, middle));
    }
}

INLINE void get_5_bits(const uint8_t *qs, const uint8_t *qh, float d, float m, int middle, float *y)
{
    uint32_t fifth;
    memcpy(&fifth, qh, sizeof fifth);
    for (int i = 0; i < BLOCK / 2; i += H_LANES) {
        const hi both = hi_load_u8(qs + i);
        const hi low = hi_or(hi_and(both, hi_set(15)), hi_shl(hi_from_bits(fifth >> i), 4));
        const hi high = hi_or(hi_shr(both, 4), hi_shl(hi_from_bits(fifth >> (BLOCK / 2 + i)), 4));
        h_store(y + i, h_value(low, d, m, middle));
        h_store(y + BLOCK / 2 + i, h_value(high, d, m, middle));
    }
}

static void dequantize_q4_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q4_0 *in = (const block_q4_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        get_4_bits(in->qs, f16_to_f32(in->d), 0.0f, 8, dst);
}

static void dequantize_q4_1(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q4_1 *in = (const block_q4_1 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        get_4_bits(in->qs, f16_to_f32(in->d), f16_to_f32(in->m), 0, dst);
}

static void dequantize_q5_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q5_0 *in = (const block_q5_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        get_5_bits(in->qs, in->qh, f16_to_f32(in->d), 0.0f, 16, dst);
}

static void dequantize_q5_1(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q5_1 *in = (const block_q5_1 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        get_5_bits(in->qs, in->qh, f16_to_f32(in->d), f16_to_f32(in->m), 0, dst);
}

static void dequantize_q8_0(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_q8_0 *in = (const block_q8_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        for (int i = 0; i < BLOCK; i += H_LANES)
            h_store(dst + i, h_mul(hi_float(hi_load_i8(in->qs + i)), h_set(f16_to_f32(in->d))));
}
