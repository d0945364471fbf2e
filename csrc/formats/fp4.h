/* MXFP4 and NVFP4: 4-bit floats (E2M1) with 8-bit float scales. Importance plays no part.
 *
 * The code of a value is that of the nearest float, the first of equals in ggml's order, where zero comes
 * before all. Source: quantize_row_mxfp4_ref, quantize_row_nvfp4_ref and their dequantize_row in
 * ggml-quants.c; ggml_e8m0_to_fp32_half, ggml_fp32_to_ue4m3 and ggml_ue4m3_to_fp32 in ggml-impl.h. */

enum { BLOCK_NVFP4 = 64, SUB_NVFP4 = 16 };

/* Twice the values, so that they are integers; scales are halved instead. */
static const float fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* ---- scales ---- */

/* Half of 2^(e - 127). */
INLINE float half_e8m0(uint8_t e) { return bits_float(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23); }

/* Of 1 <= bits < 2^24. */
INLINE int highest_bit(uint32_t bits) { return (int)(float_bits((float)bits) >> 23) - 127; }

/* floor(log2f(x)) for finite x > 0. The logarithm rounded to a float is the next integer k when x is less
 * than ln 2 half ulps of k below 2^k: with |k| in [2^p, 2^(p + 1)), up to 88 * 2^(p - 7) steps of 2^-24. */
INLINE int floor_log2(float x)
{
    const uint32_t small = float_bits(x) < 0x00800000u ? 24 : 0;
    const uint32_t bits = float_bits(small ? x * 0x1p24f : x);
    const int exponent = (int)(bits >> 23) - 127 - (int)small, next = exponent + 1;
    const uint32_t below = 0x00800000u - (bits & 0x007fffffu);
    const int magnitude = next > 0 ? next - 1 : -next;
    const uint32_t rounds_up = magnitude ? 88u >> (7 - highest_bit((uint32_t)magnitude)) : 0;
    return below <= rounds_up ? next : exponent;
}

/* Wraps for x below 2^-125, and is 0 for infinity: as ggml's conversion does. */
INLINE uint8_t e8m0_of_magnitude(float amax)
{
    return (uint8_t)(amax > 0.0f && amax < INFINITY ? floor_log2(amax) - 2 + 127 : 0);
}

/* Half of a float of 4 bits of exponent and 3 of mantissa; 0x7f counts as 0. */
INLINE float half_ue4m3(uint8_t u)
{
    const int exponent = u >> 3 & 15, mantissa = u & 7;
    if (u == 0 || u == 0x7f)
        return 0.0f;
    return exponent ? bits_float((uint32_t)(exponent - 8 + 127) << 23 | (uint32_t)mantissa << 20)
                    : (float)mantissa * 0x1p-10f;
}

/* Rounds halves up; from 248 on it is 448, the greatest. */
INLINE uint8_t f32_to_ue4m3(float x)
{
    if (!(x > 0.0f))
        return 0;
    x = x > 448.0f ? 448.0f : x;
    const int exponent = (int)(float_bits(x) >> 23) - 127 + 7;
    if (exponent <= 0) {
        const int mantissa = (int)(x * 512.0f + 0.5f);
        return (uint8_t)(mantissa > 7 ? 7 : mantissa);
    }
    const uint32_t rounded = ((float_bits(x) >> 19 & 15) + 1) >> 1;
    const uint32_t code = ((uint32_t)exponent << 3) + rounded;
    return (uint8_t)(code >= 0x78 ? 0x7e : code);
}

/* ---- values ---- */

/* Halfway between neighbours, times d: from above it, the greater is nearer. A product with d that overflows
 * is never the nearest. The thresholds of a binary search, step by step. */
typedef struct {
    float half_way[4], low2, high2, middle;
} fp4_thresholds;

INLINE fp4_thresholds thresholds_fp4(float d)
{
    fp4_thresholds t = {{0.5f * d, 2.5f * d, 5.0f * d, 10.0f * d}, 1.5f * d, 7.0f * d, 3.5f * d};
    t.half_way[3] = 12.0f * d < INFINITY ? t.half_way[3] : INFINITY;
    t.high2 = 8.0f * d < INFINITY ? t.high2 : INFINITY;
    return t;
}

/* The thresholds tell the nearest value, in floats too, while errors can be told apart. */
INLINE bool tells_apart(float amax, float d) { return amax < 4096.0f * d && amax < INFINITY; }

