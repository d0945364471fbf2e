/* The k-quants with a scale alone: Q3_K, Q6_K.
 *
 * Source: quantize_row_q3_K_ref, quantize_row_q6_K_ref, quantize_row_q3_K_impl and quantize_row_q6_K_impl in
 * ggml-quants.c. */

INLINE void search_symmetric_batch(const forge_request *request, int64_t first, int live, int nmax,
                                   bool spread, symmetric_found *out)
{
    float block_variance[LANES] = {0};
    if (request->importance && spread)
        variance(request, SUPER, first, live, 2.0f, block_variance);
    for (int at = 0; at < live * SUBS; at += LANES) {
        const int count = lanes_in_use(live * SUBS - at);
        tile t;
        load_values(request, first * SUBS + at, count, 16, t.x);
        if (request->importance && spread)
            load_weights(request, first * SUBS + at, count, 16, block_variance, at, SUBS, &t);
        else if (request->importance)
            load_importance(request, first * SUBS + at, count, 16, t.w);
        else
            weigh_square(16, &t);
        prefetch_elements(request, first * SUPER + (at + LANES) * SUBS, LANES * SUBS);
        search_symmetric(16, nmax, &t, out, at);
    }
}

/* The sub-block scale of greatest magnitude. */
INLINE float extreme_scale(const float *scale)
{
    float max = 0.0f, amax = 0.0f;
    for (int j = 0; j < SUBS; j++)
        if (fabsf(scale[j]) > amax) {
            amax = fabsf(scale[j]);
            max = scale[j];
        }
    return max;
}

/* 16 scales of 6 bits: low nibbles of j and j + 8 in byte j; high two bits of j, at 2 (j / 4), in byte 8 + j
 * % 4. */
INLINE void pack_scales_q3_K(const uint8_t *code, uint8_t *out)
{
    memset(out, 0, 12);
    for (int j = 0; j < SUBS; j++) {
        out[j % 8] |= (uint8_t)((code[j] & 15) << (j < 8 ? 0 : 4));
        out[8 + j % 4] |= (uint8_t)(code[j] >> 4 << 2 * (j / 4));
    }
}

INLINE void store_q3_K(const uint8_t *code, uint16_t d, const uint8_t *level, uint8_t *dst)
{
    block_q3_K *out = (block_q3_K *)dst;
    pack_high_bits(level, 2, out->hmask);
    pack_two_bits(level, out->qs);
    pack_scales_q3_K(code, out->scales);
    out->d = d;
}

/* The scales of a batch's sub-blocks, by descent. Most sub-blocks keep the levels that they start from; the
 * rest are gathered into dense lanes and searched. */
INLINE void search_descent_batch(const forge_request *request, int64_t first, int live, float *scale)
{
    int unsettled[FOUND], left = 0;
    for (int sub = 0; sub < live * SUBS; sub += LANES) {
        descent_state s;
        const int used = lanes_in_use(live * SUBS - sub);
        load_values(request, first * SUBS + sub, used, SUBS, s.x);
        prefetch_elements(request, first * SUPER + (sub + 4 * LANES) * SUBS, LANES * SUBS);
        descent_begin(4, &s);
        if (LANES == 1) /* one lane gains nothing by gathering */
            search_descent(4, &s, 1);
        v_store(scale + sub, descent_scale(&s));
        const uint32_t settled = LANES == 1 ? 1 : vm_bits(descent_settled(4, &s));
        for (int j = 0; j < used; j++) {
            unsettled[left] = sub + j;
            left += !(settled >> j & 1);
        }
    }
    for (int at = 0; at < left;) {
        descent_state s[DESCENTS];
        int count = 0, lanes = 0;
        for (; count < DESCENTS && at + lanes < left; count++) {
            const int used = lanes_in_use(left - at - lanes);
            gather_values(request, first * SUBS, unsettled + at + lanes, used, SUBS, s[count].x);
            descent_begin(4, &s[count]);
            lanes += used;
        }
        search_descent(4, s, count);
        for (int k = 0; k < count; k++) {
            _Alignas(64) float found[LANES];
            v_store(found, descent_scale(&s[k]));
            for (int j = 0; j < LANES && at < left; j++, at++)
                scale[unsettled[at]] = found[j];
        }
    }
}

/* The levels that a descent leaves a sub-block, plus 4; 0 for zeros. */
INLINE void descent_levels(const float *x, uint8_t *level)
{
    descent_state s;
    memset(s.x, 0, sizeof s.x);
    for (int i = 0; i < SUBS; i++)
        s.x[i][0] = x[i];
    descent_begin(4, &s);
    search_descent(4, &s, 1);
    for (int i = 0; i < SUBS; i++)
        level[i] = vm_bits(s.empty) & 1 ? 0 : (uint8_t)(s.level[i][0] + 4.0f);
}

