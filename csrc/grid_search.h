/* The scales of sub-blocks of 16 or 32 values on a grid, in groups of 8 or 4.
 *
 * Each try rounds the magnitudes to odd multiples of a scale, moves the groups that are off the grid to the
 * neighbour of least error, and fits the scale to that. Tries run over tiles of sub-blocks, one a lane; a
 * scale depends on no other try, so some tries go together, the better to be searched for neighbours. Source:
 * quantize_row_iq2_*_impl and quantize_row_iq3_*_impl in ggml-quants.c. */

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

/* A tile of sub-blocks, by columns and by rows. */
typedef struct {
    tile t; /* magnitudes and weights */
    _Alignas(64) float wx[TILE_ROWS][LANES];
    _Alignas(64) float root[TILE_ROWS][LANES]; /* of the weights */
    _Alignas(64) float by_sub_x[LANES * TILE_ROWS],
        by_sub_root[LANES * TILE_ROWS]; /* sub-block by sub-block */
    _Alignas(64) float signs[TILE_ROWS / 8][LANES];
    _Alignas(64) int32_t code[MAX_ROWS][LANES]; /* of the current tries */
    _Alignas(64) int32_t best[MAX_GROUPS][LANES];
    _Alignas(64) float try_scale[TRIES][LANES];
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

/* Numbers, see grid_tables.h, of the points that the groups round to by inverse scale `id`; if asked for,
 * that of the shorter list where all of the group's levels are surely the nearest. */
INLINE void number_groups(int n, int group, const grid_tile *g, vf id, bool wild, bool shorter,
                          int32_t (*number)[LANES])
{
    const int levels = group == 8 ? 3 : 8, points = group == 8 ? 6561 : 4096;
    const vf half = v_set(0.5f), half_id = v_mul(half, id), low = v_set(0.0f), one = v_set(1.0f),
             high = v_set((float)(levels - 1));
    for (int k = 0; k < n / group; k++) {
        vf sum = low, stray = low;
        for (int i = group - 1; i >= 0; i--) {
            const vf x = v_load(g->t.x[group * k + i]);
            const vf y = wild ? v_mul(half, v_sub(v_mul(id, x), one)) : v_sub(v_mul(half_id, x), half);
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

/* Points for the wanted lanes at some inverse scales and scales. */
INLINE void try_scales(const grid_kind *kind, int group, const grid_tables *tables, grid_tile *g, vm wanted,
                       const vf *id, const vf *scale, int tries, vf reach)
{
    const int n = kind->n;
    const bool steps = kind->steps && H_LANES > 1;
    const grid_groups groups = {n,           tries * (n / group), tables,       g->t.x, g->root,
                                g->by_sub_x, g->by_sub_root,      g->try_scale, g->code};
    for (int t = 0; t < tries; t++) {
        /* Halving an inverse scale that is nearly denormal would lose a bit, and one times a value overflow.
         */
        const vm tame = vm_and(v_lt(v_mul(id[t], reach), v_set(ROUND_LIMIT)), v_lt(v_set(0x1p-124f), id[t]));
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
        settle_each(group, &groups, vm_bits(wanted));
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