INLINE hi h_nearest_fp4(hf x, const fp4_thresholds *t)
{
    const hf magnitude = h_abs(x);
    const hm above = h_lt(h_set(t->middle), magnitude);
    const hm above2 = h_lt(h_select(above, h_set(t->high2), h_set(t->low2)), magnitude);
    const hi pair = hi_add(hi_where(above, 2), hi_where(above2, 1));
    const hm above4 = h_lt(h_lookup4(t->half_way, pair), magnitude);
    const hi code = hi_add(hi_add(pair, pair), hi_where(above4, 1));
    const hm negative = hm_and(h_lt(x, h_set(0.0f)), h_lt(h_set(t->half_way[0]), magnitude));
    return hi_add(code, hi_where(negative, 8));
}

/* By trying them all. */
INLINE int nearest_fp4(float x, float d)
{
    int best = 0;
    float least = fabsf(fp4_values[0] * d - x);
    for (int k = 1; k < 16; k++) {
        const float error = fabsf(fp4_values[k] * d - x);
        if (error < least) {
            least = error;
            best = k;
        }
    }
    return best;
}

INLINE void pack_fp4(values x, int n, float amax, float d, uint8_t *qs)
{
    _Alignas(64) uint8_t level[BLOCK];
    const fp4_thresholds t = thresholds_fp4(d);
    const bool fast = tells_apart(amax, d);
    if (fast && H_LANES > 1 && n / 2 >= H_LANES) {
        for (int j = 0; j < n / 2; j += H_LANES) {
            const hi low = h_nearest_fp4(load_value(x, j), &t),
                     high = h_nearest_fp4(load_value(x, n / 2 + j), &t);
            hi_store_u8(qs + j, hi_or(low, hi_shl(high, 4)));
        }
        return;
    }
    if (fast)
        for (int i = 0; i < n; i += H_LANES)
            hi_store_u8(level + i, h_nearest_fp4(load_value(x, i), &t));
    else
        for (int i = 0; i < n; i++)
            level[i] = (uint8_t)nearest_fp4(scalar_value(x, i), d);
    for (int j = 0; j < n / 2; j++)
        qs[j] = (uint8_t)(level[j] | level[j + n / 2] << 4);
}

/* Blocks of `subs` scales, then the levels of as many sub-blocks of n values. */
INLINE void quantize_fp4(enum forge_source source, const forge_request *request, uint8_t *dst, int subs,
                         int n, uint8_t (*scale_code)(float amax), float (*half_scale)(uint8_t code))
{
    const int64_t total = element_count(request) / n;
    for (int64_t first = 0; first < total; first += GROUP) {
        _Alignas(64) float buffer[GROUP * BLOCK], amax[GROUP];
        const int count = total - first < GROUP ? (int)(total - first) : GROUP;
        const values x = view_values(request, source, first * n, count * n, buffer);
        group_magnitudes(x, count, n, magnitude_of_numbers, amax);
        for (int b = 0; b < count; b += subs, dst += subs + subs * n / 2)
            for (int k = 0; k < subs; k++) {
                dst[k] = scale_code(amax[b + k]);
                pack_fp4(skip(x, (b + k) * n), n, amax[b + k], half_scale(dst[k]), dst + subs + k * n / 2);
            }
    }
}

INLINE uint8_t nvfp4_code(float amax) { return f32_to_ue4m3(amax / 6.0f); }

static void quantize_mxfp4(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_fp4, request->source, request, dst, 1, BLOCK, e8m0_of_magnitude, half_e8m0);
}

static void quantize_nvfp4(const forge_request *request, uint8_t *dst)
{
    FOR_SOURCE(quantize_fp4, request->source, request, dst, 4, SUB_NVFP4, nvfp4_code, half_ue4m3);
}

/* ---- back to floats ---- */

static void dequantize_mxfp4(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_mxfp4 *in = (const block_mxfp4 *)src; n > 0; n -= BLOCK, in++, dst += BLOCK)
        dequantize_table(in->qs, half_e8m0(in->e), fp4_values, BLOCK / 2, dst);
}

static void dequantize_nvfp4(const uint8_t *restrict src, float *restrict dst, int64_t n)
{
    for (const block_nvfp4 *in = (const block_nvfp4 *)src; n > 0; n -= BLOCK_NVFP4, in++) {
        uint64_t code[8];
        for (int j = 0; j < 4; j++) {
            uint64_t both;
            memcpy(&both, in->qs + 8 * j, sizeof both);
            code[2 * j] = both & BYTES(15);
            code[2 * j + 1] = both >> 4 & BYTES(15);
        }
        for (int j = 0; j < 4; j++, dst += SUB_NVFP4) {
            const float d = half_ue4m3(in->d[j]);
            for (int i = 0; i < SUB_NVFP4; i += H_LANES) {
                const hi level = hi_load_u8((const uint8_t *)(code + 2 * j) + i);
                h_store(dst + i, h_mul(h_lookup16(fp4_values, level), h_set(d)));
            }
        }
    }
}
