/* The k-quants: super-blocks of 256 values, in sub-blocks of 16 (Q2_K, Q3_K, Q6_K) or 32 (Q4_K, Q5_K). Here
 * is what they share, and those with a scale and a minimum: Q2_K, Q4_K, Q5_K.
 *
 * Quantizing goes a batch of LANES super-blocks at a time: the searches run over tiles of sub-blocks, the
 * scales that they find are quantized (with importance, by a search over tiles of super-blocks), then each
 * super-block is packed. Source: quantize_row_q*_K_ref and quantize_row_q*_K_impl in ggml-quants.c. */

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
    affine_search plain, by_importance;
    float variance_factor;
    int scale_max;
    bool rms;
    bool cap_plain,
        cap_by_importance; /* whether the reference clips scale codes; it matters for negative scales */
} affine_kind;

static const affine_kind kind_q2_K = {
    .plain = {.n = 16, .nmax = 3, .first = -0.5f, .step = 0.1f, .steps = 15, .absolute = true},
    .by_importance = {.n = 16, .nmax = 3, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 1.0f,
    .scale_max = 15,
};
static const affine_kind kind_q4_K = {
    .plain = {.n = 32, .nmax = 15, .first = -1.0f, .step = 0.1f, .steps = 20},
    .by_importance = {.n = 32, .nmax = 15, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 2.0f,
    .scale_max = 63,
    .rms = true,
    .cap_plain = true,
};
static const affine_kind kind_q5_K = {
    .plain = {.n = 32, .nmax = 31, .first = -0.5f, .step = 0.1f, .steps = 15},
    .by_importance = {.n = 32, .nmax = 31, .first = -0.9f, .step = 0.05f, .steps = 36},
    .variance_factor = 2.0f,
    .scale_max = 63,
    .rms = true,
    .cap_plain = true,
    .cap_by_importance = true,
};

INLINE void search_affine_batch(const forge_request *request, int64_t first, int live,
                                const affine_kind *kind, affine_found *out)
{
    const int n = kind->plain.n, subs = SUPER / n;
    float block_variance[LANES] = {0};
    if (request->importance)
        variance(request, SUPER, first, live, kind->variance_factor, block_variance);
    for (int sub = 0; sub < live * subs; sub += TILES * LANES) {
        tile t[TILES];
        int tiles = 0;
        for (int at = sub; tiles < TILES && at < live * subs; tiles++, at += LANES) {
            const int count = lanes_in_use(live * subs - at);
            load_values(request, first * subs + at, count, n, t[tiles].x);
            if (request->importance)
                load_weights(request, first * subs + at, count, n, block_variance, at, subs, &t[tiles]);
            else
                weigh_magnitude(n, kind->rms, &t[tiles]);
        }
        prefetch_elements(request, first * SUPER + (sub + TILES * LANES) * n, TILES * LANES * n);
        search_affine(request->importance ? &kind->by_importance : &kind->plain, t, tiles, out, sub);
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

/* Of a batch, by a search with importance. */
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
                        bool by_importance, super_codes *out)
{
    const int subs = SUPER / kind->plain.n;
    if (by_importance)
        search_scale_codes(scale, sum_w, live, subs, kind->scale_max, kind->cap_by_importance, out);
    else
        for (int block = 0; block < live; block++)
            scale_codes(scale + block * subs, subs, kind->scale_max, kind->cap_plain, &out[block]);
}

/* Levels of super-block `block` of the batch, by its codes as they will be read back. */
INLINE void affine_super_levels(const forge_request *request, int64_t first, int block,
                                const affine_kind *kind, const affine_found *found, const super_codes *scale,
                                const super_codes *minimum, uint8_t *level)
{
    const int n = kind->plain.n, nmax = kind->plain.nmax, subs = SUPER / n;
    _Alignas(64) float buffer[SUPER];
    const float *x = view_elements(request, (first + block) * SUPER, SUPER, buffer);
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

INLINE void quantize_affine(const forge_request *request, uint8_t *dst, const affine_kind *kind,
                            int block_bytes, void (*put_codes)(super_codes *, super_codes *, void *),
                            void (*put_levels)(const uint8_t *, void *))
{
    const int64_t blocks = element_count(request) / SUPER;
    const bool by_importance = request->importance != NULL;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        affine_found found;
        super_codes scale[LANES], minimum[LANES];
        search_affine_batch(request, first, live, kind, &found);
        batch_codes(found.scale, found.sum_w, live, kind, by_importance, scale);
        batch_codes(found.minimum, found.sum_w, live, kind, by_importance, minimum);
        for (int block = 0; block < live; block++, dst += block_bytes) {
            _Alignas(64) uint8_t level[SUPER];
            put_codes(&scale[block], &minimum[block], dst);
            affine_super_levels(request, first, block, kind, &found, &scale[block], &minimum[block], level);
            put_levels(level, dst);
        }
    }
}

static void quantize_q2_K(const forge_request *request, uint8_t *dst)
{
    quantize_affine(request, dst, &kind_q2_K, sizeof(block_q2_K), codes_q2_K, levels_q2_K);
}

static void quantize_q4_K(const forge_request *request, uint8_t *dst)
{
    quantize_affine(request, dst, &kind_q4_K, sizeof(block_q4_K), codes_q4_K, levels_q4_K);
}

static void quantize_q5_K(const forge_request *request, uint8_t *dst)
{
    quantize_affine(request, dst, &kind_q5_K, sizeof(block_q5_K), codes_q5_K, levels_q5_K);
}
