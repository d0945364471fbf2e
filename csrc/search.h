/* The scale searches, written once over lanes: each lane does the scalar algorithm's operations, in its
 * order.
 *
 * A search tries a dozen or more scales on a sub-block and keeps the one of least weighted square error. It
 * answers with the scale and with what the winning levels were rounded from, never with the levels: packing
 * recomputes the few that are needed. Source: make_qx_quants, make_qkx2_quants, make_qkx3_quants,
 * make_q3_quants and make_qp_quants in ggml-quants.c. */

enum {
    SUBS = 16,
    FOUND = LANES * SUBS
}; /* sub-blocks of a super-block at most, and of a batch of LANES of them */

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

INLINE float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

INLINE hi h_nearest(hf x)
{
    const hi bits = h_bits(h_add(x, h_set(12582912.0f)));
    return hi_sub(hi_and(bits, hi_set(0x007fffff)), hi_set(0x00400000));
}

INLINE vi vi_nearest(vf x)
{
    const vi bits = v_bits(v_add(x, v_set(12582912.0f)));
    return vi_sub(vi_and(bits, vi_set(0x007fffff)), vi_set(0x00400000));
}

INLINE vf v_nearest(vf x) { return vi_float(vi_nearest(x)); }

INLINE vf v_nearest_within(vf x, int low, int high)
{
    return vi_float(vi_min(vi_max(vi_nearest(x), vi_set(low)), vi_set(high)));
}

/* How values become levels: a bound that no value passes need not be checked. */
typedef struct {
    bool low, high; /* bounds to check; 0 always is */
    bool wild;      /* a value may lie beyond ROUND_LIMIT, or be no number */
} rounding;

static const rounding wild_rounding = {.wild = true};

/* Tame values are clamped before they are rounded, and as integers: floats of one sign are ordered as their
 * bits are, and more execution ports compare integers. */

/* Levels in [0, high]. */
INLINE vf v_level_from_zero(vf x, int high, rounding r)
{
    if (r.wild)
        return v_nearest_within(x, 0, high);
    vi bits = vi_max(v_bits(x), vi_set(0));
    if (r.high)
        bits = vi_min(bits, v_bits(v_set((float)high)));
    return v_round(vi_as_float(bits));
}

/* Levels in [low, high], low negative and high not. */
INLINE vf v_level_centred(vf x, int low, int high, rounding r)
{
    if (r.wild)
        return v_nearest_within(x, low, high);
    vi bits = v_bits(x);
    if (r.high)
        bits = vi_min(bits, v_bits(v_set((float)high)));
    if (r.low)
        bits = vi_min_unsigned(bits, v_bits(v_set((float)low)));
    return v_round(vi_as_float(bits));
}

/* ---- scale and minimum: x = scale * level - minimum, levels in [0, nmax] ---- */

/* One kind of search: candidate scales are (nmax + first + step * k) / range for k = 0 .. steps. */
typedef struct {
    int n, nmax;
    float first, step;
    int steps;
    bool absolute; /* weigh |error| instead of its square */
} affine_search;

/* Of each sub-block; its winning levels are clamp(round(iscale * (x - base))). */
typedef struct {
    _Alignas(64) float scale[FOUND], minimum[FOUND], sum_w[FOUND], iscale[FOUND], base[FOUND];
} affine_found;

/* A tile in the middle of its search. */
typedef struct {
    _Alignas(64) float level[TILE_ROWS][LANES];
    vf greatest, spread, sum_w, sum_x; /* of the values */
    vm flat;
    vf min, best_scale, best_iscale, best_base, best_error;
    vf iscale, scale; /* of the candidate */
    vf new_min;
    vm fits;
} affine_state;

