/* Makes the tables that grid_tables.h describes. It is plain C, compiled for the baseline of the
 * architecture. */
#include "grid_tables.h"

#include <string.h>

#include "blocks.h"
#include "forge.h"
#include "iq_grids.h"

enum { MAX_GROUP = 8, MAX_SIZE = 2048, MAX_DISTANCE = 4 * 7 * 7 };

#define PAIRS(codes, distances, words)  {codes, sizeof codes / 2, 8, 2, 3, distances, 6561, words}
#define OCTALS(codes, distances, words) {codes, sizeof codes / 2, 4, 3, 8, distances, 4096, words}

static const grid iq2_xxs = PAIRS(grid_iq2_xxs, 2, 239456), iq2_xs = PAIRS(grid_iq2_xs, 2, 334064),
                  iq2_s = PAIRS(grid_iq2_s, 1, 116960), iq1 = PAIRS(grid_iq1, 3, 493536),
                  iq3_xxs = OCTALS(grid_iq3_xxs, 2, 76032), iq3_s = OCTALS(grid_iq3_s, 3, 88880);

const grid *find_grid(int type)
{
    switch (type) {
    case TYPE_IQ2_XXS:
        return &iq2_xxs;
    case TYPE_IQ2_XS:
        return &iq2_xs;
    case TYPE_IQ2_S:
        return &iq2_s;
    case TYPE_IQ1_S:
        return &iq1;
    case TYPE_IQ1_M:
        return &iq1;
    case TYPE_IQ3_XXS:
        return &iq3_xxs;
    case TYPE_IQ3_S:
        return &iq3_s;
    default:
        return NULL;
    }
}

/* The levels of all points of a grid, one coordinate after the other, so that a loop over points is
 * vectorised. */
typedef struct {
    uint8_t level[MAX_GROUP][MAX_SIZE];
} coordinates;

static void spread(const grid *g, coordinates *out)
{
    for (int i = 0; i < g->group; i++)
        for (int j = 0; j < g->size; j++)
            out->level[i][j] = (uint8_t)(g->codes[j] >> g->bits * i & ((1 << g->bits) - 1));
}

static void unpack_number(const grid *g, int number, uint8_t *level)
{
    for (int i = 0; i < g->group; i++, number /= g->levels)
        level[i] = (uint8_t)(number % g->levels);
}

/* Sets distance[j] to the squared distance between a point, given by its levels, and point j of the grid. */
static void measure(const grid *g, const coordinates *points, const uint8_t *level, uint8_t *distance)
{
    memset(distance, 0, (size_t)g->size);
    for (int i = 0; i < g->group; i++)
        for (int j = 0; j < g->size; j++) {
            const int apart = points->level[i][j] - level[i];
            distance[j] = (uint8_t)(distance[j] + apart * apart);
        }
}

/* Writes the indices of the grid's points at the few nearest distances, ordered by distance and then by
 * index. Returns how many there are. */
static int nearest_points(const grid *g, const uint8_t *distance, uint16_t *out)
{
    bool occurs[MAX_DISTANCE + 1] = {false};
    int count = 0, distances = 0;
    for (int j = 0; j < g->size; j++)
        occurs[distance[j]] = true;
    for (int d = 0; d <= MAX_DISTANCE && distances < g->distances; d++) {
        if (!occurs[d])
            continue;
        for (int j = 0; j < g->size; j++)
            if (distance[j] == d)
                out[count++] = (uint16_t)j;
        distances++;
    }
    return count;
}

/* How far a point of the grid is from `level`, in each direction of each coordinate, as runs of ones. The
 * bits of one displacement are a subset of those of another exactly if it goes no farther in any
 * coordinate, and in the same direction. */
static uint64_t displacement(const grid *g, const uint8_t *level, uint16_t code)
{
    const int run = g->levels - 1;
    uint64_t bits = 0;
    for (int i = 0; i < g->group; i++) {
        const int apart = (code >> g->bits * i & ((1 << g->bits) - 1)) - level[i];
        const uint64_t ones = (1u << (apart < 0 ? -apart : apart)) - 1;
        bits |= ones << run * (2 * i + (apart < 0));
    }
    return bits;
}

