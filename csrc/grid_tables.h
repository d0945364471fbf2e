/* Where a group of values goes that rounds to a point off its grid: to one of the nearest points on it.
 *
 * The reference lists for each point off the grid those of the nearest few distances, and searches the list
 * for the least error. The tables hold these lists for every point that rounding can give. They are made
 * once, in the caller's memory, and never change. Source: iq2xs_init_impl, iq3xs_init_impl in ggml-quants.c.
 */
#ifndef FORGE_GRID_TABLES_H
#define FORGE_GRID_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint16_t *codes; /* the points, packed, by index */
    int size;              /* how many */
    int group, bits;       /* levels in a point, bits of each when packed */
    int levels;            /* levels that rounding gives: 0 .. levels - 1 */
    int distances;         /* distances in a list: the nearest ones that occur */
    int points;            /* levels to the power of group */
    int words;             /* length of grid_tables.lists */
} grid;

enum { LIST_STEP = 16 }; /* a list may be read in vectors of up to so many codes */

/* A point's number is the sum of level[i] * levels^i. Its list begins at lists + list_start(at[number]): the
 * codes in the reference's order, and copies of the first up to a multiple of LIST_STEP. That of a point on
 * the grid has length 0, its code LIST_STEP - 1 times, and its index. The list at[points + number] leaves out
 * what can't be nearest to values that round to this very point: a code that is as far or farther in every
 * coordinate than one before it. */
typedef struct {
    const uint32_t *at;
    const uint32_t *steps; /* NULL for grids with lists of several distances */
    const uint16_t *lists;
} grid_tables;

/* In a word of grid_tables.at: the list's length above, its place below. */
enum { LENGTH_SHIFT = 20, PLACE_MASK = (1 << LENGTH_SHIFT) - 1 };
static inline int list_length(uint32_t entry) { return (int)(entry >> LENGTH_SHIFT); }
static inline uint32_t list_start(uint32_t entry) { return (entry & PLACE_MASK) * LIST_STEP; }

/* The index of a point on the grid. */
static inline uint16_t grid_point(const grid_tables *tables, int number)
{
    return tables->lists[list_start(tables->at[number]) + LIST_STEP - 1];
}

/* In a word of grid_tables.steps: in the low half the point; above, two bits for each coordinate that tell
 * whether the list has the point one level up from it, and down. All of them say that it has others as well.
 */
enum { STEP_SHIFT = 16 };
#define OTHER_STEPS 0xffff0000u

/* The grid that quantizing to this type searches, or NULL. */
const grid *find_grid(int type);

static inline grid_tables view_tables(const grid *g, const void *tables)
{
    const uint32_t *at = (const uint32_t *)tables;
    const uint32_t *steps = at + 2 * g->points, *end = steps + (g->distances == 1 ? g->points : 0);
    return (grid_tables){at, g->distances == 1 ? steps : NULL, (const uint16_t *)end};
}

#endif
