/* Values where they lie, for the formats without a search: half floats are converted as they are loaded, and
 * compared as integers, which takes a vector half as long.
 *
 * Kernels are made for each source type (FOR_SOURCE), so that `source` is a constant in them. */

typedef struct {
    const uint8_t *at;
    const float *wide; /* the same as floats; NULL if they are converted when loaded */
    enum forge_source source;
} values;

/* One lane finds its values converted: a loop of that alone is vectorised best. */
INLINE bool is_wide(enum forge_source source) { return source == FORGE_F32 || H_LANES == 1; }

INLINE values values_of(const float *x) { return (values){(const uint8_t *)x, x, FORGE_F32}; }

/* Elements from `first`; the buffer is for those that are converted, or not aligned. */
INLINE values view_values(const forge_request *request, enum forge_source source, int64_t first, int count,
                          float *buffer)
{
    if (source == FORGE_F32)
        return values_of(view_elements(request, first, count, buffer));
    if (is_wide(source))
        load_elements(request, first, count, buffer);
    return (values){request->data + 2 * first, is_wide(source) ? buffer : NULL, source};
}

/* Those from number `count`. */
INLINE values skip(values x, int count)
{
    const int bytes = x.source == FORGE_F32 ? 4 : 2;
    return (values){x.at + bytes * count, is_wide(x.source) ? x.wide + count : NULL, x.source};
}

/* Value i, and those after it in the other lanes. */
INLINE hf load_value(values x, int i)
{
    if (is_wide(x.source))
        return h_load(x.wide + i);
    return x.source == FORGE_F16 ? h_load_f16(x.at + 2 * i) : h_load_bf16(x.at + 2 * i);
}

INLINE float half_to_f32(uint16_t half, enum forge_source source)
{
    return source == FORGE_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

INLINE float scalar_value(values x, int i)
{
    return is_wide(x.source) ? x.wide[i] : half_to_f32(load_u16(x.at + 2 * i), x.source);
}

INLINE void widen_halves(const void *half, enum forge_source source, int count, float *out)
{
    if (source == FORGE_F16)
        widen_f16(half, count, out);
    else
        widen_bf16(half, count, out);
}

/* ---- extremes ---- */

/* Half floats are ordered as integers are, but for their sign, and but for NaN, which is beyond infinity. */
INLINE int half_infinity(enum forge_source source) { return source == FORGE_F16 ? 0x7c00 : 0x7f80; }

/* Where vectors are searched for an extreme, the first one is where that starts; one lane's loop is
 * vectorised best if it starts from a constant. */
enum { SECOND = S_LANES == 1 ? 0 : S_LANES };

/* Of n half floats: a multiple of 16. */
INLINE int16_t greatest_half(values x, int n)
{
    hs greatest = SECOND ? hs_magnitude(hs_load(x.at)) : hs_set(0);
    for (int i = SECOND; i < n; i += S_LANES)
        greatest = hs_max(greatest, hs_magnitude(hs_load(x.at + 2 * i)));
    return hs_greatest(greatest);
}

/* How the greatest magnitude of n values is found where there may be a NaN. */
typedef float find_magnitude(values x, int n);

INLINE float magnitude(values x, int n, find_magnitude *find)
{
    if (x.source != FORGE_F32) {
        const int16_t greatest = greatest_half(x, n);
        if (greatest <= half_infinity(x.source))
            return half_to_f32((uint16_t)greatest, x.source);
    }
    return find(x, n);
}

/* By MAX(amax, |x|): a NaN makes it forget what came before. */
INLINE float magnitude_since_nan(values x, int n)
{
    hf greatest = h_set(0.0f);
    hm ordered = h_eq(greatest, greatest);
    for (int i = 0; i < n; i += H_LANES) {
        const hf value = load_value(x, i);
        ordered = hm_and(ordered, h_eq(value, value));
        greatest = h_max(h_abs(value), greatest);
    }
    float amax = h_greatest(greatest);
    if (hm_any(hm_not(ordered))) {
        amax = 0.0f;
        for (int i = 0; i < n; i++)
            amax = amax > fabsf(scalar_value(x, i)) ? amax : fabsf(scalar_value(x, i));
    }
    return amax;
}

/* A NaN is passed over. */
INLINE float magnitude_of_numbers(values x, int n)
{
    hf greatest = h_set(0.0f);
    for (int i = 0; i < n; i += H_LANES)
        greatest = h_max(h_abs(load_value(x, i)), greatest);
    return h_greatest(greatest);
}

enum { GROUP = 16 }; /* blocks whose scales are computed together */

/* Of each block of n values. */
INLINE void group_magnitudes(values x, int blocks, int n, find_magnitude *find, float *out)
{
    const bool few = H_LANES == 1 && n <= 16; /* then floats are no slower */
    if (x.source != FORGE_F32 && !few) {
        _Alignas(64) int16_t half[GROUP] = {0};
        int16_t most = 0;
        for (int b = 0; b < blocks; b++)
            half[b] = greatest_half(skip(x, b * n), n);
        for (int b = 0; b < GROUP; b++)
            most = most > half[b] ? most : half[b];
        widen_halves(half, x.source, GROUP, out);
        if (most <= half_infinity(x.source))
            return;
    }
    for (int b = 0; b < blocks; b++)
        out[b] = find(skip(x, b * n), n);
}

/* Of each block of n half floats; false if not all are finite. */
INLINE bool half_extremes(values x, int blocks, int n, float *out_least, float *out_greatest)
{
    _Alignas(64) int16_t least[GROUP] = {0}, greatest[GROUP] = {0};
    for (int b = 0; b < blocks; b++) {
        hs low = SECOND ? hs_order(hs_load(x.at + 2 * b * n)) : hs_set(INT16_MAX);
        hs high = SECOND ? low : hs_set(INT16_MIN);
        for (int i = SECOND; i < n; i += S_LANES) {
            const hs order = hs_order(hs_load(x.at + 2 * (b * n + i)));
            low = hs_min(low, order);
            high = hs_max(high, order);
        }
        least[b] = hs_least(low);
        greatest[b] = hs_greatest(high);
    }
    int16_t bottom = 0, top = 0;
    for (int b = 0; b < GROUP; b++) {
        bottom = bottom < least[b] ? bottom : least[b];
        top = top > greatest[b] ? top : greatest[b];
        least[b] = (int16_t)(least[b] ^ (least[b] >> 15 & 0x7fff));
        greatest[b] = (int16_t)(greatest[b] ^ (greatest[b] >> 15 & 0x7fff));
    }
    widen_halves(least, x.source, GROUP, out_least);
    widen_halves(greatest, x.source, GROUP, out_greatest);
    return bottom > ~half_infinity(x.source) && top < half_infinity(x.source);
}

/* Calls kernel(source, ...) with a constant for the source. */
#define FOR_SOURCE(kernel, source, ...)                                                                      \
    do {                                                                                                     \
        if ((source) == FORGE_F32)                                                                           \
            kernel(FORGE_F32, __VA_ARGS__);                                                                  \
        else if ((source) == FORGE_F16)                                                                      \
            kernel(FORGE_F16, __VA_ARGS__);                                                                  \
        else                                                                                                 \
            kernel(FORGE_BF16, __VA_ARGS__);                                                                 \
    } while (0)
