/* IQ1_S and IQ1_M: super-blocks of 256 values of -1, 0 or 1, all shifted by an eighth up or down, in groups
 * of 8 on a grid. IQ1_S has a scale and a shift for each 32 values; IQ1_M a scale for 16, a shift for 8.
 *
 * The values of a sub-block, sorted, are split in three in every way; the best split gives the levels, and
 * the groups that are off the grid move to the best neighbour. Source: quantize_row_iq1_s_impl,
 * quantize_row_iq1_m_impl and iq1_find_best_neighbour2 in ggml-quants.c. */

/* The levels shifted up and down, over and over: tables for best_neighbour. */
#define SHIFTED4(a, b, c) a, b, c, 0, a, b, c, 0, a, b, c, 0, a, b, c, 0
static const float shifted_up[32] = {SHIFTED4(-0.875f, 0.125f, 1.125f), SHIFTED4(-0.875f, 0.125f, 1.125f)};
static const float shifted_down[32] = {SHIFTED4(-1.125f, -0.125f, 0.875f),
                                       SHIFTED4(-1.125f, -0.125f, 0.875f)};

/* What the search found for a tile of sub-blocks of n values. */
typedef struct {
    _Alignas(64) float scale[LANES];
    uint16_t index[LANES][4];
    uint8_t down[LANES]; /* bit k: group k is shifted down */
} ternary_found;

typedef struct {
    tile t;                                                             /* values and weights */
    _Alignas(64) float x[LANES * TILE_ROWS], w[LANES * TILE_ROWS];      /* the same by rows */
    _Alignas(64) float key[TILE_ROWS][LANES], weight[TILE_ROWS][LANES]; /* sorted */
    _Alignas(64) float order[TILE_ROWS][LANES];                         /* where they were before */
} ternary_tile;

/* ---- sorting ---- */

/* Puts rows a and b in order: by value, then by place. */
INLINE void sort_pair(ternary_tile *s, int a, int b)
{
    const vf key_a = v_load(s->key[a]), key_b = v_load(s->key[b]);
    const vf order_a = v_load(s->order[a]), order_b = v_load(s->order[b]);
    const vf weight_a = v_load(s->weight[a]), weight_b = v_load(s->weight[b]);
    const vm swap = vm_or(v_lt(key_b, key_a), vm_and(v_eq(key_a, key_b), v_lt(order_b, order_a)));
    v_store(s->key[a], v_select(swap, key_b, key_a));
    v_store(s->key[b], v_select(swap, key_a, key_b));
    v_store(s->order[a], v_select(swap, order_b, order_a));
    v_store(s->order[b], v_select(swap, order_a, order_b));
    v_store(s->weight[a], v_select(swap, weight_b, weight_a));
    v_store(s->weight[b], v_select(swap, weight_a, weight_b));
}

/* Batcher's odd-even merge sort, whose comparisons do not depend on the values. */
INLINE void sort_tile(int n, ternary_tile *s)
{
    for (int i = 0; i < n; i++) {
        v_store(s->key[i], v_load(s->t.x[i]));
        v_store(s->weight[i], v_load(s->t.w[i]));
        v_store(s->order[i], v_set((float)i));
    }
    for (int p = 1; p < n; p *= 2)
        for (int k = p; k >= 1; k /= 2)
            for (int j = k % p; j + k < n; j += 2 * k)
                for (int i = 0; i < k && i + j + k < n; i++)
                    if ((i + j) / (2 * p) == (i + j + k) / (2 * p))
                        sort_pair(s, i + j, i + j + k);
}

/* ---- splits ---- */

/* The first i1 of the sorted values become level 0, those up to i2 level 1, the rest level 2. */
typedef struct {
    vf scale, score, i1, i2, shifts;
} ternary_split;

INLINE vm v_gains(vf qx, vf q2, const ternary_split *best)
{
    return vm_and(v_lt(v_set(0.0f), q2), v_lt(v_mul(best->score, q2), v_mul(qx, qx)));
}

