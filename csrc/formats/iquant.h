/* The i-quants of 2 and 3 bits: super-blocks of 256 values, in sub-blocks of 16 or 32, in groups of 8 or 4.
 *
 * A sub-block is a scale, signs, and a point of a grid for the magnitudes of each group; grid_search.h finds
 * them. Source: quantize_row_iq2_*_impl and quantize_row_iq3_*_impl in ggml-quants.c. */

static const grid_kind kind_iq2_xxs = {
    .n = 32,
    .tries = 6,
    .step = 0.1f,
    .variance_factor = 1.0f,
    .least = 1e-15f,
    .even = true,
    .rough = true,
    .refit = REFIT_ALL,
};
static const grid_kind kind_iq2_xs = {
    .n = 16,
    .tries = 9,
    .step = 0.1f,
    .variance_factor = 1.0f,
    .least = 1e-15f,
    .even = true,
    .refit = REFIT_OFF_GRID,
};
static const grid_kind kind_iq2_s = {
    .n = 16,
    .tries = 9,
    .step = 0.1f,
    .variance_factor = 2.0f,
    .least = 1e-8f,
    .steps = true,
    .flat = true,
    .refit = REFIT_OFF_GRID,
};
static const grid_kind kind_iq3_xxs = {
    .n = 32,
    .tries = 15,
    .step = 0.2f,
    .variance_factor = 2.0f,
    .least = 1e-8f,
    .even = true,
    .refit = REFIT_OFF_GRID,
};
static const grid_kind kind_iq3_s = {
    .n = 32,
    .tries = 9,
    .step = 0.2f,
    .variance_factor = 2.0f,
    .least = 0x1p-149f,
    .refit = REFIT_ALL_IF_ANY,
};

/* What the search found for the sub-blocks of a batch of super-blocks. */
typedef struct {
    _Alignas(64) float scale[LANES * SUBS];
    uint16_t index[LANES * (SUPER / 4)]; /* of each group */
    uint8_t signs[LANES * (SUPER / 8)];  /* of each 8 values */
    bool empty[LANES * SUBS];            /* no search was made: all values are zero, or near it */
} grid_batch;

/* ---- super-blocks ---- */

/* Indices of the points of these codes. */
INLINE void find_points(int n, int group, const grid_tables *tables, int32_t (*codes)[LANES], int live,
                        uint16_t *out)
{
    for (int k = 0; k < n / group; k++) {
        _Alignas(64) int32_t number[LANES];
        const vi code = vi_load(codes[k]);
        vf sum = v_set(0.0f);
        for (int i = 7; i >= 0; i--) {
            const vf level = v_lookup4(levels_of_pairs, vi_shr(code, 2 * i));
            sum = v_add(v_mul(sum, v_set(3.0f)), level);
        }
        vi_store(number, group == 8 ? v_trunc(sum) : vi_and(code, vi_set(4095)));
        for (int j = 0; j < live; j++)
            out[j * (n / group) + k] = grid_point(tables, number[j]);
    }
}

INLINE void search_grid_batch(const forge_request *request, int64_t first, int live, const grid_kind *kind,
                              int group, const grid_tables *tables, grid_batch *out)
{
    const int n = kind->n, subs = SUPER / n;
    float variances[LANES] = {0};
    if (request->importance || kind->flat)
        variance(request, SUPER, first, live, kind->variance_factor, variances);
    for (int sub = 0; sub < live * subs; sub += LANES) {
        const int count = lanes_in_use(live * subs - sub);
        _Alignas(64) float used[LANES], greatest[LANES];
        grid_tile g;
        load_values(request, first * subs + sub, count, n, g.t.x);
        if (request->importance)
            load_weights(request, first * subs + sub, count, n, variances, sub, subs, &g.t);
        else
            weigh_plain(kind, variances, sub, subs, count, &g.t);
        const vf max = prepare_tile(kind, &g);
        for (int j = 0; j < LANES; j++)
            used[j] = j < count ? 1.0f : 0.0f;
        v_store(out->scale + sub, search_grid(kind, group, tables, v_lt(v_set(0.0f), v_load(used)), max, &g));
        v_store(greatest, max);
        find_points(n, group, tables, g.best, count, out->index + sub * (n / group));
        for (int j = 0; j < count; j++) {
            out->empty[sub + j] = greatest[j] < kind->least;
            for (int k = 0; k < n / 8; k++)
                out->signs[(sub + j) * (n / 8) + k] = (uint8_t)g.signs[k][j];
        }
    }
}

/* Codes of the scales of one super-block, and their scale; 0 if there is none. */
INLINE float nibble_scales(const float *scale, int subs, uint8_t *code)
{
    float max = 0.0f;
    for (int j = 0; j < subs; j++)
        max = max > scale[j] ? max : scale[j];
    const float d = max / 31, id = 1 / d;
    for (int j = 0; j < subs; j++) {
        const int l = max != 0.0f ? nearest_int(0.5f * (id * scale[j] - 1)) : 0;
        code[j] = (uint8_t)(l < 0 ? 0 : l > 15 ? 15 : l);
    }
    return d;
}

INLINE bool no_scale(const float *scale, int subs)
{
    for (int j = 0; j < subs; j++)
        if (scale[j] != 0.0f)
            return false;
    return true;
}

/* What was found for one super-block. */
typedef struct {
    const float *scale;
    const uint16_t *index;
    const uint8_t *signs;
    const bool *empty;
} grid_super;

typedef void put_grid_block(const grid_super *in, uint8_t *dst);

