/* Rows into cache: conversion to f32 a tile at a time, and the transposed tiles that the searches work on.
 *
 * Blocks are taken from the flattened rows. In a tile, lane j of row i is element i of sub-block j, so that
 * each lane runs the scalar algorithm over its own sub-block. Lanes past the last block are zero and dead. */

enum { TILE_ROWS = 32 };

typedef struct {
    _Alignas(64) float x[TILE_ROWS][LANES]; /* values */
    _Alignas(64) float w[TILE_ROWS][LANES]; /* their weights in the error to minimise */
} tile;

static const int source_bytes[] = {[FORGE_F32] = 4, [FORGE_F16] = 2, [FORGE_BF16] = 2};

INLINE int64_t element_count(const forge_request *request) { return request->nrows * request->n_per_row; }

/* How many lanes the next tile fills when `left` (at least 1) are left. */
INLINE int lanes_in_use(int64_t left) { return LANES == 1 || left >= LANES ? LANES : (int)left; }

enum { FINITE_RUN = 32 };

/* Without infinity and NaN, which are looked for first, one lane's conversion takes half as long. */
INLINE bool widen_finite_f16(const uint8_t *restrict src, float *restrict out)
{
    int16_t greatest = 0;
    for (int i = 0; i < FINITE_RUN; i++) {
        const int16_t magnitude = (int16_t)(load_u16(src + 2 * i) & 0x7fff);
        greatest = greatest > magnitude ? greatest : magnitude;
    }
    if (greatest >= 0x7c00)
        return false;
    for (int i = 0; i < FINITE_RUN; i++)
        out[i] = finite_f16_to_f32(load_u16(src + 2 * i));
    return true;
}

INLINE void widen_f16(const uint8_t *restrict src, int64_t count, float *restrict out)
{
    int64_t i = 0;
    while (H_LANES == 1 && i + FINITE_RUN <= count && widen_finite_f16(src + 2 * i, out + i))
        i += FINITE_RUN;
    for (; i + H_LANES <= count; i += H_LANES)
        h_store(out + i, h_load_f16(src + 2 * i));
    for (; i < count; i++)
        out[i] = f16_to_f32(load_u16(src + 2 * i));
}

INLINE void widen_bf16(const uint8_t *restrict src, int64_t count, float *restrict out)
{
    int64_t i = 0;
    for (; i + H_LANES <= count; i += H_LANES)
        h_store(out + i, h_load_bf16(src + 2 * i));
    for (; i < count; i++)
        out[i] = bf16_to_f32(load_u16(src + 2 * i));
}

/* Elements [first, first + count) as f32. */
INLINE void load_elements(const forge_request *request, int64_t first, int count, float *restrict out)
{
    const uint8_t *src = request->data + first * source_bytes[request->source];
    if (request->source == FORGE_F32)
        memcpy(out, src, (size_t)count * 4);
    else if (request->source == FORGE_F16)
        widen_f16(src, count, out);
    else
        widen_bf16(src, count, out);
}

/* The same without a copy where the source is f32 already. */
INLINE const float *view_elements(const forge_request *request, int64_t first, int count, float *buffer)
{
    const uint8_t *src = request->data + first * source_bytes[request->source];
    if (request->source == FORGE_F32 && (uintptr_t)src % _Alignof(float) == 0)
        return (const float *)(const void *)src;
    load_elements(request, first, count, buffer);
    return buffer;
}

/* Asks for elements that the next tiles will be made of: a search takes so long, and a tile is so much of a
 * page, that the hardware's prefetcher forgets where it was. */
INLINE void prefetch_elements(const forge_request *request, int64_t first, int64_t count)
{
    const int bytes = source_bytes[request->source];
    const int64_t end = element_count(request) * bytes, stop = (first + count) * bytes;
    for (int64_t at = first * bytes; at < (stop < end ? stop : end); at += 64)
        PREFETCH(request->data + at);
}

/* LANES rows of n floats, one after the other, into columns. */
INLINE void transpose(const float *src, int n, float (*out)[LANES])
{
    for (int lane = 0; lane < LANES; lane += H_LANES)
        for (int i = 0; i < n; i += H_LANES)
            h_transpose(src + lane * n + i, n, &out[i][lane], LANES);
}

/* Up to LANES sub-blocks of n values, from sub-block `first` of the flattened rows, into columns of x. */
INLINE void load_values(const forge_request *request, int64_t first, int live, int n, float (*x)[LANES])
{
    _Alignas(64) float buffer[LANES * TILE_ROWS];
    if (live == LANES) {
        transpose(view_elements(request, first * n, LANES * n, buffer), n, x);
        return;
    }
    memset(buffer, 0, sizeof buffer);
    load_elements(request, first * n, live * n, buffer);
    transpose(buffer, n, x);
}

/* The same for sub-blocks base + index[0], base + index[1] ... */
INLINE void gather_values(const forge_request *request, int64_t base, const int *index, int live, int n,
                          float (*x)[LANES])
{
    _Alignas(64) float buffer[LANES * TILE_ROWS];
    for (int j = 0; j < live; j++)
        load_elements(request, (base + index[j]) * n, n, buffer + j * n);
    memset(buffer + live * n, 0, (size_t)(LANES - live) * (size_t)n * sizeof(float));
    transpose(buffer, n, x);
}

/* The importance of the same values. */
INLINE void load_importance(const forge_request *request, int64_t first, int live, int n, float (*w)[LANES])
{
    _Alignas(64) float buffer[LANES * TILE_ROWS];
    for (int j = 0; j < live; j++)
        memcpy(buffer + j * n, request->importance + (first + j) * n % request->n_per_row,
               (size_t)n * sizeof(float));
    memset(buffer + live * n, 0, (size_t)(LANES - live) * (size_t)n * sizeof(float));
    transpose(buffer, n, w);
}

/* ---- weights from importance ---- */

/* factor * (sum of squares) / length for each of up to LANES segments, from segment `first` of the flattened
 * rows. */
INLINE void variance(const forge_request *request, int64_t length, int64_t first, int live, float factor,
                     float *out)
{
    _Alignas(64) float buffer[LANES * TILE_ROWS], x[TILE_ROWS][LANES];
    vf sum = v_set(0.0f);
    memset(buffer, 0, sizeof buffer);
    for (int64_t column = 0; column < length; column += TILE_ROWS) {
        for (int j = 0; j < live; j++)
            load_elements(request, (first + j) * length + column, TILE_ROWS, buffer + j * TILE_ROWS);
        transpose(buffer, TILE_ROWS, x);
        for (int i = 0; i < TILE_ROWS; i++)
            sum = v_add(sum, v_mul(v_load(x[i]), v_load(x[i])));
    }
    v_store(out, v_div(v_mul(v_set(factor), sum), v_set((float)length)));
}

/* Importance times sqrt(variance + x^2), for sub-blocks from `first` of the flattened rows; the variance is
 * that of the sub-block's segment, of `per_segment` sub-blocks, and sub-block `first` is number `at` from
 * segment 0. */
INLINE void load_weights(const forge_request *request, int64_t first, int live, int n, const float *variances,
                         int64_t at, int64_t per_segment, tile *t)
{
    _Alignas(64) float lane_variance[LANES] = {0};
    for (int j = 0; j < live; j++)
        lane_variance[j] = variances[(at + j) / per_segment];
    load_importance(request, first, live, n, t->w);
    for (int i = 0; i < n; i++) {
        const vf x = v_load(t->x[i]), spread = v_sqrt(v_add(v_load(lane_variance), v_mul(x, x)));
        v_store(t->w[i], v_mul(v_load(t->w[i]), spread));
    }
}