/* Tries `count` shifts of one split, in order. Mostly, none gains anything. */
INLINE void consider_split(const vf *qx, const vf *q2, int count, int i1, int i2, ternary_split *best)
{
    vm any = v_gains(qx[0], q2[0], best);
    for (int k = 1; k < count; k++)
        any = vm_or(any, v_gains(qx[k], q2[k], best));
    if (!vm_any(any))
        return;
    for (int k = 0; k < count; k++) {
        const vm better = v_gains(qx[k], q2[k], best);
        best->scale = v_select(better, v_div(qx[k], q2[k]), best->scale);
        best->score = v_select(better, v_mul(best->scale, qx[k]), best->score);
        best->i1 = v_select(better, v_set((float)i1), best->i1);
        best->i2 = v_select(better, v_set((float)i2), best->i2);
        best->shifts = v_select(better, v_set((float)k), best->shifts);
    }
}

INLINE ternary_split no_split(void)
{
    const vf zero = v_set(0.0f);
    return (ternary_split){zero, v_set(-FLT_MAX), v_set(-1.0f), zero, zero};
}

/* IQ1_S: one shift; `shifts` is 0 for up, 1 for down. */
INLINE ternary_split split_32(const ternary_tile *s)
{
    enum { N = 32 };
    _Alignas(64) float x[N + 1][LANES], w[N + 1][LANES]; /* sums of the first few */
    _Alignas(64) float x_up[N + 1][LANES], x_down[N + 1][LANES], w_up[N + 1][LANES], w_down[N + 1][LANES];
    const vf up0 = v_set(shifted_up[0]), up1 = v_set(shifted_up[1]), up2 = v_set(shifted_up[2]);
    const vf down0 = v_set(shifted_down[0]), down1 = v_set(shifted_down[1]), down2 = v_set(shifted_down[2]);
    ternary_split best = no_split();
    v_store(x[0], v_set(0.0f));
    v_store(w[0], v_set(0.0f));
    for (int j = 0; j < N; j++) {
        const vf weight = v_load(s->weight[j]);
        v_store(x[j + 1], v_add(v_load(x[j]), v_mul(weight, v_load(s->key[j]))));
        v_store(w[j + 1], v_add(v_load(w[j]), weight));
    }
    for (int j = 0; j <= N; j++) {
        const vf rest_x = v_sub(v_load(x[N]), v_load(x[j])), rest_w = v_sub(v_load(w[N]), v_load(w[j]));
        v_store(x_up[j], v_mul(rest_x, up2));
        v_store(x_down[j], v_mul(rest_x, down2));
        v_store(w_up[j], v_mul(v_mul(rest_w, up2), up2));
        v_store(w_down[j], v_mul(v_mul(rest_w, down2), down2));
    }
    for (int i1 = 0; i1 <= N; i1++) {
        const vf x1 = v_load(x[i1]), w1 = v_load(w[i1]);
        const vf x1_up = v_mul(x1, up0), x1_down = v_mul(x1, down0);
        const vf w1_up = v_mul(v_mul(w1, up0), up0), w1_down = v_mul(v_mul(w1, down0), down0);
        ROLLED
        for (int i2 = i1; i2 <= N; i2++) {
            const vf x2 = v_sub(v_load(x[i2]), x1), w2 = v_sub(v_load(w[i2]), w1);
            const vf w2_any = v_mul(v_mul(w2, up1), up1);
            const vf qx[2] = {v_add(v_add(x1_up, v_mul(x2, up1)), v_load(x_up[i2])),
                              v_add(v_add(x1_down, v_mul(x2, down1)), v_load(x_down[i2]))};
            const vf q2[2] = {v_add(v_add(w1_up, w2_any), v_load(w_up[i2])),
                              v_add(v_add(w1_down, w2_any), v_load(w_down[i2]))};
            consider_split(qx, q2, 2, i1, i2, &best);
        }
    }
    return best;
}

