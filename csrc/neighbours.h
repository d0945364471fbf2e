/* The nearest point of a grid for groups of values that rounded to points off it.
 *
 * The lists of grid_tables.h are searched in two ways: most are short, and H_LANES groups with lists of
 * about the same length go side by side, one a lane; of a long list, H_LANES points are tried at once. Either way
 * each point's error is the scalar's sum, in its order, and the first of equals wins. Source:
 * iq2_find_best_neighbour, iq3_find_best_neighbour and iq1_find_best_neighbour2 in ggml-quants.c. */

enum { MAX_GROUPS = 8 };     /* groups of a sub-block */
enum { TRIES = 8, MAX_ROWS = TRIES * MAX_GROUPS }; /* tries at a time */
enum { OFF_GRID = 1 << 30 }; /* marks the code of a group that rounded to a point off the grid */

static const float odd_numbers[32] = {1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15,
                                      1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15};
static const float odd_pairs[32] = {1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7,
                                    1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7};

/* Levels as they are in codes of groups of 8. */
static const float levels_of_3[32] = {0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0};

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

/* ---- many groups ---- */

/* The groups of a tile in some tries: row r of `code` is group r % (n / group) in try r / (n / group). */
typedef struct {
    int n, rows; /* values of a sub-block; rows of codes */
    const grid_tables *tables;
    float (*x)[LANES], (*w)[LANES];         /* magnitudes, and weights in the error */
    const float *by_sub_x, *by_sub_w;       /* the same, sub-block by sub-block */
    const float (*scale)[LANES];            /* of each try */
    int32_t (*code)[LANES];                 /* numbers of the groups, which settling replaces by codes */
} grid_groups;

/* Moves a group to the best of the first `count` codes of its list. */
INLINE void settle_group(int group, const grid_groups *g, uint32_t entry, int count, int lane, int row)
{
    const int per_sub = g->n / group, at = lane * g->n + row % per_sub * group;
    const uint16_t *codes = g->tables->lists + list_start(entry);
    const float *value = group == 8 ? odd_pairs : odd_numbers;
    g->code[row][lane] = OFF_GRID | best_neighbour(codes, count, group, value, g->by_sub_x + at, g->by_sub_w + at,
                                                 g->scale[row / per_sub][lane]);
}

/* A group off the grid, for later: its entry in grid_tables.at below, row * LANES + lane above. */
typedef uint64_t stray_group;

INLINE stray_group stray_of(uint32_t entry, int lane, int row)
{
    return (uint64_t)(row * LANES + lane) << 32 | entry;
}

INLINE void settle_strays(int group, const grid_groups *g, const stray_group *stray, size_t strays, bool short_lists)
{
    for (size_t j = 0; j < strays; j++) {
        const uint32_t entry = (uint32_t)stray[j], place = (uint32_t)(stray[j] >> 32);
        settle_group(group, g, entry, short_lists ? LIST_STEP : list_length(entry), (int)(place % LANES),
                     (int)(place / LANES));
    }
}

/* Settles the groups of some lanes one by one. Where lists may be longer than a vector, the groups are sorted by that
 * first, without branches: none could be predicted. */
INLINE void settle_each(int group, const grid_groups *g, const int *lanes, int active)
{
    const bool sorted = H_LANES > 1 && H_LANES < LIST_STEP;
    stray_group near[LANES * MAX_ROWS + 1], far[LANES * MAX_ROWS + 1];
    size_t nears = 0, fars = 0;
    for (int a = 0; a < active; a++)
        for (int k = 0; k < g->rows; k++) {
            int32_t *code = &g->code[k][lanes[a]];
            const uint32_t entry = g->tables->at[*code];
            const int length = list_length(entry);
            *code = g->tables->lists[list_start(entry)];
            if (sorted) {
                near[nears] = far[fars] = stray_of(entry, lanes[a], k);
                nears += (unsigned)length - 1 < LIST_STEP;
                fars += length > LIST_STEP;
            } else if (length) {
                settle_group(group, g, entry, length, lanes[a], k);
            }
        }
    settle_strays(group, g, near, nears, true);
    settle_strays(group, g, far, fars, false);
}

enum { NEAR = 8 }; /* codes of a list that are tried in lanes */

