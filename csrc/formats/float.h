/* F32, F16 and BF16: plain conversion, as half.h does it. */

INLINE void convert_rows(const forge_rows *rows, uint8_t *dst, int bytes, void (*store)(void *, hf),
                         void (*store_one)(void *, float))
{
    enum { CHUNK = 512 };
    const int64_t total = element_count(rows);
    for (int64_t first = 0; first < total; first += CHUNK) {
        _Alignas(64) float buffer[CHUNK];
        const int count = total - first < CHUNK ? (int)(total - first) : CHUNK;
        const float *x = view_elements(rows, first, count, buffer);
        int i = 0;
        for (; i + H_LANES <= count; i += H_LANES)
            store(dst + bytes * i, h_load(x + i));
        for (; i < count; i++)
            store_one(dst + bytes * i, x[i]);
        dst += bytes * count;
    }
}

INLINE void store_one_f16(void *p, float x)
{
    const uint16_t h = f32_to_f16(x);
    memcpy(p, &h, sizeof h);
}

INLINE void store_one_bf16(void *p, float x)
{
    const uint16_t h = f32_to_bf16(x);
    memcpy(p, &h, sizeof h);
}

static void quantize_f32(const forge_rows *rows, uint8_t *dst)
{
    enum { CHUNK = 512 };
    const int64_t total = element_count(rows);
    for (int64_t first = 0; first < total; first += CHUNK) {
        _Alignas(64) float buffer[CHUNK];
        const int count = total - first < CHUNK ? (int)(total - first) : CHUNK;
        load_elements(rows, first, count, buffer);
        memcpy(dst + 4 * first, buffer, (size_t)count * 4);
    }
}

static void quantize_f16(const forge_rows *rows, uint8_t *dst)
{
    if (rows->source == FORGE_F16) /* the reference copies: even a NaN keeps its bits */
        memcpy(dst, rows->data, (size_t)element_count(rows) * 2);
    else
        convert_rows(rows, dst, 2, h_store_f16, store_one_f16);
}

static void quantize_bf16(const forge_rows *rows, uint8_t *dst)
{
    convert_rows(rows, dst, 2, h_store_bf16, store_one_bf16);
}

static void dequantize_f32(const uint8_t *src, float *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * 4);
}

INLINE void widen(enum forge_source source, const uint8_t *src, float *dst, int64_t n)
{
    enum { CHUNK = 1 << 20 };
    const forge_rows rows = {.data = src, .nrows = 1, .n_per_row = n, .source = source};
    for (int64_t first = 0; first < n; first += CHUNK)
        load_elements(&rows, first, n - first < CHUNK ? (int)(n - first) : CHUNK, dst + first);
}

static void dequantize_f16(const uint8_t *src, float *dst, int64_t n)
{
    widen(FORGE_F16, src, dst, n);
}

static void dequantize_bf16(const uint8_t *src, float *dst, int64_t n)
{
    widen(FORGE_BF16, src, dst, n);
}