/* IQ1_M: a shift for either half; bit 1 of `shifts` is the first half's, set for down. */
INLINE ternary_split split_16(const ternary_tile *s)
{
    enum { N = 16 };
    _Alignas(64) float x[2][N + 1][LANES], w[2][N + 1][LANES];
    const vf zero = v_set(0.0f);
    const vf last[2] = {v_set(shifted_up[2]), v_set(shifted_down[2])};
    const float *value[2] = {shifted_up, shifted_down};
    vf first_step[2], second_step[2], rest_x[2][2], rest_w[2][2];
    ternary_split best = no_split();
    for (int h = 0; h < 2; h++) {
        v_store(x[h][0], zero);
        v_store(w[h][0], zero);
    }
    for (int j = 0; j < N; j++) {
        const vf weight = v_load(s->weight[j]), wx = v_mul(weight, v_load(s->key[j]));
        const vm first_half = v_lt(v_load(s->order[j]), v_set(N / 2));
        for (int h = 0; h < 2; h++) {
            const vf x_before = v_load(x[h][j]), w_before = v_load(w[h][j]);
            const vf x_after = v_add(x_before, wx), w_after = v_add(w_before, weight);
            v_store(x[h][j + 1], h == 0 ? v_select(first_half, x_after, x_before)
                                        : v_select(first_half, x_before, x_after));
            v_store(w[h][j + 1], h == 0 ? v_select(first_half, w_after, w_before)
                                        : v_select(first_half, w_before, w_after));
        }
    }
    for (int down = 0; down < 2; down++) {
        const float *v = value[down];
        first_step[down] = v_set(v[0] * v[0] - v[1] * v[1]);
        second_step[down] = v_set(v[1] * v[1] - v[2] * v[2]);
        for (int h = 0; h < 2; h++) {
            rest_x[h][down] = v_mul(v_load(x[h][N]), last[down]);
            rest_w[h][down] = v_mul(v_mul(v_load(w[h][N]), last[down]), last[down]);
        }
    }
    for (int i1 = 0; i1 <= N; i1++) {
        ROLLED
        for (int i2 = i1; i2 <= N; i2++) {
            vf qx[2][2], q2[2][2], all_qx[4], all_q2[4];
            for (int h = 0; h < 2; h++) {
                const vf sum = v_add(v_load(x[h][i1]), v_load(x[h][i2]));
                for (int down = 0; down < 2; down++) {
                    const vf w1 = v_mul(v_load(w[h][i1]), first_step[down]);
                    const vf w2 = v_mul(v_load(w[h][i2]), second_step[down]);
                    qx[h][down] = v_sub(rest_x[h][down], sum);
                    q2[h][down] = v_add(v_add(rest_w[h][down], w1), w2);
                }
            }
            for (int k = 0; k < 4; k++) {
                all_qx[k] = v_add(qx[0][k / 2], qx[1][k % 2]);
                all_q2[k] = v_add(q2[0][k / 2], q2[1][k % 2]);
            }
            consider_split(all_qx, all_q2, 4, i1, i2, &best);
        }
    }
    return best;
}

/* ---- from a split to points on the grid ---- */

/* A split with a positive scale: where one is negative, its levels and shifts are turned over. */
typedef struct {
    vf scale;
    vm turned;
    vm down[4]; /* of each group */
} turned_levels;

INLINE turned_levels turn_levels(int n, const ternary_split *best)
{
    const vf one = v_set(1.0f), two = v_set(2.0f);
    const vm turned = v_lt(best->scale, v_set(0.0f)), second = v_lt(best->shifts, two);
    turned_levels out = {v_abs(best->scale), turned, {turned, turned, turned, turned}};
    for (int k = 0; k < n / 8; k++) {
        /* Of IQ1_S, all four groups share a shift; of IQ1_M, bit 1 is the first group's. */
        const vf bit = n == 16 && k == 0 ? v_select(second, v_set(0.0f), one)
                       : n == 16         ? v_select(second, best->shifts, v_sub(best->shifts, two))
                                         : best->shifts;
        const vm down = v_eq(bit, one);
        out.down[k] = vm_or(vm_and(down, vm_not(turned)), vm_and(turned, vm_not(down)));
    }
    return out;
}

INLINE vf v_shift(vm down) { return v_select(down, v_set(-0.125f), v_set(0.125f)); }

/* The sorted values number i of each lane, and their places before; past all others where there is none. */
INLINE void find_sorted(int n, const ternary_tile *s, vf i, vf *key, vf *order)
{
    _Alignas(64) float at[LANES], keys[LANES], orders[LANES];
    v_store(at, i);
    for (int j = 0; j < LANES; j++) {
        const bool found = at[j] >= 0.0f && at[j] < (float)n;
        keys[j] = found ? s->key[(int)at[j]][j] : INFINITY;
        orders[j] = found ? s->order[(int)at[j]][j] : (float)n;
    }
    *key = v_load(keys);
    *order = v_load(orders);
}

