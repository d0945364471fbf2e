/* The scale searches, written once over lanes: each lane does the scalar algorithm's operations, in its
 * order.
 *
 * A search tries a dozen or more scales on a sub-block and keeps the one of least weighted square error. It
 * answers with the scale and with what the winning levels were rounded from, never with the levels: packing
 * recomputes the few that are needed. Source: make_qx_quants, make_qkx2_quants, make_qkx3_quants,
 * make_q3_quants and make_qp_quants in ggml-quants.c. */

/* Below this a sub-block counts as zero (GROUP_MAX_EPS). */
#define TINY 1e-15f
/* h_round is the reference's rounding below this; see nearest_int. */
#define ROUND_LIMIT 4194303.0f

/* The reference's rounding: to nearest, ties to even, for |x| < 2^22; for other x the same bits of garbage.
 */
INLINE int32_t nearest_int(float x)
{
    return (int32_t)(float_bits(x + 12582912.0f) & 0x007fffff) - 0x00400000;
}

INLINE hi h_nearest(hf x)
{
    const hi bits = h_bits(h_add(x, h_set(12582912.0f)));
    return hi_sub(hi_and(bits, hi_set(0x007fffff)), hi_set(0x00400000));
}

INLINE vf v_nearest(vf x)
{
    const vi bits = v_bits(v_add(x, v_set(12582912.0f)));
    return vi_float(vi_sub(vi_and(bits, vi_set(0x007fffff)), vi_set(0x00400000)));
}

/* Levels x / scale rounded into [low, high]; `wild` where a value may lie beyond ROUND_LIMIT. */
INLINE vf v_level(vf x, vf low, vf high, bool wild)
{
    return v_min(v_max(wild ? v_nearest(x) : v_round(x), low), high);
}

/* ---- scale and minimum: x = scale * level - minimum, levels in [0, nmax] ---- */

/* One kind of search: candidate scales are (nmax + first + step * k) / range for k = 0 .. steps. */
typedef struct {
    int n, nmax;
    float first, step;
    int steps;
    bool absolute; /* weigh |error| instead of its square */
} affine_search;

/* The winning levels are clamp(round(iscale * (x - base))). */
typedef struct {
    vf scale, minimum, sum_w, iscale, base;
} affine_found;

INLINE vf affine_error(const affine_search *s, const tile *t, float (*level)[LANES], vf scale, vf min)
{
    vf sum = v_set(0.0f);
    ROLLED
    for (int i = 0; i < s->n; i++) {
        const vf scaled = v_mul(scale, v_load(level[i]));
        const vf diff = v_sub(v_add(scaled, min), v_load(t->x[i]));
        sum = v_add(sum, v_mul(v_load(t->w[i]), s->absolute ? v_abs(diff) : v_mul(diff, diff)));
    }
    return sum;
}

typedef struct {
    vf l, l2, xl;
} affine_sums;

INLINE affine_sums affine_levels(const affine_search *s, const tile *t, float (*level)[LANES], vf iscale,
                                 vf min, bool wild)
{
    const vf low = v_set(0.0f), high = v_set((float)s->nmax);
    affine_sums sum = {low, low, low};
    ROLLED
    for (int i = 0; i < s->n; i++) {
        const vf x = v_load(t->x[i]);
        const vf l = v_level(v_mul(iscale, v_sub(x, min)), low, high, wild);
        const vf wl = v_mul(v_load(t->w[i]), l);
        v_store(level[i], l);
        sum.l = v_add(sum.l, wl);
        sum.l2 = v_add(sum.l2, v_mul(wl, l));
        sum.xl = v_add(sum.xl, v_mul(wl, x));
    }
    return sum;
}

