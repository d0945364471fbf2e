/* The kernels' public functions: rows of floats to packed ggml blocks and back.
 *
 * Nothing here allocates, starts threads or fails: the caller has validated the arguments. `type` is a
 * tensor type's id in GGUF; rows are contiguous; no pointer needs any alignment. cffi reads the lines
 * between the two markers as they are, so they hold no preprocessor line. */
#ifndef FORGE_H
#define FORGE_H

#include <stdint.h>

/* cffi: begin */

enum forge_source { FORGE_F32, FORGE_F16, FORGE_BF16 };

/* The name of backend `index`, from the most portable (0) to the fastest; NULL past the last one. */
const char *forge_backend_name(int index);
/* Sub-blocks that the backend works on at once. */
int forge_backend_lanes(int index);
/* Whether this CPU and its operating system can run it. */
int forge_backend_usable(int index);

int forge_can_quantize(int type);
int forge_can_dequantize(int type);

/* Whether the type can't be quantized to without weights. */
int forge_needs_weights(int type);

/* Bytes of the tables that quantizing to the type reads; 0 for most. */
int64_t forge_tables_size(int type);
/* Fills them, once for all calls: aligned to 4 bytes. Gives their size. */
int64_t forge_make_tables(int type, void *tables);

/* Packs `nrows` rows of `n_per_row` values. `weights` has one importance for each column, or is NULL;
 * `tables` is NULL if their size is 0. */
void forge_quantize(int backend, int type, enum forge_source source, const void *src, const float *weights,
                    const void *tables, void *dst, int64_t nrows, int64_t n_per_row);
/* Unpacks `n` values, a whole number of blocks. */
void forge_dequantize(int backend, int type, const void *src, float *dst, int64_t n);

/* cffi: end */

#endif