/* Numbers of the groups, see grid_tables.h: that of the shorter list where each level is surely the nearest
 * of the three. */
INLINE void number_levels(int n, const ternary_tile *s, const ternary_split *best, const turned_levels *to,
                          int32_t (*number)[LANES])
{
    const vf zero = v_set(0.0f), one = v_set(1.0f), two = v_set(2.0f), three = v_set(3.0f);
    const vf margin = v_mul(v_set(SURELY_NEAREST), to->scale);
    vf key1, key2, order1, order2;
    find_sorted(n, s, best->i1, &key1, &order1);
    find_sorted(n, s, best->i2, &key2, &order2);
    for (int k = 0; k < n / 8; k++) {
        vf sum = zero;
        vm sure = v_eq(zero, zero);
        for (int i = 7; i >= 0; i--) {
            const vf x = v_load(s->t.x[8 * k + i]), at = v_set((float)(8 * k + i));
            const vm above1 = vm_or(v_lt(key1, x), vm_and(v_eq(key1, x), vm_not(v_lt(at, order1))));
            const vm above2 = vm_or(v_lt(key2, x), vm_and(v_eq(key2, x), vm_not(v_lt(at, order2))));
            vf level = v_select(above2, two, v_select(above1, one, zero));
            level = v_select(to->turned, v_sub(two, level), level);
            const vf q = v_add(v_sub(level, one), v_shift(to->down[k])), off = v_sub(x, v_mul(to->scale, q));
            const vm low = vm_or(v_lt(v_neg(margin), off), v_eq(level, zero));
            const vm high = vm_or(v_lt(off, margin), v_eq(level, two));
            const vm weighs = vm_not(v_lt(v_load(s->t.w[8 * k + i]), zero));
            sure = vm_and(sure, vm_and(vm_and(low, high), weighs));
            sum = v_add(v_mul(sum, three), level);
        }
        vi_store(number[k], v_trunc(v_add(sum, v_select(sure, v_set(6561.0f), zero))));
    }
}

/* Numbers of the groups of a lane become codes on the grid; those of groups off it are marked. */
INLINE void settle_lane(int n, const grid_tables *tables, const ternary_tile *s, int lane, float scale,
                        uint8_t down, int32_t (*code)[LANES])
{
    for (int k = 0; k < n / 8; k++) {
        const uint32_t entry = tables->at[code[k][lane]];
        const uint16_t *list = tables->lists + list_start(entry);
        const float *value = down >> k & 1 ? shifted_down : shifted_up;
        const int at = lane * n + 8 * k, length = list_length(entry);
        code[k][lane] =
            length ? OFF_GRID | best_neighbour(list, length, 8, value, s->x + at, s->w + at, scale) : list[0];
    }
}

/* The scales that fit the codes best, of lanes where a group moved; codes become numbers again. */
INLINE vf refit_levels(int n, const ternary_tile *s, const turned_levels *to, int32_t (*code)[LANES])
{
    const vf zero = v_set(0.0f);
    vf qx = zero, q2 = zero;
    vi moved = vi_set(0);
    for (int k = 0; k < n / 8; k++) {
        const vi codes = vi_load(code[k]);
        vf number = zero, power = v_set(1.0f);
        moved = vi_or(moved, codes);
        for (int i = 0; i < 8; i++) {
            const vf level = v_lookup4(levels_of_pairs, vi_shr(codes, 2 * i));
            const vf q = v_add(v_sub(level, v_set(1.0f)), v_shift(to->down[k]));
            const vf wq = v_mul(v_load(s->t.w[8 * k + i]), q);
            qx = v_add(qx, v_mul(wq, v_load(s->t.x[8 * k + i])));
            q2 = v_add(q2, v_mul(wq, q));
            number = v_add(number, v_mul(power, level));
            power = v_mul(power, v_set(3.0f));
        }
        vi_store(code[k], v_trunc(number));
    }
    const vm fits =
        vm_and(v_lt(zero, vi_float(vi_and(moved, vi_set(OFF_GRID)))), vm_and(v_lt(zero, qx), v_lt(zero, q2)));
    return v_select(fits, v_div(qx, q2), to->scale);
}

