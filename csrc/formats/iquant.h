/* The i-quants of 2 and 3 bits: super-blocks of 256 values, in sub-blocks of 16 or 32, in groups of 8 or 4.
 *
 * A sub-block is a scale, signs, and a point of a grid for the magnitudes of each group. The scale is
 * searched for: each try rounds the magnitudes to odd multiples of it, moves the groups that are off the
 * grid to the neighbour of least error, and fits the scale to that. Tries run over tiles of sub-blocks, one
 * a lane; a list of neighbours is searched several neighbours at a time. Source: quantize_row_iq2_*_impl,
 * quantize_row_iq3_*_impl and iq*_find_best_neighbour in ggml-quants.c. */

enum refit { REFIT_ALL, REFIT_OFF_GRID, REFIT_ALL_IF_ANY };

typedef struct {
    int n, tries; /* values of a sub-block; tries on either side of the plain scale */
    float step, variance_factor;
    float least; /* a sub-block below this counts as zero */
    bool even;   /* of 8 signs, an even number is negative, so 7 are stored */
    bool rough;  /* begin with the scale of a plain search */
    bool steps;  /* nearest points of the grid are mostly one step away */
    bool flat;   /* without importance, add the variance to the weights */
    enum refit refit;
} grid_kind;

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

/* A tile of sub-blocks, by columns and by rows. */
typedef struct {
    tile t; /* magnitudes and weights */
    _Alignas(64) float wx[TILE_ROWS][LANES];
    _Alignas(64) float root[TILE_ROWS][LANES]; /* of the weights */
    _Alignas(64) float by_sub_x[LANES * TILE_ROWS], by_sub_root[LANES * TILE_ROWS];
    _Alignas(64) float signs[TILE_ROWS / 8][LANES];
    _Alignas(64) int32_t code[MAX_ROWS][LANES]; /* of the current tries */
    _Alignas(64) int32_t best[MAX_GROUPS][LANES];
    _Alignas(64) float try_scale[TRIES][LANES];
    int lanes[LANES], active; /* the lanes that are searched */
} grid_tile;

/* ---- preparing a tile ---- */

/* Columns into rows of n floats. */
INLINE void transpose_back(float (*columns)[LANES], int n, float *out)
{
    for (int lane = 0; lane < LANES; lane += H_LANES)
        for (int i = 0; i < n; i += H_LANES)
            h_transpose(&columns[i][lane], LANES, out + lane * n + i, n);
}

INLINE vm v_negative(vf x)
{
    const vf zero = v_set(0.0f);
    return vm_not(vm_or(v_lt(zero, x), v_eq(zero, x)));
}

/* Takes the signs off 8 rows of x and gives them as bits. If they must be even, the value that matters
 * least changes its sign. */
INLINE vf take_signs(float (*x)[LANES], float (*w)[LANES], bool even)
{
    const vf zero = v_set(0.0f);
    vf bits = zero, count = zero, least = zero, least_bit = v_set(1.0f);
    for (int i = 0; i < 8; i++) {
        const vf value = v_load(x[i]);
        const vm negative = v_negative(value);
        bits = v_add(bits, v_select(negative, v_set((float)(1 << i)), zero));
        count = v_add(count, v_select(negative, v_set(0.5f), zero));
        if (even) {
            const vf matters = v_mul(v_mul(v_load(w[i]), value), value);
            const vm less = v_lt(matters, least);
            least = i == 0 ? matters : v_select(less, matters, least);
            least_bit = i == 0 ? least_bit : v_select(less, v_set((float)(1 << i)), least_bit);
        }
        v_store(x[i], v_select(negative, v_neg(value), value));
    }
    if (!even)
        return bits;
    const vm odd = vm_not(v_eq(count, vi_float(v_trunc(count))));
    for (int i = 0; i < 8; i++) {
        const vm flips = vm_and(odd, v_eq(least_bit, v_set((float)(1 << i))));
        const vf value = v_load(x[i]), bit = v_set((float)(1 << i));
        const vm negative = vm_and(v_eq(vi_float(vi_and(v_trunc(bits), vi_set(1 << i))), bit), flips);
        v_store(x[i], v_select(flips, v_neg(value), value));
        bits = v_add(bits, v_select(flips, v_select(negative, v_neg(bit), bit), zero));
    }
    return vi_float(vi_and(v_trunc(bits), vi_set(127)));
}

