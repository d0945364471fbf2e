/* The formats of blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * Without importance the scale follows from the extremes of the block; with it, it is searched for.
 * Source: quantize_row_q*_ref, quantize_row_q*_impl and dequantize_row_q* in ggml-quants.c. */

/* ---- the extremes of a block ---- */

typedef struct {
    float least, greatest;
} extremes;

/* Independent partial results, so that even one lane is done several at a time. */
enum { PARTS = H_LANES == 1 ? 4 : 2 };

/* NaN is passed over, as it is by a scalar `if (x < min) min = x`. */
INLINE extremes block_extremes(const float *x)
{
    hf least[PARTS], greatest[PARTS];
    for (int k = 0; k < PARTS; k++) {
        least[k] = h_set(FLT_MAX);
        greatest[k] = h_set(-FLT_MAX);
    }
    for (int i = 0; i < BLOCK; i += PARTS * H_LANES)
        for (int k = 0; k < PARTS; k++) {
            const hf value = h_load(x + i + k * H_LANES);
            least[k] = h_min(value, least[k]);
            greatest[k] = h_max(value, greatest[k]);
        }
    for (int k = 1; k < PARTS; k++) {
        least[0] = h_min(least[k], least[0]);
        greatest[0] = h_max(greatest[k], greatest[0]);
    }
    return (extremes){h_least(least[0]), h_greatest(greatest[0])};
}

/* The value of greatest magnitude, the first of equals; 0 for a block of zeros. */
INLINE float block_extreme(const float *x)
{
    const extremes e = block_extremes(x);
    if (e.greatest > -e.least)
        return e.greatest;
    if (e.greatest < -e.least && e.least <= e.greatest)
        return e.least;
    for (int i = 0; i < BLOCK; i++)
        if (x[i] != 0.0f && fabsf(x[i]) == e.greatest)
            return x[i];
    return 0.0f;
}

/* Extremes whose zeros have the sign that the scalar loop would have left: it keeps the first zero. */
INLINE extremes block_range(const float *x)
{
    extremes e = block_extremes(x);
    e.greatest += 0.0f;
    for (int i = 0; e.least == 0.0f && i < BLOCK; i++)
        if (x[i] == 0.0f) {
            e.least = x[i];
            break;
        }
    return e;
}

INLINE float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/* ---- packing ---- */

/* Levels trunc((x - min) * id + half), at most `top`, in the low byte: 32 levels into `level`. */
INLINE void truncate_levels(const float *x, float min, float id, float half, int top, uint8_t *level)
{
    for (int i = 0; i < BLOCK; i += H_LANES) {
        const hf scaled = h_mul(h_sub(h_load(x + i), h_set(min)), h_set(id));
        hi_store_u8(level + i, hi_min(h_trunc(h_add(scaled, h_set(half))), hi_set(top)));
    }
}

INLINE void pack_half_nibbles(const uint8_t *level, uint8_t *qs)
{
    for (int j = 0; j < BLOCK / 2; j++)
        qs[j] = (uint8_t)((level[j] & 15) | (level[j + BLOCK / 2] & 15) << 4);
}

INLINE void pack_fifth_bits(const uint8_t *level, uint8_t *qh)
{
    uint32_t bits = 0;
    for (int j = 0; j < BLOCK; j++)
        bits |= (uint32_t)(level[j] >> 4 & 1) << j;
    memcpy(qh, &bits, sizeof bits);
}

INLINE void store_q4_0(uint16_t d, uint16_t m, const uint8_t *level, uint8_t *dst)
{
    block_q4_0 *out = (block_q4_0 *)dst;
    (void)m;
    out->d = d;
    pack_half_nibbles(level, out->qs);
}

INLINE void store_q4_1(uint16_t d, uint16_t m, const uint8_t *level, uint8_t *dst)
{
    block_q4_1 *out = (block_q4_1 *)dst;
    out->d = d;
    out->m = m;
    pack_half_nibbles(level, out->qs);
}

INLINE void store_q5_0(uint16_t d, uint16_t m, const uint8_t *level, uint8_t *dst)
{
    block_q5_0 *out = (block_q5_0 *)dst;
    (void)m;
    out->d = d;
    pack_half_nibbles(level, out->qs);
    pack_fifth_bits(level, out->qh);
}

INLINE void store_q5_1(uint16_t d, uint16_t m, const uint8_t *level, uint8_t *dst)
{
    block_q5_1 *out = (block_q5_1 *)dst;
    out->d = d;
    out->m = m;
    pack_half_nibbles(level, out->qs);
    pack_fifth_bits(level, out->qh);
}

typedef void store_block(uint16_t d, uint16_t m, const uint8_t *level, uint8_t *dst);

/* ---- without importance ---- */