INLINE affine_found search_affine(const affine_search *s, const tile *t)
{
    _Alignas(64) float level[TILE_ROWS][LANES];
    const vf zero = v_set(0.0f), one = v_set(1.0f), limit = v_set(ROUND_LIMIT);

    vf min = v_load(t->x[0]), max = min, sum_w = v_load(t->w[0]), sum_x = v_mul(sum_w, min);
    for (int i = 1; i < s->n; i++) {
        const vf x = v_load(t->x[i]), w = v_load(t->w[i]);
        min = v_min(x, min);
        max = v_max(x, max);
        sum_w = v_add(sum_w, w);
        sum_x = v_add(sum_x, v_mul(w, x));
    }
    const vf least = min;
    min = v_min(zero, min);

    /* A flat sub-block has no levels: it keeps scale 0, and a harmless range in the meantime. */
    const vm flat = v_eq(max, min), live = vm_not(flat);
    vf range = v_select(flat, one, v_sub(max, min));
    vf iscale = v_div(v_set((float)s->nmax), range);
    affine_found best = {v_select(flat, zero, v_div(one, iscale)), min, sum_w, v_select(flat, zero, iscale),
                         min};

    bool wild = vm_any(vm_and(live, vm_not(v_lt(v_mul(iscale, range), limit))));
    if (wild)
        affine_levels(s, t, level, iscale, min, true);
    else
        affine_levels(s, t, level, iscale, min, false);
    vf best_error = affine_error(s, t, level, best.scale, min);

    for (int k = 0; k <= s->steps; k++) {
        range = v_select(flat, one, v_sub(max, min));
        iscale = v_div(v_set(s->first + s->step * (float)k + (float)s->nmax), range);
        const vf widest = v_max(v_abs(range), v_abs(v_sub(least, min)));
        wild = vm_any(vm_and(live, vm_not(v_lt(v_mul(v_abs(iscale), widest), limit))));
        const affine_sums sum = wild ? affine_levels(s, t, level, iscale, min, true)
                                     : affine_levels(s, t, level, iscale, min, false);

        const vf D = v_sub(v_mul(sum_w, sum.l2), v_mul(sum.l, sum.l));
        const vf fit_scale = v_div(v_sub(v_mul(sum_w, sum.xl), v_mul(sum_x, sum.l)), D);
        const vf fit_min = v_div(v_sub(v_mul(sum.l2, sum_x), v_mul(sum.l, sum.xl)), D);
        const vm above = v_lt(zero, fit_min);
        const vf this_min = v_select(above, zero, fit_min);
        const vf this_scale = v_select(above, v_div(sum.xl, sum.l2), fit_scale);

        const vf error = affine_error(s, t, level, this_scale, this_min);
        const vm better = vm_and(vm_and(v_lt(zero, D), live), v_lt(error, best_error));
        best_error = v_select(better, error, best_error);
        best.scale = v_select(better, this_scale, best.scale);
        best.iscale = v_select(better, iscale, best.iscale);
        best.base = v_select(better, min, best.base);
        min = v_select(better, this_min, min);
    }
    best.minimum = v_neg(min);
    return best;
}

/* ---- scale alone: x = scale * level, levels in [-nmax, nmax) ---- */

/* The winning levels are bias + clamp(round(iscale * x)): bias is nmax, or 0 in a sub-block of zeros. */
typedef struct {
    vf scale, iscale, bias;
} symmetric_found;

typedef struct {
    vf lx, l2;
} symmetric_sums;

INLINE symmetric_sums symmetric_levels(int n, int nmax, const tile *t, float (*wx)[LANES], vf iscale,
                                       bool wild)
{
    const vf low = v_set((float)-nmax), high = v_set((float)(nmax - 1));
    symmetric_sums sum = {v_set(0.0f), v_set(0.0f)};
    ROLLED
    for (int i = 0; i < n; i++) {
        const vf l = v_level(v_mul(iscale, v_load(t->x[i])), low, high, wild);
        sum.lx = v_add(sum.lx, v_mul(v_load(wx[i]), l));
        sum.l2 = v_add(sum.l2, v_mul(v_mul(v_load(t->w[i]), l), l));
    }
    return sum;
}

/* The value of greatest magnitude, the first one of equals. */
INLINE vf v_extreme(int n, const tile *t, vf *magnitude)
{
    vf max = v_set(0.0f), amax = max;
    for (int i = 0; i < n; i++) {
        const vf x = v_load(t->x[i]), ax = v_abs(x);
        const vm greater = v_lt(amax, ax);
        amax = v_select(greater, ax, amax);
        max = v_select(greater, x, max);
    }
    *magnitude = amax;
    return max;
}

