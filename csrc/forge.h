/* The kernels' public functions: they pack rows of floats into ggml blocks, and unpack them.
 *
 * No function allocates memory, starts threads or fails: the caller has checked the arguments. `type` is a
 * tensor type's id in GGUF. Rows are contiguous. No pointer needs any alignment, except that tables are
 * aligned to 4 bytes. cffi reads the lines between the two markers as they are, so they may hold no
 * preprocessor line. */
#ifndef FORGE_H
#define FORGE_H

#include <stdint.h>

/* cffi: begin */

/* The type that the values to quantize are stored in. */
enum forge_source { FORGE_F32, FORGE_F16, FORGE_BF16 };

/* How scales and levels are chosen. FORGE_SEARCH_REFERENCE chooses exactly what ggml's quantizer chooses. */
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

/* Codes of 1 to 8 bits in streams of bits, the lowest first. A code may lie across two words of a stream. */
typedef struct {
    const uint8_t *data; /* the first word of the first stream: 32 bits, little-endian */
    int64_t n_streams, stream_step, word_step; /* bytes from one stream to the next, and from word to word */
    int64_t stream_bytes; /* of a stream; what is missing in its last word counts as zero */
    int64_t n_codes;      /* of a stream */
    int64_t dst_step;     /* bytes from one row of the result to the next */
    const uint8_t *order; /* of each 32 codes, which one each place of the result gets; NULL for 0 to 31 */
    int bits;
    int to_columns; /* whether a stream becomes a column of the result, and not a row */
} forge_codes;

/* Codes, and what their values are made of: (level - zero) * scale + shift, each operation rounded once. The
 * columns of a row are in runs that share their numbers. */
typedef struct {
    const uint8_t *codes; /* `n_rows` rows of `n_columns`; NULL if the result holds the levels already */
    const float *levels;  /* of each of the 256 codes */
    const float *scales, *zeros, *shifts; /* rows of `n_groups`; NULL for no zeros or shifts */
    const int64_t *scale_rows;            /* for each row, which row of scales, zeros and shifts is its own */
    const int64_t *starts;                /* the first column of each run, then `n_columns` */
    const int64_t *groups;                /* of each run: the column of its scale, zero and shift */
    int64_t n_rows, n_columns, n_groups, n_runs;
} forge_scaled;

/* The name of backend `index`, from the most portable (0) to the fastest; NULL past the last one. */
const char *forge_backend_name(int index);
/* How many sub-blocks the backend works on at once. */
int forge_backend_lanes(int index);
/* Whether this CPU and its operating system can run the backend. */
int forge_backend_usable(int index);

int forge_can_quantize(int type);
int forge_can_dequantize(int type);

/* Whether ggml refuses to quantize to the type without importance. */
int forge_needs_importance(int type);

/* The size in bytes of the tables that quantizing to the type reads; 0 for most types. */
int64_t forge_tables_size(int type);
/* Fills `tables`, and returns their size. The same tables serve all calls. */
int64_t forge_make_tables(int type, void *tables);

/* Packs the rows of the request into `dst`. Returns whether these rows and the packed ones are both finite.
 */
int forge_quantize(int backend, const forge_request *request, void *dst);
/* Unpacks `n` values, a whole number of blocks, into floats. */
void forge_dequantize(int backend, int type, const void *src, float *dst, int64_t n);
/* Whether rows of `n` values are finite: whether no scale of a block, or no value of a type without blocks,
 * is infinite or NaN. */
int forge_is_finite(int backend, int type, const void *src, int64_t n);

/* Unpacks the codes of all streams into bytes. */
void forge_unpack_codes(const forge_codes *request, uint8_t *dst);
/* Fills `n_rows` rows with the values of codes. */
void forge_scale_codes(const forge_scaled *request, float *dst);

/* B (n_rows, n_ranks) times A (n_ranks, n_columns). No two of the arrays overlap. */
void forge_product(int backend, const float *b, const float *a, float *dst, int64_t n_rows, int64_t n_ranks,
                   int64_t n_columns);

/* exp(x) of `n` floats, with the bits of torch's. */
void forge_exp(const float *x, float *dst, int64_t n);

/* cffi: end */

#endif
