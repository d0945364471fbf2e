/* The kernels' public functions: rows of floats to packed ggml blocks and back.
 *
 * Nothing here allocates, starts threads or fails: the caller has validated the arguments. `type` is a
 * tensor type's id in GGUF; rows are contiguous; no pointer needs any alignment. cffi reads the lines
 * between the two markers as they are, so they hold no preprocessor line. */
#ifndef FORGE_H
#define FORGE_H

#include <stdint.h>

/* cffi: begin */

/* What the values to quantize are stored as. */
enum forge_source { FORGE_F32, FORGE_F16, FORGE_BF16 };

/* How scales and levels are chosen. FORGE_SEARCH_REFERENCE chooses those that ggml's quantizer chooses. */
enum forge_search { FORGE_SEARCH_REFERENCE = 0 };

/* Rows to quantize, and what to make of them. */
typedef struct {
    const uint8_t *data;      /* `nrows` rows of `n_per_row` values, one after the other */
    const float *importance;  /* one for each column, none negative; or NULL */
    const void *tables;       /* what forge_make_tables made for the type; NULL if their size is 0 */
    int64_t nrows, n_per_row; /* a row is a whole number of blocks */
    enum forge_source source;
    enum forge_search search;
    int type; /* the type to quantize to */
} forge_request;

/* The name of backend `index`, from the most portable (0) to the fastest; NULL past the last one. */
const char *forge_backend_name(int index);
/* Sub-blocks that the backend works on at once. */
int forge_backend_lanes(int index);
/* Whether this CPU and its operating system can run it. */
int forge_backend_usable(int index);

int forge_can_quantize(int type);
int forge_can_dequantize(int type);

/* Whether the type can't be quantized to without importance. */
int forge_needs_importance(int type);

/* Bytes of the tables that quantizing to the type reads; 0 for most. */
int64_t forge_tables_size(int type);
/* Fills them, once for all calls: aligned to 4 bytes. Gives their size. */
int64_t forge_make_tables(int type, void *tables);

/* Packs the rows of the request into `dst`. */
void forge_quantize(int backend, const forge_request *request, void *dst);
/* Unpacks `n` values, a whole number of blocks. */
void forge_dequantize(int backend, int type, const void *src, float *dst, int64_t n);

/* cffi: end */

#endif