INLINE vf affine_error(const affine_search *s, const tile *t, const affine_state *a, vf scale, vf min)
{
    vf sum = v_set(0.0f);
    ROLLED
    for (int i = 0; i < s->n; i++) {
        const vf scaled = v_mul(scale, v_load(a->level[i]));
        const vf diff = v_sub(v_add(scaled, min), v_load(t->x[i]));
        sum = v_add(sum, v_mul(v_load(t->w[i]), s->absolute ? v_abs(diff) : v_mul(diff, diff)));
    }
    return sum;
}

typedef struct {
    vf l, l2, xl;
} affine_sums;

INLINE affine_sums affine_levels(const affine_search *s, const tile *t, affine_state *a, rounding r)
{
    const vf zero = v_set(0.0f), iscale = a->iscale, min = a->min;
    affine_sums sum = {zero, zero, zero};
    ROLLED
    for (int i = 0; i < s->n; i++) {
        const vf x = v_load(t->x[i]);
        const vf l = v_level_from_zero(v_mul(iscale, v_sub(x, min)), s->nmax, r);
        const vf wl = v_mul(v_load(t->w[i]), l);
        v_store(a->level[i], l);
        sum.l = v_add(sum.l, wl);
        sum.l2 = v_add(sum.l2, v_mul(wl, l));
        sum.xl = v_add(sum.xl, v_mul(wl, x));
    }
    return sum;
}

/* Levels of the candidate scale (nmax + excess) / range, which becomes a->iscale. */
INLINE affine_sums affine_candidate(const affine_search *s, const tile *t, affine_state *a, float excess)
{
    a->iscale = v_div(v_set(excess + (float)s->nmax), v_sub(a->greatest, a->min));
    /* With min below the greatest value, iscale is positive and |x - min| at most the range, or else the
     * spread of the values; and iscale * (x - min) at most nmax + excess, but for an error in the last place.
     * Compared as unsigned integers, negative numbers and NaN are over the limit too. */
    const vm tame = vi_lt_unsigned(v_bits(v_mul(a->iscale, a->spread)), v_bits(v_set(ROUND_LIMIT)));
    if (!vm_all(vm_or(tame, a->flat)))
        return affine_levels(s, t, a, wild_rounding);
    return affine_levels(s, t, a, (rounding){.high = excess >= 0.49f});
}

INLINE void affine_begin(const affine_search *s, const tile *t, affine_state *a)
{
    const vf zero = v_set(0.0f);
    vf min = v_load(t->x[0]), max = min, sum_w = v_load(t->w[0]), sum_x = v_mul(sum_w, min);
    for (int i = 1; i < s->n; i++) {
        const vf x = v_load(t->x[i]), w = v_load(t->w[i]);
        min = v_min(x, min);
        max = v_max(x, max);
        sum_w = v_add(sum_w, w);
        sum_x = v_add(sum_x, v_mul(w, x));
    }
    a->spread = v_sub(max, min);
    a->sum_w = sum_w;
    a->sum_x = sum_x;
    a->min = a->best_base = v_min(zero, min);
    /* A flat sub-block has no levels: it keeps scale 0 and an error that nothing beats. */
    a->flat = v_eq(max, a->min);
    a->greatest = v_select(a->flat, v_add(max, v_set(1.0f)), max); /* no division by 0 */
    affine_candidate(s, t, a, 0.0f);
    a->best_iscale = v_select(a->flat, zero, a->iscale);
    a->best_scale = v_select(a->flat, zero, v_div(v_set(1.0f), a->iscale));
    a->best_error = v_select(a->flat, v_set(-1.0f), affine_error(s, t, a, a->best_scale, a->min));
}

/* The best scale and minimum for the levels of a candidate. */
INLINE void affine_fit(const affine_search *s, const tile *t, affine_state *a, float excess)
{
    const vf zero = v_set(0.0f);
    const affine_sums sum = affine_candidate(s, t, a, excess);
    const vf D = v_sub(v_mul(a->sum_w, sum.l2), v_mul(sum.l, sum.l));
    const vf scale = v_div(v_sub(v_mul(a->sum_w, sum.xl), v_mul(a->sum_x, sum.l)), D);
    const vf min = v_div(v_sub(v_mul(sum.l2, a->sum_x), v_mul(sum.l, sum.xl)), D);
    const vm above = v_lt(zero, min);
    a->fits = v_lt(zero, D);
    a->new_min = v_min(zero, min);
    a->scale = vm_any(above) ? v_select(above, v_div(sum.xl, sum.l2), scale) : scale;
}

