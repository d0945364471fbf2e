/* The k-quants: super-blocks of 256 values, in sub-blocks of 16 (Q2_K, Q3_K, Q6_K) or 32 (Q4_K, Q5_K).
 *
 * Quantizing goes a batch of LANES super-blocks at a time: the searches run over tiles of sub-blocks, the
 * scales that they find are quantized (with importance, by a search over tiles of super-blocks), then each
 * super-block is packed. Source: quantize_row_q*_K_ref, quantize_row_q*_K_impl and dequantize_row_q*_K in
 * ggml-quants.c. */

/* ---- shared: weights, levels ---- */

/* |x|, plus the root mean square of the sub-block if `rms`. */
INLINE void weigh_magnitude(int n, bool rms, tile *t)
{
    vf sum = v_set(0.0f);
    for (int i = 0; rms && i < n; i++)
        sum = v_add(sum, v_mul(v_load(t->x[i]), v_load(t->x[i])));
    const vf mean = v_sqrt(v_div(sum, v_set((float)n)));
    for (int i = 0; i < n; i++)
        v_store(t->w[i], rms ? v_add(mean, v_abs(v_load(t->x[i]))) : v_abs(v_load(t->x[i])));
}

INLINE void weigh_square(int n, tile *t)
{
    for (int i = 0; i < n; i++)
        v_store(t->w[i], v_mul(v_load(t->x[i]), v_load(t->x[i])));
}

/* Levels (x + minimum) / d of one sub-block as bytes: rounded into [low, high], less low. */
INLINE void pack_levels(const float *x, int n, float minimum, float d, int low, int high, uint8_t *level)
{
    ROLLED
    for (int i = 0; i < n; i += H_LANES) {
        const hi l = h_nearest(h_div(h_add(h_load(x + i), h_set(minimum)), h_set(d)));
        hi_store_u8(level + i, hi_sub(hi_min(hi_max(l, hi_set(low)), hi_set(high)), hi_set(low)));
    }
}

/* Levels iscale * (x - base): what a search found, where the quantized scale is 0. */
INLINE void pack_found(const float *x, int n, float iscale, float base, int low, int high, int bias,
                       uint8_t *level)
{
    ROLLED
    for (int i = 0; i < n; i += H_LANES) {
        const hi l = h_nearest(h_mul(h_set(iscale), h_sub(h_load(x + i), h_set(base))));
        hi_store_u8(level + i, hi_add(hi_min(hi_max(l, hi_set(low)), hi_set(high)), hi_set(bias)));
    }
}

/* 2 bits of each of 256 levels (Q2_K, Q3_K). */
INLINE void pack_two_bits(const uint8_t *level, uint8_t *qs)
{
    for (int h = 0; h < 2; h++, level += 128, qs += 32)
        for (int l = 0; l < 32; l++)
            qs[l] = (uint8_t)((level[l] & 3) | (level[l + 32] & 3) << 2 | (level[l + 64] & 3) << 4 |
                              (level[l + 96] & 3) << 6);
}

/* 4 bits of each of 256 levels (Q4_K, Q5_K). */
INLINE void pack_nibbles(const uint8_t *level, uint8_t *qs)
{
    for (int h = 0; h < 4; h++, level += 64, qs += 32)
        for (int l = 0; l < 32; l++)
            qs[l] = (uint8_t)((level[l] & 15) | (level[l + 32] & 15) << 4);
}

/* Bit `bit` of each of 256 levels: that of level 32 k + l is bit k of byte l (Q3_K, Q5_K). */
INLINE void pack_high_bits(const uint8_t *level, int bit, uint8_t *out)
{
    for (int l = 0; l < 32; l++) {
        unsigned high = 0;
        for (int k = 0; k < 8; k++)
            high |= (unsigned)(level[32 * k + l] >> bit & 1) << k;
        out[l] = (uint8_t)high;
    }
}

/* ---- scale and minimum: Q2_K, Q4_K, Q5_K ---- */

/* A super-block's scales, or its minima, quantized: d * code. */
typedef struct {
    uint8_t code[SUBS];
    uint16_t d;
} super_codes;

