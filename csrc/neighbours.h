/* The nearest point of a grid, for groups of values that rounded to points off it.
 *
 * Either one group is searched for at a time, trying H_LANES points of its list at once; or the groups of
 * H_LANES lanes, trying the first point of each list, then the second and so on. The latter waits for
 * nothing, and moves no values, but takes as long as the longest list: it serves grids of which nearly all
 * lists are short. In either case each point's error is the scalar's sum, in its order, and the first of
 * equals wins. Source: iq2_find_best_neighbour, iq3_find_best_neighbour and iq1_find_best_neighbour2 in
 * ggml-quants.c. */

enum {
    MAX_GROUPS = 8,                /* groups of a sub-block: of 4 values; of 8, there are half as many */
    TRIES = 10,                    /* of a sub-block's scale, at a time */
    MAX_ROWS = TRIES * MAX_GROUPS, /* groups in all of them */
    OFF_GRID = 1 << 30             /* marks the code of a group that rounded to a point off the grid */
};

/* How far a level may be from what it was rounded from for its neighbours to be farther, whatever rounding
 * errors did on the way. */
#define SURELY_NEAREST 0.4999f

/* What the levels stand for, over and over. */
static const float odd_numbers[32] = {1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15,
                                      1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15};
static const float odd_pairs[32] = {1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7,
                                    1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7};

/* Levels as they are in codes of groups of 8. */
static const float levels_of_pairs[32] = {0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0};

/* Errors of the points of these codes: `term` has what each level of each value adds. */
INLINE hf h_errors(int group, const float *term, hi code)
{
    const int bits = group == 8 ? 2 : 3, levels = 32 / group;
    hf error = group == 8 ? h_lookup4(term, code) : h_lookup8(term, code);
    for (int i = 1; i < group; i++) {
        code = hi_shr(code, bits);
        error = h_add(error,
                      group == 8 ? h_lookup4(term + levels * i, code) : h_lookup8(term + levels * i, code));
    }
    return error;
}

/* What each level of each value of a group adds to the error. `value` has what each level stands for, over
 * and over. */
INLINE void error_terms(int group, const float *value, const float *x, const float *w, float scale,
                        float *term)
{
    for (int first = 0; first < 32; first += H_LANES) {
        const hf at = group == 8 ? h_repeat4(x, first) : h_repeat8(x, first);
        const hf weight = group == 8 ? h_repeat4(w, first) : h_repeat8(w, first);
        const hf diff = h_sub(h_mul(h_set(scale), h_load(H_LANES < 8 ? value + first : value)), at);
        h_store(term + first, h_mul(h_mul(weight, diff), diff));
    }
}

/* The code on the list of least weighted square error, the first of equals. */
INLINE int best_neighbour(const uint16_t *codes, int count, int group, const float *value, const float *x,
                          const float *w, float scale)
{
    _Alignas(64) float term[32];
    error_terms(group, value, x, w, scale, term);
    hf best = h_min(h_errors(group, term, hi_load_u16(codes)), h_set(FLT_MAX)), best_at = h_set(0.0f);
    ROLLED
    for (int k = H_LANES; k < count; k += H_LANES) {
        const hf error = h_errors(group, term, hi_load_u16(codes + k));
        const hm less = h_lt(error, best);
        best = h_select(less, error, best);
        best_at = h_select(less, h_set((float)k), best_at);
    }
    hm nearest = h_eq(best, h_set(h_least(best)));
    if (count <= H_LANES)
        return codes[(unsigned)hm_first(nearest)];
    const float first = h_least(h_select(nearest, best_at, h_set(FLT_MAX)));
    nearest = hm_and(nearest, h_eq(best_at, h_set(first)));
    return codes[(int)first + hm_first(nearest)];
}

/* ---- the groups of a tile ---- */

/* The groups of a tile in some tries: row r of `code` is group r % (n / group) in try r / (n / group). */
typedef struct {
    int n, rows; /* values of a sub-block; rows of codes */
    const grid_tables *tables;
    float (*x)[LANES], (*w)[LANES];   /* magnitudes, and weights in the error */
    const float *by_sub_x, *by_sub_w; /* the same, sub-block by sub-block */
    float (*scale)[LANES];            /* of each try */
    int32_t (*code)[LANES];           /* numbers of the groups, which settling replaces by codes */
} grid_groups;

/* Moves a group to the best of the first `count` codes of its list. */
INLINE void settle_group(int group, const grid_groups *g, uint32_t entry, int count, int lane, int row)
{
    const int per_sub = g->n / group, at = lane * g->n + row % per_sub * group;
    const uint16_t *codes = g->tables->lists + list_start(entry);
    const float *value = group == 8 ? odd_pairs : odd_numbers;
    g->code[row][lane] = OFF_GRID | best_neighbour(codes, count, group, value, g->by_sub_x + at,
                                                   g->by_sub_w + at, g->scale[row / per_sub][lane]);
}

