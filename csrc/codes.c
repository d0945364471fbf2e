/* Weights of quantized checkpoints: small codes in streams of bits, and the numbers that codes stand for.
 *
 * Memory is what these functions wait for, so they are written once, in plain C, for all backends. */
#include "codes.h"

#include "base.h"

/* Codes are unpacked by units of 32: as many words as a code has bits. */
enum { UNIT = 32, MOST_BITS = 8 };
/* Streams that are unpacked side by side where neighbours in memory belong to different streams: a line of
 * the cache is then used whole, whichever way it is read or written. */
enum { TILE_STREAMS = 64 };

/* Loads the words of one unit. Bytes past the end of the stream count as zero. */
INLINE void load_unit(const forge_codes *r, int64_t stream, int64_t unit, uint32_t *words)
{
    const uint8_t *from = r->data + stream * r->stream_step;
    for (int i = 0; i < r->bits; i++) {
        const int64_t word = unit * r->bits + i, left = r->stream_bytes - word * 4;
        words[i] = 0;
        if (left >= 4)
            memcpy(&words[i], from + word * r->word_step, 4);
        else if (left > 0)
            memcpy(&words[i], from + word * r->word_step, (size_t)left);
    }
}

INLINE void split_unit(const uint32_t *words, const int bits, uint8_t *codes)
{
    const uint32_t mask = (1u << bits) - 1;
    UNROLLED for (int i = 0; i < UNIT; i++)
    {
        const int word = i * bits / 32, shift = i * bits % 32;
        uint32_t code = words[word] >> shift;
        if (shift + bits > 32)
            code |= words[word + 1] << (32 - shift);
        codes[i] = (uint8_t)(code & mask);
    }
}

/* Eight codes of 4 bits at a time: the halves of a word move apart, then the quarters, then the eighths. */
INLINE void split_nibbles(const uint32_t *words, uint8_t *codes)
{
    for (int i = 0; i < 4; i++) {
        uint64_t x = words[i];
        x = (x | x << 16) & 0x0000ffff0000ffffu;
        x = (x | x << 8) & 0x00ff00ff00ff00ffu;
        x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
        memcpy(codes + 8 * i, &x, 8);
    }
}

INLINE void unpack_unit(const forge_codes *r, int64_t stream, int64_t unit, const int bits, uint8_t *codes)
{
    uint32_t words[MOST_BITS];
    load_unit(r, stream, unit, words);
    if (bits == 4)
        split_nibbles(words, codes);
    else
        split_unit(words, bits, codes);
    if (r->order != NULL) {
        uint8_t stored[UNIT];
        memcpy(stored, codes, UNIT);
        for (int i = 0; i < UNIT; i++)
            codes[i] = stored[r->order[i]];
    }
}

/* Streams become rows of `dst`. */
INLINE void unpack_to_rows(const forge_codes *r, const int bits, uint8_t *dst)
{
    /* Streams whose words lie apart are neighbours word by word, and are taken together. */
    const int64_t together = r->word_step == 4 ? 1 : TILE_STREAMS;
    for (int64_t first = 0; first < r->n_streams; first += together) {
        const int64_t stop = first + together < r->n_streams ? first + together : r->n_streams;
        for (int64_t done = 0; done < r->n_codes; done += UNIT) {
            for (int64_t stream = first; stream < stop; stream++) {
                uint8_t *to = dst + stream * r->dst_step + done;
                if (r->n_codes - done >= UNIT) {
                    unpack_unit(r, stream, done / UNIT, bits, to);
                } else {
                    uint8_t codes[UNIT];
                    unpack_unit(r, stream, done / UNIT, bits, codes);
                    memcpy(to, codes, (size_t)(r->n_codes - done));
                }
            }
        }
    }
}

/* Streams become columns of `dst`. */
INLINE void unpack_to_columns(const forge_codes *r, const int bits, uint8_t *dst)
{
    uint8_t tile[TILE_STREAMS][UNIT], column[TILE_STREAMS];
    for (int64_t first = 0; first < r->n_streams; first += TILE_STREAMS) {
        const int64_t left = r->n_streams - first, n = left < TILE_STREAMS ? left : TILE_STREAMS;
        for (int64_t done = 0; done < r->n_codes; done += UNIT) {
            for (int64_t i = 0; i < n; i++)
                unpack_unit(r, first + i, done / UNIT, bits, tile[i]);
            for (int64_t code = 0; code < UNIT && done + code < r->n_codes; code++) {
                for (int64_t i = 0; i < n; i++)
                    column[i] = tile[i][code];
                memcpy(dst + (done + code) * r->dst_step + first, column, (size_t)n);
            }
        }
    }
}

INLINE void unpack(const forge_codes *r, const int bits, uint8_t *dst)
{
    if (r->to_columns)
        unpack_to_columns(r, bits, dst);
    else
        unpack_to_rows(r, bits, dst);
}

void unpack_codes(const forge_codes *r, uint8_t *dst)
{
    switch (r->bits) { /* so that the compiler knows every shift */
    case 1:
        unpack(r, 1, dst);
        break;
    case 2:
        unpack(r, 2, dst);
        break;
    case 3:
        unpack(r, 3, dst);
        break;
    case 4:
        unpack(r, 4, dst);
        break;
    case 5:
        unpack(r, 5, dst);
        break;
    case 6:
        unpack(r, 6, dst);
        break;
    case 7:
        unpack(r, 7, dst);
        break;
    case 8:
        unpack(r, 8, dst);
        break;
    }
}

void scale_codes(const forge_scaled *r, float *dst)
{
    for (int64_t row = 0; row < r->n_rows; row++) {
        const uint8_t *codes = r->codes == NULL ? NULL : r->codes + row * r->n_columns;
        const int64_t at = r->scale_rows[row] * r->n_groups;
        float *to = dst + row * r->n_columns;
        for (int64_t run = 0; run < r->n_runs; run++) {
            const int64_t group = at + r->groups[run], start = r->starts[run], stop = r->starts[run + 1];
            /* These two change no number, nor the sign of a zero: x - (+0) and x + (-0). */
            const float zero = r->zeros == NULL ? 0.0f : r->zeros[group];
            const float shift = r->shifts == NULL ? -0.0f : r->shifts[group];
            const float scale = r->scales[group];
            if (codes == NULL) {
                for (int64_t i = start; i < stop; i++)
                    to[i] = (to[i] - zero) * scale + shift;
            } else {
                for (int64_t i = start; i < stop; i++)
                    to[i] = (r->levels[codes[i]] - zero) * scale + shift;
            }
        }
    }
}