INLINE symmetric_found search_symmetric(int n, int nmax, const tile *t)
{
    _Alignas(64) float wx[TILE_ROWS][LANES];
    const vf zero = v_set(0.0f), one = v_set(1.0f);
    vf amax;
    vf max = v_extreme(n, t, &amax);
    const vm empty = v_lt(amax, v_set(TINY)), live = vm_not(empty);
    max = v_select(empty, one, max);
    for (int i = 0; i < n; i++)
        v_store(wx[i], v_mul(v_load(t->w[i]), v_load(t->x[i])));

    vf iscale = v_div(v_set((float)-nmax), max);
    symmetric_sums sum = symmetric_levels(n, nmax, t, wx, iscale, false);
    /* |iscale * x| is at most nmax + 1 but for NaN and infinity, which show in the sum. */
    const bool wild = vm_any(vm_and(live, vm_not(v_lt(v_abs(sum.lx), v_set(INFINITY)))));
    if (wild)
        sum = symmetric_levels(n, nmax, t, wx, iscale, true);

    symmetric_found found;
    found.iscale = v_select(empty, zero, iscale);
    found.bias = v_select(empty, zero, v_set((float)nmax));
    found.scale = v_select(v_eq(sum.l2, zero), zero, v_div(sum.lx, sum.l2));
    vf best = v_mul(found.scale, sum.lx);
    for (int k = -9; k <= 9; k++) {
        if (k == 0)
            continue;
        iscale = v_div(v_set(-((float)nmax + 0.1f * (float)k)), max);
        sum = wild ? symmetric_levels(n, nmax, t, wx, iscale, true)
                   : symmetric_levels(n, nmax, t, wx, iscale, false);
        const vm gain = v_lt(v_mul(best, sum.l2), v_mul(sum.lx, sum.lx));
        const vm better = vm_and(vm_and(v_lt(zero, sum.l2), live), gain);
        found.scale = v_select(better, v_div(sum.lx, sum.l2), found.scale);
        found.iscale = v_select(better, iscale, found.iscale);
        best = v_select(better, v_mul(found.scale, sum.lx), best);
    }
    found.scale = v_select(empty, zero, found.scale);
    return found;
}

/* ---- scale alone, by coordinate descent: Q3_K without importance ---- */

/* Levels in [-nmax, nmax) are left in `level`, plus nmax; 0 in a sub-block of zeros. The weight is x^2. */
INLINE vf search_descent(int n, int nmax, tile *t, float (*level)[LANES])
{
    const vf low = v_set((float)-nmax), high = v_set((float)(nmax - 1)), zero = v_set(0.0f);
    _Alignas(64) float wx[TILE_ROWS][LANES];
    vf amax;
    vf max = v_extreme(n, t, &amax);
    const vm empty = v_lt(amax, v_set(TINY)), live = vm_not(empty);
    max = v_select(empty, v_set(1.0f), max);
    const vf iscale = v_div(low, max);

    vf lx = zero, l2 = zero;
    for (int i = 0; i < n; i++) {
        const vf x = v_load(t->x[i]), w = v_mul(x, x), w_x = v_mul(w, x);
        const vf l = v_level(v_mul(iscale, x), low, high, true);
        v_store(level[i], l);
        v_store(t->w[i], w);
        v_store(wx[i], w_x);
        lx = v_add(lx, v_mul(w_x, l));
        l2 = v_add(l2, v_mul(v_mul(w, l), l));
    }
    for (int round = 0; round < 5; round++) {
        vm changed = v_lt(zero, zero);
        ROLLED
        for (int i = 0; i < n; i++) {
            const vf x = v_load(t->x[i]), w = v_load(t->w[i]), l = v_load(level[i]);
            const vf lx_rest = v_sub(lx, v_mul(v_load(wx[i]), l)), l2_rest = v_sub(l2, v_mul(v_mul(w, l), l));
            const vf new_l = v_level(v_div(v_mul(x, l2_rest), lx_rest), low, high, true);
            const vm moves = vm_and(vm_and(v_lt(zero, lx_rest), vm_not(v_eq(new_l, l))), live);
            if (!vm_any(moves))
                continue;
            const vf new_lx = v_add(lx_rest, v_mul(v_load(wx[i]), new_l));
            const vf new_l2 = v_add(l2_rest, v_mul(v_mul(w, new_l), new_l));
            const vm gain = v_lt(v_mul(v_mul(lx, lx), new_l2), v_mul(v_mul(new_lx, new_lx), l2));
            const vm better = vm_and(vm_and(moves, v_lt(zero, new_l2)), gain);
            v_store(level[i], v_select(better, new_l, l));
            lx = v_select(better, new_lx, lx);
            l2 = v_select(better, new_l2, l2);
            changed = vm_or(changed, better);
        }
        if (!vm_any(changed))
            break;
    }
    for (int i = 0; i < n; i++)
        v_store(level[i], v_select(empty, zero, v_add(v_load(level[i]), v_set((float)nmax))));
    return v_select(vm_and(live, v_lt(zero, l2)), v_div(lx, l2), zero);
}