INLINE void quantize_q3_K_plain(const forge_request *request, uint8_t *dst, int64_t first, int live)
{
    _Alignas(64) float scale[FOUND];
    search_descent_batch(request, first, live, scale);
    for (int block = 0; block < live; block++) {
        _Alignas(64) float buffer[SUPER];
        _Alignas(64) uint8_t level[SUPER];
        uint8_t code[SUBS];
        const float *x = view_elements(request, (first + block) * SUPER, SUPER, buffer);
        const float max = extreme_scale(scale + block * SUBS), iscale = -32.0f / max;
        const uint16_t d_all = f32_to_f16(max != 0.0f ? 1 / iscale : 0.0f);
        const float d_stored = f16_to_f32(d_all);
        for (int j = 0; j < SUBS; j++) {
            const int8_t l = (int8_t)nearest_int(iscale * scale[block * SUBS + j]);
            code[j] = max != 0.0f ? (uint8_t)((l < -32 ? -32 : l > 31 ? 31 : l) + 32) : 0;
            const float d = d_stored * (float)(code[j] - 32);
            if (d != 0.0f)
                pack_levels(x + 16 * j, 16, 0.0f, d, -4, 3, level + 16 * j);
            else
                descent_levels(x + 16 * j, level + 16 * j);
        }
        store_q3_K(code, d_all, level, dst + (first + block) * (int64_t)sizeof(block_q3_K));
    }
}

INLINE void quantize_q3_K_by_importance(const forge_request *request, uint8_t *dst, int64_t first, int live)
{
    symmetric_found found;
    search_symmetric_batch(request, first, live, 4, true, &found);
    tile t;
    memset(&t, 0, sizeof t);
    for (int sub = 0; sub < live * SUBS; sub++) {
        t.x[sub % SUBS][sub / SUBS] = found.scale[sub];
        t.w[sub % SUBS][sub / SUBS] = found.sum_w[sub];
    }
    symmetric_found scales;
    search_symmetric(SUBS, 32, &t, &scales, 0);
    for (int block = 0; block < live; block++) {
        _Alignas(64) float buffer[SUPER];
        _Alignas(64) uint8_t level[SUPER], code[SUBS];
        const float *x = view_elements(request, (first + block) * SUPER, SUPER, buffer);
        pack_found(found.scale + block * SUBS, SUBS, scales.iscale[block], 0.0f, -32, 31,
                   (int)scales.bias[block], code);
        const uint16_t d_all = f32_to_f16(scales.scale[block]);
        const float d_stored = f16_to_f32(d_all);
        for (int j = 0; j < SUBS; j++) {
            const int sub = block * SUBS + j;
            const float d = d_stored * (float)(code[j] - 32);
            if (d != 0.0f)
                pack_levels(x + 16 * j, 16, 0.0f, d, -4, 3, level + 16 * j);
            else
                pack_found(x + 16 * j, 16, found.iscale[sub], 0.0f, -4, 3, (int)found.bias[sub],
                           level + 16 * j);
        }
        store_q3_K(code, d_all, level, dst + (first + block) * (int64_t)sizeof(block_q3_K));
    }
}

static void quantize_q3_K(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / SUPER;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        if (request->importance)
            quantize_q3_K_by_importance(request, dst, first, live);
        else
            quantize_q3_K_plain(request, dst, first, live);
    }
}

INLINE void pack_q6_K(const uint8_t *level, block_q6_K *out)
{
    for (int h = 0; h < 2; h++, level += 128)
        for (int l = 0; l < 32; l++) {
            const uint8_t q0 = level[l], q1 = level[l + 32], q2 = level[l + 64], q3 = level[l + 96];
            out->ql[64 * h + l] = (uint8_t)((q0 & 15) | (q2 & 15) << 4);
            out->ql[64 * h + l + 32] = (uint8_t)((q1 & 15) | (q3 & 15) << 4);
            out->qh[32 * h + l] = (uint8_t)(q0 >> 4 | q1 >> 4 << 2 | q2 >> 4 << 4 | q3 >> 4 << 6);
        }
}

static void quantize_q6_K(const forge_request *request, uint8_t *dst)
{
    const int64_t blocks = element_count(request) / SUPER;
    for (int64_t first = 0; first < blocks; first += LANES) {
        const int live = lanes_in_use(blocks - first);
        symmetric_found found;
        search_symmetric_batch(request, first, live, 32, false, &found);
        for (int block = 0; block < live; block++) {
            block_q6_K *out = (block_q6_K *)(dst + (first + block) * (int64_t)sizeof(block_q6_K));
            const float *scale = found.scale + block * SUBS, max = extreme_scale(scale);
            if (fabsf(max) < TINY) {
                memset(out, 0, sizeof *out);
                continue;
            }
            _Alignas(64) float buffer[SUPER];
            _Alignas(64) uint8_t level[SUPER];
            const float *x = view_elements(request, (first + block) * SUPER, SUPER, buffer);
            const float iscale = -128.0f / max;
            out->d = f32_to_f16(1 / iscale);
            for (int j = 0; j < SUBS; j++) {
                const int sub = block * SUBS + j, l = nearest_int(iscale * scale[j]);
                out->scales[j] = (int8_t)(l < 127 ? l : 127);
                const float d = f16_to_f32(out->d) * out->scales[j];
                if (d != 0.0f)
                    pack_levels(x + 16 * j, 16, 0.0f, d, -32, 31, level + 16 * j);
                else
                    pack_found(x + 16 * j, 16, found.iscale[sub], 0.0f, -32, 31, (int)found.bias[sub],
                               level + 16 * j);
            }
            pack_q6_K(level, out);
        }
    }
}
