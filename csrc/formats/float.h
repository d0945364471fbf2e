/* F32, F16 and BF16: plain conversion, as half.h does it. */

enum { CHUNK = 512 }; /* elements converted at a time, through a buffer in cache */

typedef void convert_chunk(const float *x, int count, uint16_t *half);

INLINE void convert_rows(const forge_request *request, uint8_t *dst, convert_chunk *convert)
{
    const int64_t total = element_count(request);
    for (int64_t first = 0; first < total; first += CHUNK) {
        _Alignas(64) float buffer[CHUNK];
        _Alignas(64) uint16_t half[CHUNK];
        const int count = total - first < CHUNK ? (int)(total - first) : CHUNK;
        convert(view_elements(request, first, count, buffer), count, half);
        memcpy(dst + 2 * first, half, (size_t)count * 2);
    }
}

INLINE void chunk_to_f16(const float *x, int count, uint16_t *half)
{
    int i = 0;
    for (; i + H_LANES <= count; i += H_LANES)
        h_store_f16(half + i, h_load(x + i));
    for (; i < count; i++)
        half[i] = f32_to_f16(x[i]);
}

INLINE void chunk_to_bf16(const float *x, int count, uint16_t *half)
{
    int i = 0;
    for (; i + H_LANES <= count; i += H_LANES)
        h_store_bf16(half + i, h_load(x + i));
    for (; i < count; i++)
        half[i] = f32_to_bf16(x[i]);
}

static void quantize_f32(const forge_request *request, uint8_t *dst)
{
    const int64_t total = element_count(request);
    if (request->source == FORGE_F32) {
        memcpy(dst, request->data, (size_t)total * 4);
        return;
    }
    for (int64_t first = 0; first < total; first += CHUNK) {
        _Alignas(64) float buffer[CHUNK];
        const int count = total - first < CHUNK ? (int)(total - first) : CHUNK;
        load_elements(request, first, count, buffer);
        memcpy(dst + 4 * first, buffer, (size_t)count * 4);
    }
}

static void quantize_f16(const forge_request *request, uint8_t *dst)
{
    if (request->source == FORGE_F16) /* the reference copies: even a NaN keeps its bits */
        memcpy(dst, request->data, (size_t)element_count(request) * 2);
    else
        convert_rows(request, dst, chunk_to_f16);
}

static void quantize_bf16(const forge_request *request, uint8_t *dst)
{
    convert_rows(request, dst, chunk_to_bf16);
}

static void dequantize_f32(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * 4);
}

static void dequantize_f16(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    widen_f16(src, n, dst);
}

static void dequantize_bf16(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    widen_bf16(src, n, dst);
}