/* A group off the grid, for later: its entry in grid_tables.at below, row * LANES + lane above. */
typedef uint64_t stray_group;

INLINE stray_group stray_of(uint32_t entry, int lane, int row)
{
    return (uint64_t)(row * LANES + lane) << 32 | entry;
}

INLINE void settle_stray(int group, const grid_groups *g, stray_group stray, int count)
{
    const uint32_t place = (uint32_t)(stray >> 32);
    settle_group(group, g, (uint32_t)stray, count, (int)(place % LANES), (int)(place / LANES));
}

/* Settles the groups of the active lanes in one try, one by one. Where lists may be longer than a vector, the
 * groups are sorted by that first, without branches: none could be predicted. */
INLINE void settle_try(int group, const grid_groups *g, int first_row, uint32_t active)
{
    const bool sorted = H_LANES > 1 && H_LANES < LIST_STEP;
    stray_group near[LANES * MAX_GROUPS + 1], far[LANES * MAX_GROUPS + 1];
    size_t nears = 0, fars = 0;
    for (; active; active &= active - 1)
        for (int k = 0; k < g->n / group; k++) {
            const int lane = first_bit(active), row = first_row + k;
            const uint32_t entry = g->tables->at[g->code[row][lane]];
            const int length = list_length(entry);
            g->code[row][lane] = g->tables->lists[list_start(entry)];
            if (sorted) {
                near[nears] = far[fars] = stray_of(entry, lane, row);
                nears += (unsigned)length - 1 < LIST_STEP;
                fars += length > LIST_STEP;
            } else if (length) {
                settle_group(group, g, entry, length, lane, row);
            }
        }
    for (size_t j = 0; j < nears; j++)
        settle_stray(group, g, near[j], LIST_STEP);
    for (size_t j = 0; j < fars; j++)
        settle_stray(group, g, far[j], list_length((uint32_t)far[j]));
}

INLINE void settle_each(int group, const grid_groups *g, uint32_t active)
{
    for (int row = 0; row < g->rows; row += g->n / group)
        settle_try(group, g, row, active);
}

/* ---- groups of 4, of all lanes at once ---- */

enum { NEAR = 8 }; /* codes of a list that are tried so */

/* Of the groups of H_LANES lanes, the code of least error among the first NEAR of each list. */
INLINE hi nearest_codes(const grid_groups *g, const uint32_t *place, int row, int lane)
{
    const int k = row % (g->n / 4), try = row / (g->n / 4);
    const hf scale = h_load(&g->scale[try][lane]);
    hf two_codes[NEAR / 2], least = h_set(FLT_MAX), nearest;
    h_columns4(g->tables->lists, place, LIST_STEP * sizeof(uint16_t), two_codes);
    nearest = two_codes[0];
    for (int j = 0; j < NEAR; j++) {
        const hi code = hi_shr(h_bits(two_codes[j / 2]), 16 * (j % 2));
        hf error = h_set(0.0f);
        for (int i = 0; i < 4; i++) {
            const hf q = h_lookup8(odd_numbers, hi_shr(code, 3 * i));
            const hf diff = h_sub(h_mul(scale, q), h_load(&g->x[4 * k + i][lane]));
            const hf term = h_mul(h_mul(h_load(&g->w[4 * k + i][lane]), diff), diff);
            error = i == 0 ? term : h_add(error, term);
        }
        const hm less = h_lt(error, least);
        least = h_select(less, error, least);
        nearest = h_select(less, hi_as_float(code), nearest);
    }
    return hi_and(h_bits(nearest), hi_set(0xffff));
}

/* Settles the groups of all lanes; those with longer lists, of the active lanes, one by one. */
INLINE void settle_lists(const grid_groups *g, uint32_t active)
{
    for (int row = 0; row < g->rows; row++)
        for (int lane = 0; lane < LANES; lane += H_LANES) {
            _Alignas(64) int32_t entry[H_LANES];
            uint32_t place[H_LANES];
            for (int j = 0; j < H_LANES; j++) {
                entry[j] = (int32_t)g->tables->at[g->code[row][lane + j]];
                place[j] = (uint32_t)entry[j] & PLACE_MASK;
            }
            const hf length = hi_float(hi_shr(hi_load(entry), LENGTH_SHIFT));
            const hi off_grid = hi_where(h_lt(h_set(0.0f), length), OFF_GRID);
            hi_store(&g->code[row][lane], hi_or(nearest_codes(g, place, row, lane), off_grid));
            uint32_t far = hm_bits(h_lt(h_set(NEAR), length)) & active >> lane;
            for (; far; far &= far - 1) {
                const int j = first_bit(far);
                settle_group(4, g, (uint32_t)entry[j], list_length((uint32_t)entry[j]), lane + j, row);
            }
        }
}