/* Q4_0, Q5_0: the extreme value becomes level 0, so that x = d * (level - middle). */
INLINE void quantize_centred(const forge_rows *rows, uint8_t *dst, int middle, int bytes, store_block *store)
{
    const int64_t total = element_count(rows);
    for (int64_t first = 0; first < total; first += BLOCK, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        _Alignas(64) uint8_t level[BLOCK];
        const float *x = view_elements(rows, first, BLOCK, buffer);
        const float d = block_extreme(x) / (float)-middle;
        truncate_levels(x, 0.0f, inverse(d), (float)middle + 0.5f, 2 * middle - 1, level);
        store(f32_to_f16(d), 0, level, dst);
    }
}

/* Q4_1, Q5_1: x = d * level + least. */
INLINE void quantize_ranged(const forge_rows *rows, uint8_t *dst, int top, int bytes, store_block *store)
{
    const int64_t total = element_count(rows);
    for (int64_t first = 0; first < total; first += BLOCK, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        _Alignas(64) uint8_t level[BLOCK];
        const float *x = view_elements(rows, first, BLOCK, buffer);
        const extremes e = block_range(x);
        const float d = (e.greatest - e.least) / (float)top;
        truncate_levels(x, e.least, inverse(d), 0.5f, top, level);
        store(f32_to_f16(d), f32_to_f16(e.least), level, dst);
    }
}

/* The greatest magnitude, by MAX(amax, |x|): a NaN makes it forget what came before. */
INLINE float row_magnitude(const float *x, int n)
{
    hf greatest = h_set(0.0f);
    hm ordered = h_eq(greatest, greatest);
    for (int i = 0; i < n; i += H_LANES) {
        const hf value = h_load(x + i);
        ordered = hm_and(ordered, h_eq(value, value));
        greatest = h_max(h_abs(value), greatest);
    }
    float amax = h_greatest(greatest);
    if (hm_any(hm_not(ordered))) {
        amax = 0.0f;
        for (int i = 0; i < n; i++)
            amax = amax > fabsf(x[i]) ? amax : fabsf(x[i]);
    }
    return amax;
}

static void quantize_q8_0(const forge_rows *rows, uint8_t *dst)
{
    const int64_t total = element_count(rows);
    for (int64_t first = 0; first < total; first += BLOCK, dst += sizeof(block_q8_0)) {
        _Alignas(64) float buffer[BLOCK];
        block_q8_0 *out = (block_q8_0 *)dst;
        const float *x = view_elements(rows, first, BLOCK, buffer);
        const float d = row_magnitude(x, BLOCK) / 127.0f;
        const hf id = h_set(inverse(d));
        out->d = f32_to_f16(d);
        for (int i = 0; i < BLOCK; i += H_LANES)
            hi_store_u8(out->qs + i, h_trunc(h_away_from_zero(h_mul(h_load(x + i), id))));
    }
}

/* ---- with importance ---- */

/* Packs `live` blocks from block `first` of the flattened rows, by what was found for them. */
INLINE void pack_centred(const forge_rows *rows, int64_t first, int live, const symmetric_found *found,
                         int nmax, int bytes, store_block *store, uint8_t *dst)
{
    for (int j = 0; j < live; j++, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        _Alignas(64) uint8_t level[BLOCK];
        const float *x = view_elements(rows, (first + j) * BLOCK, BLOCK, buffer);
        pack_found(x, BLOCK, found->iscale[j], 0.0f, -nmax, nmax - 1, (int)found->bias[j], level);
        store(f32_to_f16(found->scale[j]), 0, level, dst);
    }
}

INLINE void pack_ranged(const forge_rows *rows, int64_t first, int live, const affine_found *found, int nmax,
                        int bytes, store_block *store, uint8_t *dst)
{
    for (int j = 0; j < live; j++, dst += bytes) {
        _Alignas(64) float buffer[BLOCK];
        _Alignas(64) uint8_t level[BLOCK];
        const float *x = view_elements(rows, (first + j) * BLOCK, BLOCK, buffer);
        pack_found(x, BLOCK, found->iscale[j], found->base[j], 0, nmax, 0, level);
        store(f32_to_f16(found->scale[j]), f32_to_f16(-found->minimum[j]), level, dst);
    }
}

/* nmax levels from -nmax (centred), or from 0 with a minimum. */
INLINE void quantize_weighted(const forge_rows *rows, uint8_t *dst, int nmax, bool centred, int bytes,
                              store_block *store)
{
    const affine_search ranged = {.n = BLOCK, .nmax = nmax, .first = -0.9f, .step = 0.05f, .steps = 36};
    const int64_t per_row = rows->n_per_row / BLOCK;
    for (int64_t row = 0; row < rows->nrows; row += LANES) {
        const int live_rows = lanes_in_use(rows->nrows - row);
        float row_variance[LANES] = {0};
        variance(rows, rows->n_per_row, row, live_rows, 1.0f, row_variance);
        for (int64_t at = 0; at < live_rows * per_row;) {
            const int64_t first = row * per_row + at;
            tile t[TILES];
            int tiles = 0, live = 0;
            for (; tiles < (centred ? 1 : TILES) && at < live_rows * per_row; tiles++) {
                const int count = lanes_in_use(live_rows * per_row - at);
                load_values(rows, first + live, count, BLOCK, t[tiles].x);
                load_weights(rows, first + live, count, BLOCK, row_variance, at, per_row, &t[tiles]);
                live += count;
                at += count;
            }
            if (centred) {
                symmetric_found found;
                search_symmetric(BLOCK, nmax, t, &found, 0);
                pack_centred(rows, first, live, &found, nmax, bytes, store, dst + first * bytes);
            } else {
                affine_found found;
                search_affine(&ranged, t, tiles, &found, 0);
                pack_ranged(rows, first, live, &found, nmax, bytes, store, dst + first * bytes);
            }
        }
    }
}