/* Drops each point that goes as far as an earlier one in every coordinate, or farther. Returns how many
 * are left. */
static int drop_dominated(const grid *g, const uint8_t *level, uint16_t *codes, int count)
{
    uint64_t kept[MAX_SIZE];
    int left = 0;
    for (int k = 0; k < count; k++) {
        const uint64_t apart = displacement(g, level, codes[k]);
        bool dominated = false;
        for (int other = 0; other < left && !dominated; other++)
            dominated = (kept[other] & ~apart) == 0;
        if (!dominated) {
            kept[left] = apart;
            codes[left++] = codes[k];
        }
    }
    return left;
}

/* The lists that have been written so far. */
typedef struct {
    uint16_t *codes;
    uint32_t end; /* the number of codes written, a multiple of LIST_STEP */
} lists_so_far;

/* Appends a list of `count` codes, and returns its entry, which states `length` as the length. */
static uint32_t put_list(lists_so_far *lists, const uint16_t *codes, int count, int length)
{
    const uint32_t entry = (uint32_t)length << LENGTH_SHIFT | lists->end / LIST_STEP;
    for (int k = 0; k < count || k % LIST_STEP; k++)
        lists->codes[lists->end++] = codes[k < count ? k : 0];
    return entry;
}

/* A list of codes as a word of grid_tables.steps. */
static uint32_t steps_of(const grid *g, const uint8_t *level, const uint16_t *codes, int length)
{
    uint32_t point = 0, steps = 0;
    for (int i = 0; i < g->group; i++)
        point |= (uint32_t)level[i] << g->bits * i;
    for (int k = 0; k < length; k++) {
        int i = 0;
        while (i < g->group && codes[k] != point + (1u << g->bits * i) &&
               codes[k] != point - (1u << g->bits * i))
            i++;
        if (i == g->group)
            return point | OTHER_STEPS;
        steps |= (codes[k] > point ? 1u : 2u) << (STEP_SHIFT + 2 * i);
    }
    return point | steps;
}

static int64_t step_bytes(const grid *g) { return g->distances == 1 ? (int64_t)g->points * 4 : 0; }

int64_t forge_tables_size(int type)
{
    const grid *g = find_grid(type);
    return g ? 2 * (int64_t)g->points * 4 + step_bytes(g) + (int64_t)g->words * 2 : 0;
}

int64_t forge_make_tables(int type, void *tables)
{
    const grid *g = find_grid(type);
    uint32_t *at = tables, *steps = at + 2 * g->points;
    lists_so_far lists = {(uint16_t *)((uint8_t *)steps + step_bytes(g)), 0};
    coordinates points;
    spread(g, &points);
    for (int number = 0; number < g->points; number++) {
        uint8_t level[MAX_GROUP], distance[MAX_SIZE];
        uint16_t nearest[MAX_SIZE], codes[MAX_SIZE];
        unpack_number(g, number, level);
        measure(g, &points, level, distance);
        const int count = nearest_points(g, distance, nearest);
        for (int k = 0; k < count; k++)
            codes[k] = g->codes[nearest[k]];
        const int length = distance[nearest[0]] == 0 ? 0 : count;
        if (step_bytes(g))
            steps[number] = steps_of(g, level, codes, length);
        if (length == 0) {
            at[number] = at[g->points + number] = put_list(&lists, codes, 1, 0);
            lists.codes[lists.end - 1] = nearest[0];
            continue;
        }
        at[number] = at[g->points + number] = put_list(&lists, codes, count, count);
        const int left = drop_dominated(g, level, codes, count);
        if (left < count)
            at[g->points + number] = put_list(&lists, codes, left, left);
    }
    return 2 * (int64_t)g->points * 4 + step_bytes(g) + (int64_t)lists.end * 2;
}