/* Of the groups of H_LANES lanes, the code of least error among the first NEAR of each list. */
INLINE hi nearest_codes(int group, const grid_groups *g, const uint32_t *place, int row, int lane)
{
    const int bits = group == 8 ? 2 : 3, k = row % (g->n / group);
    const hf scale = h_load(&g->scale[row / (g->n / group)][lane]);
    hf two_codes[NEAR / 2], least = h_set(FLT_MAX), nearest;
    for (int i = 0; i < NEAR; i += 8)
        h_columns4(g->tables->lists + i, place, LIST_STEP * sizeof(uint16_t), two_codes + i / 2);
    nearest = two_codes[0];
    for (int j = 0; j < NEAR; j++) {
        const hi code = hi_shr(h_bits(two_codes[j / 2]), 16 * (j % 2));
        hf error = h_set(0.0f);
        for (int i = 0; i < group; i++) {
            const hi level = hi_shr(code, bits * i);
            const hf q = group == 8 ? h_lookup4(odd_numbers, level) : h_lookup8(odd_numbers, level);
            const hf diff = h_sub(h_mul(scale, q), h_load(&g->x[k * group + i][lane]));
            const hf term = h_mul(h_mul(h_load(&g->w[k * group + i][lane]), diff), diff);
            error = i == 0 ? term : h_add(error, term);
        }
        const hm less = h_lt(error, least);
        least = h_select(less, error, least);
        nearest = h_select(less, hi_as_float(code), nearest);
    }
    return hi_and(h_bits(nearest), hi_set(0xffff));
}

/* Settles the groups of all lanes at once, but those with long lists, one by one. */
INLINE void settle_lists(int group, const grid_groups *g, uint32_t active)
{
    for (int row = 0; row < g->rows; row++)
        for (int lane = 0; lane < LANES; lane += H_LANES) {
            _Alignas(64) uint32_t entry[H_LANES], place[H_LANES];
            for (int j = 0; j < H_LANES; j++) {
                entry[j] = g->tables->at[g->code[row][lane + j]];
                place[j] = entry[j] & PLACE_MASK;
            }
            const hf length = hi_float(hi_shr(hi_load((int32_t *)entry), LENGTH_SHIFT));
            const hi off_grid = hi_where(h_lt(h_set(0.0f), length), OFF_GRID);
            hi_store(&g->code[row][lane], hi_or(nearest_codes(group, g, place, row, lane), off_grid));
            for (uint32_t left = hm_bits(h_lt(h_set(NEAR), length)) & active >> lane; left; left &= left - 1) {
                const int j = first_bit(left);
                settle_group(group, g, entry[j], list_length(entry[j]), lane + j, row);
            }
        }
}

/* Steps by their bits in grid_tables.steps: none, up, down, and either. One that there is not leads far away. */
static const float steps_in_list[32] = {0x1p60f, 2, -2, 0, 0x1p60f, 2, -2, 0, 0x1p60f, 2, -2, 0, 0x1p60f, 2, -2, 0};

/* Of the groups of 8 of H_LANES lanes, the codes one step from their points of least error. */
INLINE hi nearest_steps(const grid_groups *g, hi point, int row, int lane, hm *unsure)
{
    const int k = row % (g->n / 8);
    const hf scale = h_load(&g->scale[row / (g->n / 8)][lane]), zero = h_set(0.0f), two = h_set(2.0f);
    hf error[8], step[8], sum = zero, pull = h_set(FLT_MAX);
    UNROLLED
    for (int i = 0; i < 8; i++) {
        const hf x = h_load(&g->x[8 * k + i][lane]), w = h_load(&g->w[8 * k + i][lane]);
        const hf q = h_lookup4(odd_numbers, hi_shr(point, 2 * i)), off = h_sub(h_mul(scale, q), x);
        const hf listed = h_lookup4(steps_in_list, hi_shr(point, STEP_SHIFT + 2 * i));
        const hf nearer = h_select(h_lt(off, zero), two, h_neg(two));
        const hm either = h_eq(listed, zero);
        step[i] = h_select(either, nearer, listed);
        const hf diff = h_sub(h_mul(scale, h_add(q, step[i])), x), pulls = h_mul(w, off), term = h_mul(pulls, off);
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
    const hf tiny = h_mul(least, h_set(0x1p-17f)), gap = h_mul(h_mul(scale, h_set(8.0f)), pull);
    const hm sure = hm_and(hm_and(h_lt(h_add(least, tiny), second), h_lt(tiny, gap)), h_lt(h_set(0x1p-90f), least));
    const hm off_grid = hi_lt_unsigned(hi_set(0xffff), point);
    *unsure = hm_or(hm_and(off_grid, hm_not(sure)), hi_lt_unsigned(hi_set((int32_t)(OTHER_STEPS - 1)), point));
    const hi off = hi_or(hi_add(hi_and(point, hi_set(0xffff)), h_trunc(moves)), hi_set(OFF_GRID));
    return h_bits(h_select(off_grid, hi_as_float(off), hi_as_float(hi_and(point, hi_set(0xffff)))));
}

/* Settles the groups of all lanes at once, and then those that other points may be nearest to. */
INLINE void settle_steps(const grid_groups *g, uint32_t active)
{
    int32_t number[MAX_ROWS][LANES];
    stray_group other[LANES * MAX_ROWS];
    size_t others = 0;
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
                other[others++] = stray_of(g->tables->at[number[row][j]], j, row);
            }
        }
    settle_strays(8, g, other, others, false);
}