static void quantize_q4_0(const forge_rows *rows, uint8_t *dst)
{
    if (rows->weights)
        quantize_weighted(rows, dst, 8, true, sizeof(block_q4_0), store_q4_0);
    else
        quantize_centred(rows, dst, 8, sizeof(block_q4_0), store_q4_0);
}

static void quantize_q4_1(const forge_rows *rows, uint8_t *dst)
{
    if (rows->weights)
        quantize_weighted(rows, dst, 15, false, sizeof(block_q4_1), store_q4_1);
    else
        quantize_ranged(rows, dst, 15, sizeof(block_q4_1), store_q4_1);
}

static void quantize_q5_0(const forge_rows *rows, uint8_t *dst)
{
    if (rows->weights)
        quantize_weighted(rows, dst, 16, true, sizeof(block_q5_0), store_q5_0);
    else
        quantize_centred(rows, dst, 16, sizeof(block_q5_0), store_q5_0);
}

static void quantize_q5_1(const forge_rows *rows, uint8_t *dst)
{
    if (rows->weights)
        quantize_weighted(rows, dst, 31, false, sizeof(block_q5_1), store_q5_1);
    else
        quantize_ranged(rows, dst, 31, sizeof(block_q5_1), store_q5_1);
}

/* ---- back to floats ---- */

INLINE void dequantize_nibbles(const uint8_t *qs, float d, float m, int middle, float *y)
{
    for (int high = 0; high < 2; high++)
        for (int i = 0; i < BLOCK / 2; i += H_LANES) {
            const hi l = hi_and(hi_shr(hi_load_u8(qs + i), 4 * high), hi_set(15));
            const hf scaled = h_mul(hi_float(hi_sub(l, hi_set(middle))), h_set(d));
            h_store(y + 16 * high + i, middle ? scaled : h_add(scaled, h_set(m)));
        }
}

INLINE void dequantize_five_bits(const uint8_t *qs, const uint8_t *qh, float d, float m, int middle, float *y)
{
    uint32_t bits;
    uint8_t fifth[BLOCK];
    memcpy(&bits, qh, sizeof bits);
    for (int i = 0; i < BLOCK; i++)
        fifth[i] = (uint8_t)(bits >> i << 4 & 16);
    for (int high = 0; high < 2; high++)
        for (int i = 0; i < BLOCK / 2; i += H_LANES) {
            const hi four = hi_and(hi_shr(hi_load_u8(qs + i), 4 * high), hi_set(15));
            const hi l = hi_or(four, hi_load_u8(fifth + 16 * high + i));
            const hf scaled = h_mul(hi_float(hi_sub(l, hi_set(middle))), h_set(d));
            h_store(y + 16 * high + i, middle ? scaled : h_add(scaled, h_set(m)));
        }
}

static void dequantize_q4_0(const uint8_t *src, float *dst, int64_t n)
{
    for (const block_q4_0 *in = (const block_q4_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_nibbles(in->qs, f16_to_f32(in->d), 0.0f, 8, dst);
}

static void dequantize_q4_1(const uint8_t *src, float *dst, int64_t n)
{
    for (const block_q4_1 *in = (const block_q4_1 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_nibbles(in->qs, f16_to_f32(in->d), f16_to_f32(in->m), 0, dst);
}

static void dequantize_q5_0(const uint8_t *src, float *dst, int64_t n)
{
    for (const block_q5_0 *in = (const block_q5_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_five_bits(in->qs, in->qh, f16_to_f32(in->d), 0.0f, 16, dst);
}

static void dequantize_q5_1(const uint8_t *src, float *dst, int64_t n)
{
    for (const block_q5_1 *in = (const block_q5_1 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_five_bits(in->qs, in->qh, f16_to_f32(in->d), f16_to_f32(in->m), 0, dst);
}

static void dequantize_q8_0(const uint8_t *src, float *dst, int64_t n)
{
    for (const block_q8_0 *in = (const block_q8_0 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        for (int i = 0; i < BLOCK; i += H_LANES)
            h_store(dst + i, h_mul(hi_float(hi_load_i8(in->qs + i)), h_set(f16_to_f32(in->d))));
}