/* Sub-blocks below `least` count as zero. */
INLINE void search_ternary(int n, const grid_tables *tables, int live, float least, ternary_tile *s,
                           ternary_found *out)
{
    _Alignas(64) float scale[LANES], i1[LANES], magnitude[LANES];
    _Alignas(64) int32_t code[4][LANES] = {{0}};
    uint32_t down[4];
    vf max = v_abs(v_load(s->t.x[0]));
    for (int i = 1; i < n; i++)
        max = v_max(max, v_abs(v_load(s->t.x[i])));
    transpose_back(s->t.x, n, s->x);
    transpose_back(s->t.w, n, s->w);
    sort_tile(n, s);
    const ternary_split best = n == 32 ? split_32(s) : split_16(s);
    const turned_levels to = turn_levels(n, &best);
    number_levels(n, s, &best, &to, code);
    v_store(magnitude, max);
    v_store(scale, to.scale);
    v_store(i1, best.i1);
    for (int k = 0; k < n / 8; k++)
        down[k] = vm_bits(to.down[k]);
    memset(out, 0, sizeof *out);
    for (int j = 0; j < live; j++)
        for (int k = 0; k < n / 8; k++)
            out->down[j] |= (uint8_t)((down[k] >> j & 1) << k);
    for (int j = 0; j < live; j++)
        settle_lane(n, tables, s, j, scale[j], out->down[j], code);
    v_store(scale, refit_levels(n, s, &to, code));
    for (int j = 0; j < live; j++) {
        if (magnitude[j] < least || !(i1[j] >= 0.0f)) {
            out->down[j] = 0;
            continue;
        }
        out->scale[j] = scale[j];
        for (int k = 0; k < n / 8; k++)
            out->index[j][k] = grid_point(tables, code[k][j]);
    }
}

/* ---- super-blocks ---- */

typedef struct {
    _Alignas(64) float scale[LANES * SUBS];
    uint16_t index[LANES * 32]; /* of each 8 values */
    uint8_t down[LANES * SUBS];
} ternary_batch;

INLINE void search_ternary_batch(const forge_request *request, int64_t first, int live, int n, float least,
                                 const grid_tables *tables, const float *variances, ternary_batch *out)
{
    const int subs = SUPER / n;
    for (int sub = 0; sub < live * subs; sub += LANES) {
        const int count = lanes_in_use(live * subs - sub);
        ternary_tile s;
        ternary_found found;
        load_values(request, first * subs + sub, count, n, s.t.x);
        if (request->importance)
            load_weights(request, first * subs + sub, count, n, variances, sub, subs, &s.t);
        else
            for (int i = 0; i < n; i++)
                v_store(s.t.w[i], v_mul(v_load(s.t.x[i]), v_load(s.t.x[i])));
        search_ternary(n, tables, count, least, &s, &found);
        for (int j = 0; j < count; j++) {
            out->scale[sub + j] = found.scale[j];
            out->down[sub + j] = found.down[j];
            memcpy(out->index + (sub + j) * (n / 8), found.index[j], (size_t)n / 8 * sizeof(uint16_t));
        }
    }
}

INLINE float greatest_scale(const float *scale, int subs)
{
    float max = 0.0f;
    for (int j = 0; j < subs; j++)
        max = max > scale[j] ? max : scale[j];
    return max;
}

/* The code of a scale, given 1 / d. */
INLINE int odd_code(float id, float scale)
{
    const int l = nearest_int(0.5f * (id * scale - 1));
    return l < 0 ? 0 : l > 7 ? 7 : l;
}

INLINE void put_iq1_s(const float *scale, const uint16_t *index, const uint8_t *down, block_iq1_s *out)
{
    const float max = greatest_scale(scale, 8), d = max / 15, id = 1 / d;
    out->d = f32_to_f16(d * 1.125f);
    for (int j = 0; j < 8; j++) {
        unsigned high = max != 0.0f ? (unsigned)odd_code(id, scale[j]) << 12 : 0;
        for (int k = 0; k < 4; k++) {
            out->qs[4 * j + k] = (uint8_t)index[4 * j + k];
            high |= (unsigned)(index[4 * j + k] >> 8) << 3 * k;
        }
        if (max != 0.0f && down[j])
            high |= 0x8000;
        out->qh[j] = (uint16_t)high;
    }
}