/* ---- the scales of a super-block, quantized in turn: lane = super-block ---- */

INLINE vf v_wrap_u8(vf l) { return vi_float(vi_and(v_trunc(l), vi_set(255))); }

/* Levels of n non-negative values in [0, nmax] are left in `level`, as bytes (a negative one wraps, as in C).
 */
INLINE vf search_positive(int n, int nmax, const tile *t, float (*level)[LANES])
{
    const vf zero = v_set(0.0f), one = v_set(1.0f), high = v_set((float)nmax);
    vf max = zero;
    for (int i = 0; i < n; i++)
        max = v_max(max, v_load(t->x[i]));
    const vm empty = v_lt(max, v_set(TINY)), live = vm_not(empty);
    max = v_select(empty, one, max);

    vf iscale = v_div(high, max), scale = v_div(one, iscale), best = zero;
    for (int i = 0; i < n; i++) {
        const vf x = v_load(t->x[i]), l = v_wrap_u8(v_nearest(v_mul(iscale, x)));
        const vf diff = v_sub(x, v_mul(scale, l));
        best = v_add(best, v_mul(v_mul(v_load(t->w[i]), diff), diff));
    }
    for (int k = -4; k <= 4; k++) {
        if (k == 0)
            continue;
        const vf try_iscale = v_div(v_set(0.1f * (float)k + (float)nmax), max);
        vf error = zero;
        scale = v_div(one, try_iscale);
        for (int i = 0; i < n; i++) {
            const vf x = v_load(t->x[i]), l = v_min(v_nearest(v_mul(try_iscale, x)), high);
            const vf diff = v_sub(x, v_mul(scale, l));
            error = v_add(error, v_mul(v_mul(v_load(t->w[i]), diff), diff));
        }
        const vm better = v_lt(error, best);
        best = v_select(better, error, best);
        iscale = v_select(better, try_iscale, iscale);
    }

    vf lx = zero, l2 = zero;
    for (int i = 0; i < n; i++) {
        const vf x = v_load(t->x[i]), w = v_load(t->w[i]), l = v_min(v_nearest(v_mul(iscale, x)), high);
        v_store(level[i], v_wrap_u8(l));
        lx = v_add(lx, v_mul(v_mul(w, x), l));
        l2 = v_add(l2, v_mul(v_mul(w, l), l));
    }
    for (int round = 0; round < 5; round++) {
        vm changed = v_lt(zero, zero);
        ROLLED
        for (int i = 0; i < n; i++) {
            const vf x = v_load(t->x[i]), w = v_load(t->w[i]), wx = v_mul(w, x), l = v_load(level[i]);
            const vf lx_rest = v_sub(lx, v_mul(wx, l)), l2_rest = v_sub(l2, v_mul(v_mul(w, l), l));
            const vf new_l = v_min(v_nearest(v_div(v_mul(x, l2_rest), lx_rest)), high);
            const vm room = vm_and(v_lt(zero, lx_rest), v_lt(zero, l2_rest));
            const vm moves = vm_and(vm_and(room, vm_not(v_eq(new_l, l))), live);
            if (!vm_any(moves))
                continue;
            const vf new_lx = v_add(lx_rest, v_mul(wx, new_l));
            const vf new_l2 = v_add(l2_rest, v_mul(v_mul(w, new_l), new_l));
            const vm gain = v_lt(v_mul(v_mul(lx, lx), new_l2), v_mul(v_mul(new_lx, new_lx), l2));
            const vm better = vm_and(moves, gain);
            v_store(level[i], v_select(better, v_wrap_u8(new_l), l));
            lx = v_select(better, new_lx, lx);
            l2 = v_select(better, new_l2, l2);
            changed = vm_or(changed, better);
        }
        if (!vm_any(changed))
            break;
    }
    for (int i = 0; i < n; i++)
        v_store(level[i], v_select(empty, zero, v_load(level[i])));
    return v_select(vm_and(live, v_lt(zero, l2)), v_div(lx, l2), zero);
}