INLINE void quantize_grid(const forge_request *request, uint8_t *dst, int type, const grid_kind *kind,
                          int group, int block_bytes, put_grid_block *put)
{
    const int64_t blocks = element_count(request) / SUPER;
    const grid_tables tables = view_tables(find_grid(type), request->tables);
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        grid_batch found;
        search_grid_batch(request, first, live, kind, group, &tables, &found);
        for (int block = 0; block < live; block++, dst += block_bytes) {
            const int sub = block * (SUPER / kind->n);
            const grid_super one = {found.scale + sub, found.index + block * (SUPER / group),
                                    found.signs + block * (SUPER / 8), found.empty + sub};
            if (kind->even && no_scale(one.scale, SUPER / kind->n))
                memset(dst, 0, (size_t)block_bytes);
            else
                put(&one, dst);
        }
    }
}

INLINE void put_iq2_xxs(const grid_super *in, uint8_t *dst)
{
    block_iq2_xxs *out = (block_iq2_xxs *)dst;
    uint8_t code[8];
    const float d = nibble_scales(in->scale, 8, code);
    out->d = f32_to_f16(d);
    for (int j = 0; j < 8; j++) {
        uint32_t points = 0, rest = (uint32_t)code[j] << 28;
        for (int k = 0; k < 4; k++) {
            points |= (uint32_t)in->index[4 * j + k] << 8 * k;
            rest |= (uint32_t)in->signs[4 * j + k] << 7 * k;
        }
        out->qs[j][0] = points;
        out->qs[j][1] = rest;
    }
}

INLINE void put_iq2_xs(const grid_super *in, uint8_t *dst)
{
    block_iq2_xs *out = (block_iq2_xs *)dst;
    uint8_t code[16];
    const float d = nibble_scales(in->scale, 16, code);
    out->d = f32_to_f16(d);
    for (int j = 0; j < 8; j++)
        out->scales[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
    for (int k = 0; k < 32; k++)
        out->qs[k] = (uint16_t)(in->index[k] | in->signs[k] << 9);
}

INLINE void put_iq2_s(const grid_super *in, uint8_t *dst)
{
    block_iq2_s *out = (block_iq2_s *)dst;
    uint8_t code[16];
    const float d = nibble_scales(in->scale, 16, code);
    out->d = f32_to_f16(d * 0.9875f);
    memset(out->qh, 0, sizeof out->qh);
    for (int j = 0; j < 8; j++)
        out->scales[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
    for (int k = 0; k < 32; k++) {
        out->qs[k] = (uint8_t)in->index[k];
        out->qh[k / 4] |= (uint8_t)(in->index[k] >> 8 << 2 * (k % 4));
        out->signs[k] = in->signs[k];
    }
}

INLINE void put_iq3_xxs(const grid_super *in, uint8_t *dst)
{
    block_iq3_xxs *out = (block_iq3_xxs *)dst;
    uint8_t code[8];
    const float d = nibble_scales(in->scale, 8, code);
    out->d = f32_to_f16(d * 1.0125f);
    for (int k = 0; k < 64; k++)
        out->qs[k] = (uint8_t)in->index[k];
    for (int j = 0; j < 8; j++) {
        uint32_t rest = (uint32_t)code[j] << 28;
        for (int k = 0; k < 4; k++)
            rest |= (uint32_t)in->signs[4 * j + k] << 7 * k;
        out->signs_scales[j] = rest;
    }
}

INLINE void put_iq3_s(const grid_super *in, uint8_t *dst)
{
    block_iq3_s *out = (block_iq3_s *)dst;
    uint8_t code[8];
    const float d = nibble_scales(in->scale, 8, code);
    out->d = f32_to_f16(d * 1.033f);
    memset(out->qh, 0, sizeof out->qh);
    memset(out->qs, 0, sizeof out->qs);
    memset(out->signs, 0, sizeof out->signs);
    for (int k = 0; k < 64; k++)
        out->qh[k / 8] |= (uint8_t)(in->index[k] >> 8 << k % 8);
    /* The reference takes no room for an empty sub-block, so what follows moves up; but for the high bits. */
    for (int j = 0, at = 0; j < 8; j++) {
        if (in->empty[j])
            continue;
        for (int k = 0; k < 8; k++)
            out->qs[8 * at + k] = (uint8_t)in->index[8 * j + k];
        memcpy(out->signs + 4 * at, in->signs + 4 * j, 4);
        at++;
    }
    for (int j = 0; j < 4; j++)
        out->scales[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
}

/* IQ2_XXS and IQ2_XS are never reached without importance: the caller asks forge_needs_importance. */
static void quantize_iq2_xxs(const forge_request *request, uint8_t *dst)
{
    quantize_grid(request, dst, TYPE_IQ2_XXS, &kind_iq2_xxs, 8, sizeof(block_iq2_xxs), put_iq2_xxs);
}

static void quantize_iq2_xs(const forge_request *request, uint8_t *dst)
{
    quantize_grid(request, dst, TYPE_IQ2_XS, &kind_iq2_xs, 8, sizeof(block_iq2_xs), put_iq2_xs);
}

static void quantize_iq2_s(const forge_request *request, uint8_t *dst)
{
    quantize_grid(request, dst, TYPE_IQ2_S, &kind_iq2_s, 8, sizeof(block_iq2_s), put_iq2_s);
}

static void quantize_iq3_xxs(const forge_request *request, uint8_t *dst)
{
    quantize_grid(request, dst, TYPE_IQ3_XXS, &kind_iq3_xxs, 4, sizeof(block_iq3_xxs), put_iq3_xxs);
}

static void quantize_iq3_s(const forge_request *request, uint8_t *dst)
{
    quantize_grid(request, dst, TYPE_IQ3_S, &kind_iq3_s, 4, sizeof(block_iq3_s), put_iq3_s);
}
