/* The tables that say where a group of values goes whose levels are no point of its grid: to one of the
 * nearest points that are.
 *
 * The reference lists, for each point off the grid, the grid's points at the few nearest distances, and
 * searches that list for the least error. These tables hold such a list for every point that rounding can
 * give. They are made once, in the caller's memory, and never change. Source: iq2xs_init_impl,
 * iq3xs_init_impl in ggml-quants.c. */
#ifndef FORGE_GRID_TABLES_H
#define FORGE_GRID_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint16_t *codes; /* the packed points, by index */
    int size;              /* the number of points */
    int group, bits;       /* levels in a point; bits of each level in a packed point */
    int levels;            /* rounding gives a level 0 .. levels - 1 */
    int distances;         /* how many different distances, the nearest ones, a list holds */
    int points;            /* levels to the power of group: how many points rounding can give */
    int words;             /* the length of grid_tables.lists */
} grid;

enum { LIST_STEP = 16 }; /* a list may be read in vectors of up to LIST_STEP codes */

/* A point's number is the sum of level[i] * levels^i.
 *
 * The list of a point off the grid begins at lists + list_start(at[number]). It has the codes in the
 * reference's order, and then copies of the first code up to a multiple of LIST_STEP. A point on the grid
 * has a list of length 0: its own code LIST_STEP - 1 times, and then its index.
 *
 * at[points + number] is the entry of a shorter list, for values that surely round to this very point. It
 * leaves out every code that is as far away as an earlier code in every coordinate, or farther, because
 * such a code cannot win. */
typedef struct {
    const uint32_t *at;
    const uint32_t *steps; /* NULL for grids whose lists have several distances */
    const uint16_t *lists;
} grid_tables;

/* A word of grid_tables.at holds the length of a list above LENGTH_SHIFT and its place below. */
enum { LENGTH_SHIFT = 20, PLACE_MASK = (1 << LENGTH_SHIFT) - 1 };
static inline int list_length(uint32_t entry) { return (int)(entry >> LENGTH_SHIFT); }
static inline uint32_t list_start(uint32_t entry) { return (entry & PLACE_MASK) * LIST_STEP; }

/* The index of a point that is on the grid. */
static inline uint16_t grid_point(const grid_tables *tables, int number)
{
    return tables->lists[list_start(tables->at[number]) + LIST_STEP - 1];
}

/* A word of grid_tables.steps holds the packed point in its low half. Above are two bits for each
 * coordinate: whether the list has the point one level up in that coordinate, and the one a level down. If
 * all these bits are set, the list has other points as well. */
enum { STEP_SHIFT = 16 };
#define OTHER_STEPS 0xffff0000u

/* The grid that quantizing to this type searches; NULL if it searches none. */
const grid *find_grid(int type);

static inline grid_tables view_tables(const grid *g, const void *tables)
{
    const uint32_t *at = (const uint32_t *)tables;
    const uint32_t *steps = at + 2 * g->points, *end = steps + (g->distances == 1 ? g->points : 0);
    return (grid_tables){at, g->distances == 1 ? steps : NULL, (const uint16_t *)end};
}

#endif