/* The kind of k-quant: its sub-block, levels and searches. */
typedef struct {
    affine_search plain, weighted;
    float variance_factor;
    int scale_max;
    bool rms;
    bool cap_plain,
        cap_weighted; /* whether the reference clips scale codes; it matters for negative scales */
} affine_kind;

static const affine_kind kind_q2_K = {
    .plain = {.n = 16, .nmax = 3, .first = -0.5f, .step = 0.1f, .steps = 15, .absolute = true},
    .weighted = {.n = 16, .nmax = 3, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 1.0f,
    .scale_max = 15,
};
static const affine_kind kind_q4_K = {
    .plain = {.n = 32, .nmax = 15, .first = -1.0f, .step = 0.1f, .steps = 20},
    .weighted = {.n = 32, .nmax = 15, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 2.0f,
    .scale_max = 63,
    .rms = true,
    .cap_plain = true,
};
static const affine_kind kind_q5_K = {
    .plain = {.n = 32, .nmax = 31, .first = -0.5f, .step = 0.1f, .steps = 15},
    .weighted = {.n = 32, .nmax = 31, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 2.0f,
    .scale_max = 63,
    .rms = true,
    .cap_plain = true,
    .cap_weighted = true,
};

INLINE void search_affine_batch(const forge_rows *rows, int64_t first, int live, const affine_kind *kind,
                                affine_found *out)
{
    const int n = kind->plain.n, subs = SUPER / n;
    float block_variance[LANES] = {0};
    if (rows->weights)
        variance(rows, SUPER, first, live, kind->variance_factor, block_variance);
    for (int sub = 0; sub < live * subs; sub += TILES * LANES) {
        tile t[TILES];
        int tiles = 0;
        for (int at = sub; tiles < TILES && at < live * subs; tiles++, at += LANES) {
            const int count = lanes_in_use(live * subs - at);
            load_values(rows, first * subs + at, count, n, t[tiles].x);
            if (rows->weights)
                load_weights(rows, first * subs + at, count, n, block_variance, at, subs, &t[tiles]);
            else
                weigh_magnitude(n, kind->rms, &t[tiles]);
        }
        prefetch_elements(rows, first * SUPER + (sub + TILES * LANES) * n, TILES * LANES * n);
        search_affine(rows->weights ? &kind->weighted : &kind->plain, t, tiles, out, sub);
    }
}

/* Of one super-block, the greatest becoming `top`. */
INLINE void scale_codes(const float *scale, int subs, int top, bool cap, super_codes *out)
{
    float max = 0.0f;
    for (int j = 0; j < subs; j++)
        max = scale[j] > max ? scale[j] : max;
    const float inverse = max > 0.0f ? (float)top / max : 0.0f;
    for (int j = 0; j < subs; j++) {
        const uint8_t l = (uint8_t)nearest_int(inverse * scale[j]);
        out->code[j] = cap && l > top ? (uint8_t)top : l;
    }
    out->d = f32_to_f16(max / (float)top);
}

/* Of a batch, by weighted search. */
INLINE void search_scale_codes(const float *scale, const float *sum_w, int live, int subs, int top, bool cap,
                               super_codes *out)
{
    tile t;
    _Alignas(64) float level[TILE_ROWS][LANES], found[LANES];
    memset(&t, 0, sizeof t);
    for (int block = 0; block < live; block++)
        for (int j = 0; j < subs; j++) {
            t.x[j][block] = scale[block * subs + j];
            t.w[j][block] = sum_w[block * subs + j];
        }
    v_store(found, search_positive(subs, top, &t, level));
    for (int block = 0; block < live; block++) {
        out[block].d = f32_to_f16(found[block]);
        for (int j = 0; j < subs; j++) {
            const float l = level[j][block];
            out[block].code[j] = (uint8_t)(cap && l > (float)top ? (float)top : l);
        }
    }
}

INLINE void batch_codes(const float *scale, const float *sum_w, int live, const affine_kind *kind,
                        bool weighted, super_codes *out)
{
    const int subs = SUPER / kind->plain.n;
    if (weighted)
        search_scale_codes(scale, sum_w, live, subs, kind->scale_max, kind->cap_weighted, out);
    else
        for (int block = 0; block < live; block++)
            scale_codes(scale + block * subs, subs, kind->scale_max, kind->cap_plain, &out[block]);
}

/* Levels of super-block `block` of the batch, by its codes as they will be read back. */
INLINE void affine_super_levels(const forge_rows *rows, int64_t first, int block, const affine_kind *kind,
                                const affine_found *found, const super_codes *scale,
                                const super_codes *minimum, uint8_t *level)
{
    const int n = kind->plain.n, nmax = kind->plain.nmax, subs = SUPER / n;
    _Alignas(64) float buffer[SUPER];
    const float *x = view_elements(rows, (first + block) * SUPER, SUPER, buffer);
    const float d_all = f16_to_f32(scale->d), dmin = f16_to_f32(minimum->d);
    for (int j = 0; j < subs; j++) {
        const float d = d_all * scale->code[j];
        const int sub = block * subs + j;
        if (d != 0.0f)
            pack_levels(x + n * j, n, dmin * minimum->code[j], d, 0, nmax, level + n * j);
        else
            pack_found(x + n * j, n, found->iscale[sub], found->base[sub], 0, nmax, 0, level + n * j);
    }
}

/* 8 scales and minima of 6 bits: sub-blocks 0..3 have theirs in bytes 0..3 and 4..7; 4..7 have their low
 * nibbles in bytes 8..11 and their high two bits in the top of bytes 0..3 and 4..7. */
INLINE void pack_scales_k4(const uint8_t *scale, const uint8_t *minimum, uint8_t *out)
{
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t)(minimum[j] | minimum[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t)((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
    }
}

/* Both as the bytes of words. */
INLINE void unpack_scales_k4(const uint8_t *in, uint64_t *scales, uint64_t *minima)
{
    const uint64_t six = 0x3f3f3f3fu, four = 0x0f0f0f0fu, top = 0x30303030u;
    const uint64_t a = load_u32(in), b = load_u32(in + 4), c = load_u32(in + 8);
    *scales = (a & six) | ((c & four) | (a >> 2 & top)) << 32;
    *minima = (b & six) | ((c >> 4 & four) | (b >> 2 & top)) << 32;
}

/* Each packs the codes into a block and leaves them as the block holds them, or packs levels into it. */
INLINE void codes_q2_K(super_codes *scale, super_codes *minimum, void *dst)
{
    block_q2_K *out = dst;
    out->d = scale->d;
    out->dmin = minimum->d;
    for (int j = 0; j < SUBS; j++) {
        out->scales[j] = (uint8_t)(scale->code[j] | minimum->code[j] << 4);
        scale->code[j] = out->scales[j] & 15;
        minimum->code[j] = out->scales[j] >> 4;
    }
}

INLINE void levels_q2_K(const uint8_t *level, void *dst) { pack_two_bits(level, ((block_q2_K *)dst)->qs); }

INLINE void codes_q4_K(super_codes *scale, super_codes *minimum, void *dst)
{
    block_q4_K *out = dst;
    out->d = scale->d;
    out->dmin = minimum->d;
    pack_scales_k4(scale->code, minimum->code, out->scales);
    uint64_t scales, minima;
    unpack_scales_k4(out->scales, &scales, &minima);
    memcpy(scale->code, &scales, sizeof scales);
    memcpy(minimum->code, &minima, sizeof minima);
}

INLINE void levels_q4_K(const uint8_t *level, void *dst) { pack_nibbles(level, ((block_q4_K *)dst)->qs); }

INLINE void codes_q5_K(super_codes *scale, super_codes *minimum, void *dst)
{
    block_q5_K *out = dst;
    out->d = scale->d;
    out->dmin = minimum->d;
    pack_scales_k4(scale->code, minimum->code, out->scales);
    uint64_t scales, minima;
    unpack_scales_k4(out->scales, &scales, &minima);
    memcpy(scale->code, &scales, sizeof scales);
    memcpy(minimum->code, &minima, sizeof minima);
}

INLINE void levels_q5_K(const uint8_t *level, void *dst)
{
    block_q5_K *out = dst;
    pack_high_bits(level, 4, out->qh);
    pack_nibbles(level, out->qs);
}

INLINE void quantize_affine(const forge_rows *rows, uint8_t *dst, const affine_kind *kind, int block_bytes,
                            void (*put_codes)(super_codes *, super_codes *, void *),
                            void (*put_levels)(const uint8_t *, void *))
{
    const int64_t blocks = element_count(rows) / SUPER;
    const bool weighted = rows->weights != NULL;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        affine_found found;
        super_codes scale[LANES], minimum[LANES];
        search_affine_batch(rows, first, live, kind, &found);
        batch_codes(found.scale, found.sum_w, live, kind, weighted, scale);
        batch_codes(found.minimum, found.sum_w, live, kind, weighted, minimum);
        for (int block = 0; block < live; block++, dst += block_bytes) {
            _Alignas(64) uint8_t level[SUPER];
            put_codes(&scale[block], &minimum[block], dst);
            affine_super_levels(rows, first, block, kind, &found, &scale[block], &minimum[block], level);
            put_levels(level, dst);
        }
    }
}

static void quantize_q2_K(const forge_rows *rows, uint8_t *dst)
{
    quantize_affine(rows, dst, &kind_q2_K, sizeof(block_q2_K), codes_q2_K, levels_q2_K);
}

static void quantize_q4_K(const forge_rows *rows, uint8_t *dst)
{
    quantize_affine(rows, dst, &kind_q4_K, sizeof(block_q4_K), codes_q4_K, levels_q4_K);
}

static void quantize_q5_K(const forge_rows *rows, uint8_t *dst)
{
    quantize_affine(rows, dst, &kind_q5_K, sizeof(block_q5_K), codes_q5_K, levels_q5_K);
}

/* ---- scale alone: Q3_K, Q6_K ---- */

INLINE void search_symmetric_batch(const forge_rows *rows, int64_t first, int live, int nmax, bool spread,
                                   symmetric_found *out)
{
    float block_variance[LANES] = {0};
    if (rows->weights && spread)
        variance(rows, SUPER, first, live, 2.0f, block_variance);
    for (int at = 0; at < live * SUBS; at += LANES) {
        const int count = lanes_in_use(live * SUBS - at);
        tile t;
        load_values(rows, first * SUBS + at, count, 16, t.x);
        if (rows->weights && spread)
            load_weights(rows, first * SUBS + at, count, 16, block_variance, at, SUBS, &t);
        else if (rows->weights)
            load_importance(rows, first * SUBS + at, count, 16, t.w);
        else
            weigh_square(16, &t);
        prefetch_elements(rows, first * SUPER + (at + LANES) * SUBS, LANES * SUBS);
        search_symmetric(16, nmax, &t, out, at);
    }
}

/* The sub-block scale of greatest magnitude. */
INLINE float extreme_scale(const float *scale)
{
    float max = 0.0f, amax = 0.0f;
    for (int j = 0; j < SUBS; j++)
        if (fabsf(scale[j]) > amax) {
            amax = fabsf(scale[j]);
            max = scale[j];
        }
    return max;
}

/* 16 scales of 6 bits: low nibbles of j and j + 8 in byte j; high two bits of j, at 2 (j / 4), in byte 8 + j
 * % 4. */
INLINE void pack_scales_q3_K(const uint8_t *code, uint8_t *out)
{
    memset(out, 0, 12);
    for (int j = 0; j < SUBS; j++) {
        out[j % 8] |= (uint8_t)((code[j] & 15) << (j < 8 ? 0 : 4));
        out[8 + j % 4] |= (uint8_t)(code[j] >> 4 << 2 * (j / 4));
    }
}

INLINE void unpack_scales_q3_K(const uint8_t *in, int8_t *scale)
{
    for (int j = 0; j < SUBS; j++) {
        const int low = j < 8 ? in[j] & 15 : in[j - 8] >> 4;
        scale[j] = (int8_t)((low | (in[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
    }
}

INLINE void store_q3_K(const uint8_t *code, uint16_t d, const uint8_t *level, uint8_t *dst)
{
    block_q3_K *out = (block_q3_K *)dst;
    pack_high_bits(level, 2, out->hmask);
    pack_two_bits(level, out->qs);
    pack_scales_q3_K(code, out->scales);
    out->d = d;
}

/* The scales of a batch's sub-blocks, by descent. Most sub-blocks keep the levels that they start from; the
 * rest are gathered into dense lanes and searched. */
INLINE void search_descent_batch(const forge_rows *rows, int64_t first, int live, float *scale)
{
    int unsettled[FOUND], left = 0;
    for (int sub = 0; sub < live * SUBS; sub += LANES) {
        descent_state s;
        const int used = lanes_in_use(live * SUBS - sub);
        load_values(rows, first * SUBS + sub, used, SUBS, s.x);
        prefetch_elements(rows, first * SUPER + (sub + 4 * LANES) * SUBS, LANES * SUBS);
        descent_begin(4, &s);
        if (LANES == 1) /* one lane gains nothing by gathering */
            search_descent(4, &s, 1);
        v_store(scale + sub, descent_scale(&s));
        const uint32_t settled = LANES == 1 ? 1 : vm_bits(descent_settled(4, &s));
        for (int j = 0; j < used; j++) {
            unsettled[left] = sub + j;
            left += !(settled >> j & 1);
        }
    }
    for (int at = 0; at < left;) {
        descent_state s[DESCENTS];
        int count = 0, lanes = 0;
        for (; count < DESCENTS && at + lanes < left; count++) {
            const int used = lanes_in_use(left - at - lanes);
            gather_values(rows, first * SUBS, unsettled + at + lanes, used, SUBS, s[count].x);
            descent_begin(4, &s[count]);
            lanes += used;
        }
        search_descent(4, s, count);
        for (int k = 0; k < count; k++) {
            _Alignas(64) float found[LANES];
            v_store(found, descent_scale(&s[k]));
            for (int j = 0; j < LANES && at < left; j++, at++)
                scale[unsettled[at]] = found[j];
        }
    }
}

/* The levels that a descent leaves a sub-block, plus 4; 0 for zeros. */
INLINE void descent_levels(const float *x, uint8_t *level)
{
    descent_state s;
    memset(s.x, 0, sizeof s.x);
    for (int i = 0; i < SUBS; i++)
        s.x[i][0] = x[i];
    descent_begin(4, &s);
    search_descent(4, &s, 1);
    for (int i = 0; i < SUBS; i++)
        level[i] = vm_bits(s.empty) & 1 ? 0 : (uint8_t)(s.level[i][0] + 4.0f);
}

INLINE void quantize_q3_K_plain(const forge_rows *rows, uint8_t *dst, int64_t first, int live)
{
    _Alignas(64) float scale[FOUND];
    search_descent_batch(rows, first, live, scale);
    for (int block = 0; block < live; block++) {
        _Alignas(64) float buffer[SUPER];
        _Alignas(64) uint8_t level[SUPER];
        uint8_t code[SUBS];
        const float *x = view_elements(rows, (first + block) * SUPER, SUPER, buffer);
        const float max = extreme_scale(scale + block * SUBS), iscale = -32.0f / max;
        const uint16_t d_all = f32_to_f16(max != 0.0f ? 1 / iscale : 0.0f);
        const float d_stored = f16_to_f32(d_all);
        for (int j = 0; j < SUBS; j++) {
            const int8_t l = (int8_t)nearest_int(iscale * scale[block * SUBS + j]);
            code[j] = max != 0.0f ? (uint8_t)((l < -32 ? -32 : l > 31 ? 31 : l) + 32) : 0;
            const float d = d_stored * (float)(code[j] - 32);
            if (d != 0.0f)
                pack_levels(x + 16 * j, 16, 0.0f, d, -4, 3, level + 16 * j);
            else
                descent_levels(x + 16 * j, level + 16 * j);
        }
        store_q3_K(code, d_all, level, dst + (first + block) * (int64_t)sizeof(block_q3_K));
    }
}

INLINE void quantize_q3_K_weighted(const forge_rows *rows, uint8_t *dst, int64_t first, int live)
{
    symmetric_found found;
    search_symmetric_batch(rows, first, live, 4, true, &found);
    tile t;
    memset(&t, 0, sizeof t);
    for (int sub = 0; sub < live * SUBS; sub++) {
        t.x[sub % SUBS][sub / SUBS] = found.scale[sub];
        t.w[sub % SUBS][sub / SUBS] = found.sum_w[sub];
    }
    symmetric_found scales;
    search_symmetric(SUBS, 32, &t, &scales, 0);
    for (int block = 0; block < live; block++) {
        _Alignas(64) float buffer[SUPER];
        _Alignas(64) uint8_t level[SUPER], code[SUBS];
        const float *x = view_elements(rows, (first + block) * SUPER, SUPER, buffer);
        pack_found(found.scale + block * SUBS, SUBS, scales.iscale[block], 0.0f, -32, 31,
                   (int)scales.bias[block], code);
        const uint16_t d_all = f32_to_f16(scales.scale[block]);
        const float d_stored = f16_to_f32(d_all);
        for (int j = 0; j < SUBS; j++) {
            const int sub = block * SUBS + j;
            const float d = d_stored * (float)(code[j] - 32);
            if (d != 0.0f)
                pack_levels(x + 16 * j, 16, 0.0f, d, -4, 3, level + 16 * j);
            else
                pack_found(x + 16 * j, 16, found.iscale[sub], 0.0f, -4, 3, (int)found.bias[sub],
                           level + 16 * j);
        }
        store_q3_K(code, d_all, level, dst + (first + block) * (int64_t)sizeof(block_q3_K));
    }
}

static void quantize_q3_K(const forge_rows *rows, uint8_t *dst)
{
    const int64_t blocks = element_count(rows) / SUPER;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        if (rows->weights)
            quantize_q3_K_weighted(rows, dst, first, live);
        else
            quantize_q3_K_plain(rows, dst, first, live);
    }
}

INLINE void pack_q6_K(const uint8_t *level, block_q6_K *out)
{
    for (int h = 0; h < 2; h++, level += 128)
        for (int l = 0; l < 32; l++) {
            const uint8_t q0 = level[l], q1 = level[l + 32], q2 = level[l + 64], q3 = level[l + 96];
            out->ql[64 * h + l] = (uint8_t)((q0 & 15) | (q2 & 15) << 4);
            out->ql[64 * h + l + 32] = (uint8_t)((q1 & 15) | (q3 & 15) << 4);
            out->qh[32 * h + l] = (uint8_t)(q0 >> 4 | q1 >> 4 << 2 | q2 >> 4 << 4 | q3 >> 4 << 6);
        }
}

static void quantize_q6_K(const forge_rows *rows, uint8_t *dst)
{
    const int64_t blocks = element_count(rows) / SUPER;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        symmetric_found found;
        search_symmetric_batch(rows, first, live, 32, false, &found);
        for (int block = 0; block < live; block++) {
            block_q6_K *out = (block_q6_K *)(dst + (first + block) * (int64_t)sizeof(block_q6_K));
            const float *scale = found.scale + block * SUBS, max = extreme_scale(scale);
            if (fabsf(max) < TINY) {
                memset(out, 0, sizeof *out);
                continue;
            }
            _Alignas(64) float buffer[SUPER];
            _Alignas(64) uint8_t level[SUPER];
            const float *x = view_elements(rows, (first + block) * SUPER, SUPER, buffer);
            const float iscale = -128.0f / max;
            out->d = f32_to_f16(1 / iscale);
            for (int j = 0; j < SUBS; j++) {
                const int sub = block * SUBS + j, l = nearest_int(iscale * scale[j]);
                out->scales[j] = (int8_t)(l < 127 ? l : 127);
                const float d = f16_to_f32(out->d) * out->scales[j];
                if (d != 0.0f)
                    pack_levels(x + 16 * j, 16, 0.0f, d, -32, 31, level + 16 * j);
                else
                    pack_found(x + 16 * j, 16, found.iscale[sub], 0.0f, -32, 31, (int)found.bias[sub],
                               level + 16 * j);
            }
            pack_q6_K(level, out);
        }
    }
}

/* ---- back to floats ---- */

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