/* ---- groups of 8, of all lanes at once, where one step leads to the grid ---- */

/* Steps by their bits in grid_tables.steps, over and over: none, which leads far away; up; down; either. */
static const float steps_listed[32] = {0x1p60f, 2, -2, 0, 0x1p60f, 2, -2, 0,
                                       0x1p60f, 2, -2, 0, 0x1p60f, 2, -2, 0};

/* Of the groups of H_LANES lanes, the codes a step from their points of least error; `unsure` are those that
 * other points of their lists may be nearer to.
 *
 * All sums share their beginnings, up to the coordinate of the step, and the terms behind it. Of two steps of
 * one coordinate only the nearer is tried, so the other must not come to the same error, and win as the first
 * of equals: its term is 8 * scale * pull more, which must be more than rounding can take away from the sum.
 * Nor may another coordinate's error come near the least. */
INLINE hi nearest_steps(const grid_groups *g, hi point, int row, int lane, hm *unsure)
{
    const int k = row % (g->n / 8), try = row / (g->n / 8);
    const hf scale = h_load(&g->scale[try][lane]), zero = h_set(0.0f), two = h_set(2.0f);
    hf error[8], step[8], sum = zero, pull = h_set(FLT_MAX);
    UNROLLED
    for (int i = 0; i < 8; i++) {
        const hf x = h_load(&g->x[8 * k + i][lane]), w = h_load(&g->w[8 * k + i][lane]);
        const hf q = h_lookup4(odd_numbers, hi_shr(point, 2 * i)), off = h_sub(h_mul(scale, q), x);
        const hf listed = h_lookup4(steps_listed, hi_shr(point, STEP_SHIFT + 2 * i));
        const hf nearer = h_select(h_lt(off, zero), two, h_neg(two));
        const hm either = h_eq(listed, zero);
        step[i] = h_select(either, nearer, listed);
        const hf diff = h_sub(h_mul(scale, h_add(q, step[i])), x);
        const hf pulls = h_mul(w, off), term = h_mul(pulls, off);
        error[i] = h_add(sum, h_mul(h_mul(w, diff), diff));
        UNROLLED
        for (int j = 0; j < i; j++)
            error[j] = h_add(error[j], term);
        sum = h_add(sum, term);
        pull = h_min(h_select(either, h_abs(pulls), pull), pull);
    }
    hf least = h_set(FLT_MAX), second = least, moves = zero;
    UNROLLED
    for (int i = 0; i < 8; i++) {
        second = h_min(h_max(error[i], least), second);
        least = h_min(error[i], least);
    }
    UNROLLED
    for (int i = 0; i < 8; i++)
        moves = h_select(h_eq(error[i], least), h_mul(step[i], h_set((float)(1 << 2 * i) / 2)), moves);
    const hf margin = h_mul(least, h_set(0x1p-17f)), more = h_mul(h_mul(scale, h_set(8.0f)), pull);
    const hm ahead = hm_and(h_lt(h_add(least, margin), second), h_lt(margin, more));
    const hm exact = hm_and(h_lt(h_set(0x1p-90f), least), h_lt(h_abs(moves), h_set(0x1p16f)));
    const hm off_grid = hi_lt_unsigned(hi_set(0xffff), point);
    const hm others = hi_lt_unsigned(hi_set((int32_t)(OTHER_STEPS - 1)), point);
    const hi from = hi_and(point, hi_set(0xffff)), to = hi_or(hi_add(from, h_trunc(moves)), hi_set(OFF_GRID));
    *unsure = hm_or(hm_and(off_grid, hm_not(hm_and(ahead, exact))), others);
    return h_bits(h_select(off_grid, hi_as_float(to), hi_as_float(from)));
}

/* Settles the groups of all lanes, and then the unsure ones of the active lanes, one by one. */
INLINE void settle_steps(const grid_groups *g, uint32_t active)
{
    int32_t number[MAX_ROWS / 2][LANES];
    stray_group strays[MAX_ROWS / 2 * LANES];
    size_t count = 0;
    memcpy(number, g->code, (size_t)g->rows * sizeof *number);
    for (int row = 0; row < g->rows; row++)
        for (int lane = 0; lane < LANES; lane += H_LANES) {
            _Alignas(64) int32_t point[H_LANES];
            hm unsure;
            for (int j = 0; j < H_LANES; j++)
                point[j] = (int32_t)g->tables->steps[g->code[row][lane + j]];
            hi_store(&g->code[row][lane], nearest_steps(g, hi_load(point), row, lane, &unsure));
            for (uint32_t left = hm_bits(unsure) & active >> lane; left; left &= left - 1) {
                const int j = lane + first_bit(left);
                strays[count++] = stray_of(g->tables->at[number[row][j]], j, row);
            }
        }
    for (size_t j = 0; j < count; j++)
        settle_stray(8, g, strays[j], list_length((uint32_t)strays[j]));
}