INLINE void affine_judge(const affine_search *s, const tile *t, affine_state *a)
{
    const vf error = affine_error(s, t, a, a->scale, a->new_min);
    const vm better = vm_and(a->fits, v_lt(error, a->best_error));
    a->best_error = v_select(better, error, a->best_error);
    a->best_scale = v_select(better, a->scale, a->best_scale);
    a->best_iscale = v_select(better, a->iscale, a->best_iscale);
    a->best_base = v_select(better, a->min, a->best_base);
    a->min = v_select(better, a->new_min, a->min);
}

/* Searches up to TILES tiles; tile k's results go to out[at + k * LANES]. The tiles go in step, so that one
 * computes while the other waits for its divisions. */
INLINE void search_affine(const affine_search *s, const tile *t, int tiles, affine_found *out, int at)
{
    affine_state state[TILES];
    for (int k = 0; k < tiles; k++)
        affine_begin(s, &t[k], &state[k]);
    for (int step = 0; step <= s->steps; step++) {
        const float excess = s->first + s->step * (float)step;
        for (int k = 0; k < tiles; k++)
            affine_fit(s, &t[k], &state[k], excess);
        for (int k = 0; k < tiles; k++)
            affine_judge(s, &t[k], &state[k]);
    }
    for (int k = 0; k < tiles; k++, at += LANES) {
        v_store(out->scale + at, state[k].best_scale);
        v_store(out->minimum + at, v_neg(state[k].min));
        v_store(out->sum_w + at, state[k].sum_w);
        v_store(out->iscale + at, state[k].best_iscale);
        v_store(out->base + at, state[k].best_base);
    }
}

/* ---- scale alone: x = scale * level, levels in [-nmax, nmax) ---- */

/* Of each sub-block; its winning levels are bias + clamp(round(iscale * x)): bias is nmax, or 0 for zeros. */
typedef struct {
    _Alignas(64) float scale[FOUND], sum_w[FOUND], iscale[FOUND], bias[FOUND];
} symmetric_found;

typedef struct {
    vf lx, l2;
} symmetric_sums;

INLINE symmetric_sums symmetric_levels(int n, int nmax, const tile *t, float (*wx)[LANES], vf iscale,
                                       rounding r)
{
    symmetric_sums sum = {v_set(0.0f), v_set(0.0f)};
    ROLLED
    for (int i = 0; i < n; i++) {
        const vf l = v_level_centred(v_mul(iscale, v_load(t->x[i])), -nmax, nmax - 1, r);
        sum.lx = v_add(sum.lx, v_mul(v_load(wx[i]), l));
        sum.l2 = v_add(sum.l2, v_mul(v_mul(v_load(t->w[i]), l), l));
    }
    return sum;
}

/* The value of greatest magnitude, the first one of equals. */
INLINE vf v_extreme(int n, float (*rows)[LANES], vf *magnitude)
{
    vf amax = v_set(0.0f), max = amax;
    for (int i = 0; i < n; i++)
        amax = v_max(v_abs(v_load(rows[i])), amax);
    for (int i = n - 1; i >= 0; i--) {
        const vf x = v_load(rows[i]);
        max = v_select(v_eq(v_abs(x), amax), x, max);
    }
    *magnitude = amax;
    return max;
}