static void quantize_iq1_s(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / SUPER;
    const grid_tables tables = view_tables(find_grid(TYPE_IQ1_S), request->tables);
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        float variances[LANES] = {0};
        ternary_batch found;
        variance(request, SUPER, first, live, 2.0f, variances);
        search_ternary_batch(request, first, live, 32, 1e-12f, &tables, variances, &found);
        for (int j = 0; j < live; j++, dst += sizeof(block_iq1_s))
            put_iq1_s(found.scale + 8 * j, found.index + 32 * j, found.down + 8 * j, (block_iq1_s *)dst);
    }
}

/* The scale of a super-block of IQ1_M: that which fits all of its values best. */
INLINE float refit_iq1_m(const forge_request *request, int64_t block, float variance, const uint16_t *index,
                         const uint8_t *down, const uint8_t *code, float d)
{
    _Alignas(64) float buffer[SUPER], weight[SUPER];
    const float *x = view_elements(request, block * SUPER, SUPER, buffer);
    const float *importance =
        request->importance ? request->importance + block * SUPER % request->n_per_row : NULL;
    float qx = 0.0f, q2 = 0.0f;
    for (int i = 0; i < SUPER; i += H_LANES) {
        const hf value = h_load(x + i), square = h_mul(value, value);
        const hf spread = h_sqrt(h_add(h_set(variance), square));
        h_store(weight + i, importance ? h_mul(h_load(importance + i), spread) : square);
    }
    for (int k = 0; k < 32; k++) {
        const float *value = down[k / 2] >> k % 2 & 1 ? shifted_down : shifted_up;
        const float times = (float)(2 * code[k / 2] + 1);
        for (int i = 0; i < 8; i++) {
            const float q = value[grid_iq1[index[k]] >> 2 * i & 3] * times, w = weight[8 * k + i];
            qx += w * q * x[8 * k + i];
            q2 += w * q * q;
        }
    }
    return q2 > 0.0f ? qx / q2 : d;
}

INLINE void put_iq1_m(const forge_request *request, int64_t block, float variance, const float *scale,
                      const uint16_t *index, const uint8_t *down, block_iq1_m *out)
{
    const float max = greatest_scale(scale, 16), id = 1 / (max / 15);
    uint8_t code[16];
    memset(out->scales, 0, sizeof out->scales);
    for (int j = 0; j < 16; j++) {
        out->qs[2 * j] = (uint8_t)index[2 * j];
        out->qs[2 * j + 1] = (uint8_t)index[2 * j + 1];
        out->qh[j] = (uint8_t)(index[2 * j] >> 8 | index[2 * j + 1] >> 8 << 4);
    }
    if (max == 0.0f)
        return;
    for (int j = 0; j < 16; j++) {
        code[j] = (uint8_t)odd_code(id, scale[j]);
        out->scales[j / 4] |= (uint16_t)(code[j] << 3 * (j % 4));
        out->qh[j] |= (uint8_t)((down[j] & 1) << 3 | (down[j] >> 1 & 1) << 7);
    }
    const float d = refit_iq1_m(request, block, variance, index, down, code, max / 15);
    const uint16_t half = f32_to_f16(d * 1.1125f);
    for (int k = 0; k < 4; k++)
        out->scales[k] |= (uint16_t)((half >> 4 * k & 15) << 12);
}

static void quantize_iq1_m(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / SUPER;
    const grid_tables tables = view_tables(find_grid(TYPE_IQ1_M), request->tables);
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        float variances[LANES] = {0};
        ternary_batch found;
        variance(request, SUPER, first, live, 2.0f, variances);
        search_ternary_batch(request, first, live, 16, 1e-7f, &tables, variances, &found);
        for (int j = 0; j < live; j++, dst += sizeof(block_iq1_m))
            put_iq1_m(request, first + j, variances[j], found.scale + 16 * j, found.index + 32 * j,
                      found.down + 16 * j, (block_iq1_m *)dst);
    }
}