INLINE void weigh_plain(const grid_kind *kind, const float *variances, int64_t at, int64_t per_segment,
                        int live, tile *t)
{
    _Alignas(64) float lane_variance[LANES] = {0};
    for (int j = 0; j < live; j++)
        lane_variance[j] = 0.25f * variances[(at + j) / per_segment];
    for (int i = 0; i < kind->n; i++) {
        const vf square = v_mul(v_load(t->x[i]), v_load(t->x[i]));
        v_store(t->w[i], kind->flat ? v_add(v_load(lane_variance), square) : square);
    }
}

/* Leaves magnitudes, weights and signs; gives the greatest magnitude. */
INLINE vf prepare_tile(const grid_kind *kind, grid_tile *g)
{
    const int n = kind->n;
    for (int k = 0; k < n; k += 8)
        v_store(g->signs[k / 8], take_signs(g->t.x + k, g->t.w + k, kind->even));
    for (int i = 0; i < n; i++)
        v_store(g->root[i], v_sqrt(v_load(g->t.w[i])));
    transpose_back(g->root, n, g->by_sub_root);
    transpose_back(g->t.x, n, g->by_sub_x);
    vf max = v_load(g->t.x[0]);
    for (int i = 0; i < n; i++) {
        const vf x = v_load(g->t.x[i]);
        max = i == 0 ? max : v_max(max, x);
        v_store(g->wx[i], v_mul(v_load(g->t.w[i]), x));
    }
    return max;
}

/* ---- from a scale to points on the grid ---- */

/* Numbers, see grid_tables.h, of the points that the groups round to by inverse scale `id`: that of the
 * shorter list where all of the group's levels are surely the nearest. */
INLINE void number_groups(int n, int group, const grid_tile *g, vf id, bool wild, bool shorter,
                          int32_t (*number)[LANES])
{
    const int levels = group == 8 ? 3 : 8, points = group == 8 ? 6561 : 4096;
    const vf half = v_set(0.5f), half_id = v_mul(half, id), low = v_set(0.0f),
             high = v_set((float)(levels - 1));
    for (int k = 0; k < n / group; k++) {
        vf sum = low, stray = low;
        for (int i = group - 1; i >= 0; i--) {
            const vf y = v_sub(v_mul(half_id, v_load(g->t.x[group * k + i])), half);
            const vf inside = v_min(v_max(wild ? v_nearest(y) : y, low), high);
            const vf level = wild ? inside : v_round(inside);
            if (shorter)
                stray = v_max(stray, v_abs(v_sub(inside, level)));
            sum = v_add(v_mul(sum, v_set((float)levels)), level);
        }
        if (shorter)
            sum = v_add(sum, v_select(v_lt(stray, v_set(SURELY_NEAREST)), v_set((float)points), low));
        vi_store(number[k], v_trunc(sum));
    }
}

typedef struct {
    vf qx, q2;
} grid_sums;

INLINE grid_sums sum_groups(int n, int group, const grid_tile *g, int32_t (*codes)[LANES])
{
    const int bits = group == 8 ? 2 : 3;
    grid_sums sum = {v_set(0.0f), v_set(0.0f)};
    for (int k = 0; k < n / group; k++) {
        const vi code = vi_load(codes[k]);
        for (int i = 0; i < group; i++) {
            const vi level = vi_shr(code, bits * i);
            const vf q = group == 8 ? v_lookup4(odd_numbers, level) : v_lookup8(odd_numbers, level);
            sum.qx = v_add(sum.qx, v_mul(v_load(g->wx[group * k + i]), q));
            sum.q2 = v_add(sum.q2, v_mul(v_mul(v_load(g->t.w[group * k + i]), q), q));
        }
    }
    return sum;
}

/* ---- the search ---- */

INLINE void choose_lanes(vm wanted, grid_tile *g)
{
    _Alignas(64) float flag[LANES];
    v_store(flag, v_select(wanted, v_set(1.0f), v_set(0.0f)));
    g->active = 0;
    for (int j = 0; j < LANES; j++)
        if (flag[j] != 0.0f)
            g->lanes[g->active++] = j;
}