/* The results go to out[at]. */
INLINE void search_symmetric(int n, int nmax, tile *t, symmetric_found *out, int at)
{
    _Alignas(64) float wx[TILE_ROWS][LANES];
    const vf zero = v_set(0.0f), one = v_set(1.0f);
    const rounding both = {.low = true, .high = true}, high = {.high = true}, none = {.wild = false};
    vf amax;
    vf max = v_extreme(n, t->x, &amax);
    const vm empty = v_lt(amax, v_set(TINY)), live = vm_not(empty);
    max = v_select(empty, one, max);
    vf sum_w = zero;
    for (int i = 0; i < n; i++) {
        const vf w = v_load(t->w[i]);
        v_store(wx[i], v_mul(w, v_load(t->x[i])));
        sum_w = v_add(sum_w, w);
    }

    vf iscale = v_div(v_set((float)-nmax), max);
    symmetric_sums sum = symmetric_levels(n, nmax, t, wx, iscale, high);
    /* |iscale * x| is at most nmax but for NaN and infinity, which show in the sum. */
    const bool wild = vm_any(vm_and(live, vm_not(v_lt(v_abs(sum.lx), v_set(INFINITY)))));
    if (wild)
        sum = symmetric_levels(n, nmax, t, wx, iscale, wild_rounding);

    vf best_iscale = iscale, scale = v_select(v_eq(sum.l2, zero), zero, v_div(sum.lx, sum.l2));
    vf best = v_mul(scale, sum.lx);
    for (int k = -9; k <= 9; k++) {
        if (k == 0)
            continue;
        iscale = v_div(v_set(-((float)nmax + 0.1f * (float)k)), max);
        /* |iscale * x| is at most nmax + k / 10, but for an error in the last place. */
        if (wild)
            sum = symmetric_levels(n, nmax, t, wx, iscale, wild_rounding);
        else if (k <= -6)
            sum = symmetric_levels(n, nmax, t, wx, iscale, none);
        else if (k <= 4)
            sum = symmetric_levels(n, nmax, t, wx, iscale, high);
        else
            sum = symmetric_levels(n, nmax, t, wx, iscale, both);
        const vm gain = v_lt(v_mul(best, sum.l2), v_mul(sum.lx, sum.lx));
        const vm better = vm_and(v_lt(zero, sum.l2), gain);
        scale = v_select(better, v_div(sum.lx, sum.l2), scale);
        best_iscale = v_select(better, iscale, best_iscale);
        best = v_select(better, v_mul(scale, sum.lx), best);
    }
    v_store(out->scale + at, v_select(empty, zero, scale));
    v_store(out->sum_w + at, sum_w);
    v_store(out->iscale + at, v_select(empty, zero, best_iscale));
    v_store(out->bias + at, v_select(empty, zero, v_set((float)nmax)));
}

/* ---- scale alone, by coordinate descent: Q3_K without importance ---- */

/* Sub-blocks, one a lane, in their descent. */
typedef struct {
    _Alignas(64) float x[SUBS][LANES], level[SUBS][LANES]; /* levels from -nmax to nmax - 1 */
    vf lx, l2;                                             /* weighted sums of level * x, level^2 */
    vm empty;
    bool changed;
} descent_state;

/* The levels to start from: rounded by the greatest value. */
INLINE void descent_begin(int nmax, descent_state *s)
{
    vf amax, lx = v_set(0.0f), l2 = lx;
    const vf max = v_extreme(SUBS, s->x, &amax);
    s->empty = v_lt(amax, v_set(TINY));
    const vf iscale = v_div(v_set((float)-nmax), v_select(s->empty, v_set(1.0f), max));
    for (int i = 0; i < SUBS; i++) {
        const vf x = v_load(s->x[i]), w = v_mul(x, x);
        const vf l = v_nearest_within(v_mul(iscale, x), -nmax, nmax - 1);
        v_store(s->level[i], l);
        lx = v_add(lx, v_mul(v_mul(w, x), l));
        l2 = v_add(l2, v_mul(v_mul(w, l), l));
    }
    s->lx = lx;
    s->l2 = l2;
}