/* Points for the wanted lanes at some inverse scales and scales. */
INLINE void try_scales(const grid_kind *kind, int group, const grid_tables *tables, grid_tile *g, vm wanted,
                       const vf *id, const vf *scale, int tries, vf reach)
{
    const int n = kind->n;
    const bool steps = kind->steps && H_LANES > 1;
    const grid_groups groups = {n,           tries * (n / group), tables,       g->t.x, g->root,
                                g->by_sub_x, g->by_sub_root,      g->try_scale, g->code};
    for (int t = 0; t < tries; t++) {
        const vm tame = v_lt(v_mul(id[t], reach), v_set(ROUND_LIMIT));
        v_store(g->try_scale[t], scale[t]);
        if (vm_any(vm_and(wanted, vm_not(tame))))
            number_groups(n, group, g, id[t], true, false, g->code + t * (n / group));
        else
            number_groups(n, group, g, id[t], false, !steps, g->code + t * (n / group));
    }
    if (steps)
        settle_steps(&groups, vm_bits(wanted));
    else if (group == 4 && H_LANES > 1)
        settle_lists(&groups, vm_bits(wanted));
    else
        settle_each(group, &groups, g->lanes, g->active);
}

/* The scales of a tile; g->best has the codes of its points. */
INLINE vf search_grid(const grid_kind *kind, int group, const grid_tables *tables, vm used, vf max,
                      grid_tile *g)
{
    const int n = kind->n;
    const vf zero = v_set(0.0f), one = v_set(1.0f), top = v_set((float)(group == 8 ? 5 : 15));
    vf reach = zero, best = zero;
    vm live = vm_and(used, vm_not(v_lt(max, v_set(kind->least))));
    for (int i = 0; i < n; i++)
        reach = v_add(reach, v_abs(v_load(g->t.x[i])));
    for (int k = 0; k < n / group; k++)
        vi_store(g->best[k], vi_set(kind->refit == REFIT_ALL_IF_ANY ? OFF_GRID : 0));

    vf scale = v_div(max, top);
    if (kind->rough) {
        _Alignas(64) float level[TILE_ROWS][LANES];
        scale = search_positive(n, 4, &g->t, level);
        max = v_mul(scale, v_set(3.0f));
        live = vm_and(live, vm_not(vm_or(v_lt(max, zero), v_eq(max, zero))));
    }
    max = v_select(live, max, one);
    choose_lanes(live, g);
    for (int first = -kind->tries; first <= kind->tries; first += TRIES) {
        const int tries = kind->tries + 1 - first < TRIES ? kind->tries + 1 - first : TRIES;
        vf id[TRIES], scales[TRIES];
        for (int t = 0; t < tries; t++) {
            id[t] = v_div(v_add(top, v_set((float)(first + t) * kind->step)), max);
            scales[t] = v_div(one, id[t]);
        }
        try_scales(kind, group, tables, g, live, id, scales, tries, reach);
        for (int t = 0; t < tries; t++) {
            int32_t(*code)[LANES] = g->code + t * (n / group);
            const grid_sums sum = sum_groups(n, group, g, code);
            const vm gain = v_lt(v_mul(best, sum.q2), v_mul(sum.qx, sum.qx));
            const vm better = vm_and(vm_and(v_lt(zero, sum.q2), gain), live);
            scale = v_select(better, v_div(sum.qx, sum.q2), scale);
            best = v_select(better, v_mul(scale, sum.qx), best);
            for (int i = 0; i < n / group; i++)
                vi_store(g->best[i], vi_select(better, vi_load(code[i]), vi_load(g->best[i])));
        }
    }

    vi off_grid = vi_set(0);
    for (int k = 0; k < n / group; k++)
        off_grid = vi_or(off_grid, vi_load(g->best[k]));
    off_grid = vi_and(off_grid, vi_set(OFF_GRID));
    vm again = vm_and(live, v_lt(zero, scale));
    if (kind->refit != REFIT_ALL)
        again = vm_and(again, v_lt(zero, vi_float(off_grid)));
    if (vm_any(again)) {
        const vf safe = v_select(again, scale, one);
        choose_lanes(again, g);
        const vf id = v_div(one, safe);
        try_scales(kind, group, tables, g, again, &id, &scale, 1, reach);
        for (int k = 0; k < n / group; k++) {
            const vi code = vi_load(g->best[k]);
            const vf moved = vi_float(vi_and(code, vi_set(OFF_GRID)));
            const vm moves = kind->refit == REFIT_OFF_GRID ? vm_and(again, v_lt(zero, moved)) : again;
            vi_store(g->best[k], vi_select(moves, vi_load(g->code[k]), code));
        }
        const grid_sums sum = sum_groups(n, group, g, g->best);
        scale = v_select(vm_and(again, v_lt(zero, sum.q2)), v_div(sum.qx, sum.q2), scale);
    }
    for (int k = 0; k < n / group; k++)
        vi_store(g->best[k], vi_select(live, vi_load(g->best[k]), vi_set(0)));
    for (int k = 0; k < n / 8; k++) {
        const vf all = v_set(kind->even ? 127.0f : 255.0f), bits = v_load(g->signs[k]);
        const vf signs = v_select(v_lt(scale, zero), v_sub(all, bits), bits);
        v_store(g->signs[k], v_select(live, signs, zero));
    }
    return v_select(live, v_abs(scale), zero);
}

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
            const vf level = v_lookup4(levels_of_3, vi_shr(code, 2 * i));
            sum = v_add(v_mul(sum, v_set(3.0f)), level);
        }
        vi_store(number, group == 8 ? v_trunc(sum) : vi_and(code, vi_set(4095)));
        for (int j = 0; j < live; j++)
            out[j * (n / group) + k] = grid_point(tables, number[j]);
    }
}