/* Lanes that will keep all their levels, seen without a division: the best level of each element is surely
 * the one it has. Rounding errors are far less than the margin of 0.001, unless numbers are denormal. */
INLINE vm descent_settled(int nmax, const descent_state *s)
{
    const vf low = v_set((float)-nmax), high = v_set((float)(nmax - 1));
    vm settled = v_eq(low, low);
    for (int i = 0; i < SUBS; i++) {
        const vf x = v_load(s->x[i]), w = v_mul(x, x), l = v_load(s->level[i]);
        const vf lx_rest = v_sub(s->lx, v_mul(v_mul(w, x), l));
        const vf l2_rest = v_sub(s->l2, v_mul(v_mul(w, l), l));
        const vf best = v_min(v_max(v_mul(x, l2_rest), v_mul(low, lx_rest)), v_mul(high, lx_rest));
        const vf off = v_abs(v_sub(best, v_mul(l, lx_rest)));
        const vm sure = vm_and(v_lt(off, v_mul(v_set(0.499f), lx_rest)), v_lt(v_set(0x1p-100f), lx_rest));
        settled = vm_and(settled, vm_or(sure, vm_not(v_lt(v_set(0.0f), lx_rest))));
    }
    return vm_or(settled, s->empty);
}

/* Gives element i the level that is best while the others stay, where that is a gain. */
INLINE void descent_step(int i, int nmax, descent_state *s)
{
    const vf zero = v_set(0.0f);
    const vf x = v_load(s->x[i]), w = v_mul(x, x), wx = v_mul(w, x), l = v_load(s->level[i]);
    const vf lx_rest = v_sub(s->lx, v_mul(wx, l)), l2_rest = v_sub(s->l2, v_mul(v_mul(w, l), l));
    if (LANES == 1 && !vm_any(v_lt(zero, lx_rest)))
        return;
    const vf new_l = v_nearest_within(v_div(v_mul(x, l2_rest), lx_rest), -nmax, nmax - 1);
    const vm moves = vm_and(v_lt(zero, lx_rest), vm_not(vm_or(v_eq(new_l, l), s->empty)));
    if (LANES == 1 && !vm_any(moves))
        return;
    const vf lx = v_add(lx_rest, v_mul(wx, new_l)), l2 = v_add(l2_rest, v_mul(v_mul(w, new_l), new_l));
    const vm gain = v_lt(v_mul(v_mul(s->lx, s->lx), l2), v_mul(v_mul(lx, lx), s->l2));
    const vm better = vm_and(vm_and(moves, v_lt(zero, l2)), gain);
    if (LANES == 1 && !vm_any(better))
        return;
    v_store(s->level[i], v_select(better, new_l, l));
    s->lx = v_select(better, lx, s->lx);
    s->l2 = v_select(better, l2, s->l2);
    s->changed |= vm_any(better);
}

/* Searches up to DESCENTS states after descent_begin. They go in step: a step is a long chain of operations.
 */
INLINE void search_descent(int nmax, descent_state *s, int states)
{
    const int count = DESCENTS == 1 ? 1 : states;
    bool any = true;
    for (int k = 0; k < count; k++)
        s[k].changed = true;
    for (int round = 0; any && round < 5; round++) {
        bool going[DESCENTS];
        for (int k = 0; k < count; k++) {
            going[k] = s[k].changed;
            s[k].changed = false;
        }
        ROLLED
        for (int i = 0; i < SUBS; i++)
            for (int k = 0; k < count; k++)
                if (going[k])
                    descent_step(i, nmax, &s[k]);
        any = false;
        for (int k = 0; k < count; k++)
            any |= s[k].changed;
    }
}

INLINE vf descent_scale(const descent_state *s)
{
    const vf zero = v_set(0.0f);
    const vm some = vm_and(vm_not(s->empty), v_lt(zero, s->l2));
    return v_select(some, v_div(s->lx, s->l2), zero);
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