INLINE void search_grid_batch(const forge_rows *rows, int64_t first, int live, const grid_kind *kind,
                              int group, const grid_tables *tables, grid_batch *out)
{
    const int n = kind->n, subs = SUPER / n;
    float variances[LANES] = {0};
    if (rows->weights || kind->flat)
        variance(rows, SUPER, first, live, kind->variance_factor, variances);
    for (int sub = 0; sub < live * subs; sub += LANES) {
        const int count = lanes_in_use(live * subs - sub);
        _Alignas(64) float used[LANES], greatest[LANES];
        grid_tile g;
        load_values(rows, first * subs + sub, count, n, g.t.x);
        if (rows->weights)
            load_weights(rows, first * subs + sub, count, n, variances, sub, subs, &g.t);
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

INLINE void quantize_grid(const forge_rows *rows, uint8_t *dst, int type, const grid_kind *kind, int group,
                          int block_bytes, put_grid_block *put)
{
    const int64_t blocks = element_count(rows) / SUPER;
    const grid_tables tables = view_tables(find_grid(type), rows->tables);
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        grid_batch found;
        search_grid_batch(rows, first, live, kind, group, &tables, &found);
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

/* XXS and XS of 2 bits are never reached without weights: the caller asks forge_needs_weights. */
static void quantize_iq2_xxs(const forge_rows *rows, uint8_t *dst)
{
    quantize_grid(rows, dst, TYPE_IQ2_XXS, &kind_iq2_xxs, 8, sizeof(block_iq2_xxs), put_iq2_xxs);
}

static void quantize_iq2_xs(const forge_rows *rows, uint8_t *dst)
{
    quantize_grid(rows, dst, TYPE_IQ2_XS, &kind_iq2_xs, 8, sizeof(block_iq2_xs), put_iq2_xs);
}

static void quantize_iq2_s(const forge_rows *rows, uint8_t *dst)
{
    quantize_grid(rows, dst, TYPE_IQ2_S, &kind_iq2_s, 8, sizeof(block_iq2_s), put_iq2_s);
}

static void quantize_iq3_xxs(const forge_rows *rows, uint8_t *dst)
{
    quantize_grid(rows, dst, TYPE_IQ3_XXS, &kind_iq3_xxs, 4, sizeof(block_iq3_xxs), put_iq3_xxs);
}

static void quantize_iq3_s(const forge_rows *rows, uint8_t *dst)
{
    quantize_grid(rows, dst, TYPE_IQ3_S, &kind_iq3_s, 4, sizeof(block_iq3_s), put_iq3_s);
}
