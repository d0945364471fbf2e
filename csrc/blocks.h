/* ggml's block layouts, as they lie in a GGUF file. Source: ggml-common.h of llama.cpp.
 *
 * Half-precision fields are bit patterns. The structs are packed to alignment 1, so that a block may lie
 * at any address. Layout comments read "element i of a block -> bits of which byte". */
#ifndef FORGE_BLOCKS_H
#define FORGE_BLOCKS_H

#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blocks are written as they lie in memory: only little-endian machines are supported"
#endif

enum {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q4_1 = 3,
    TYPE_Q5_0 = 6,
    TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8
};
enum { TYPE_Q2_K = 10, TYPE_Q3_K = 11, TYPE_Q4_K = 12, TYPE_Q5_K = 13, TYPE_Q6_K = 14, TYPE_BF16 = 30 };
enum { TYPE_COUNT = 43 };

enum { BLOCK = 32, SUPER = 256 }; /* elements of a legacy block, of a k-quant super-block */

#pragma pack(push, 1)

typedef struct {
    uint16_t d;     /* scale */
    uint8_t qs[16]; /* i < 16: low nibble of byte i; else high nibble of byte i - 16 */
} block_q4_0;       /* x = d * (q - 8) */

typedef struct {
    uint16_t d, m;
    uint8_t qs[16];
} block_q4_1; /* x = d * q + m */

typedef struct {
    uint16_t d;
    uint8_t qh[4]; /* bit i: fifth bit of element i */
    uint8_t qs[16];
} block_q5_0; /* x = d * (q - 16) */

typedef struct {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
} block_q5_1; /* x = d * q + m */

typedef struct {
    uint16_t d;
    int8_t qs[32];
} block_q8_0; /* x = d * q */

typedef struct {
    uint8_t scales[16]; /* of each 16 elements: low nibble the scale, high nibble the minimum */
    uint8_t qs[64];     /* i = 128 h + 32 k + l: bits 2k, 2k + 1 of byte 32 h + l */
    uint16_t d, dmin;
} block_q2_K; /* x = d * scale * q - dmin * minimum */

typedef struct {
    uint8_t hmask[32];  /* i = 32 k + l: bit k of byte l is the third bit */
    uint8_t qs[64];     /* as in block_q2_K */
    uint8_t scales[12]; /* 16 scales of 6 bits, see pack_scales_q3_K */
    uint16_t d;
} block_q3_K; /* x = d * (scale - 32) * (q - 4) */

typedef struct {
    uint16_t d, dmin;
    uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits, see pack_scales_k4 */
    uint8_t qs[128];    /* i = 64 k + l: low nibble of byte 32 k + l for l < 32, else its high nibble */
} block_q4_K;           /* x = d * scale * q - dmin * minimum */

typedef struct {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32]; /* i = 32 k + l: bit k of byte l is the fifth bit */
    uint8_t qs[128];
} block_q5_K; /* x = d * scale * q - dmin * minimum */

typedef struct {
    uint8_t ql[128];   /* i = 128 h + 32 k + l: nibble k / 2 of byte 64 h + 32 (k % 2) + l */
    uint8_t qh[64];    /* the same i: bits 2k, 2k + 1 of byte 32 h + l */
    int8_t scales[16]; /* of each 16 elements */
    uint16_t d;
} block_q6_K; /* x = d * scale * (q - 32) */

#pragma pack(pop)

_Static_assert(sizeof(block_q4_0) == 18 && sizeof(block_q4_1) == 20, "4-bit legacy blocks");
_Static_assert(sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "5-bit legacy blocks");
_Static_assert(sizeof(block_q8_0) == 34, "8-bit legacy block");
_Static_assert(sizeof(block_q2_K) == 84 && sizeof(block_q3_K) == 110, "2- and 3-bit k-quants");
_Static_assert(sizeof(block_q4_K) == 144 && sizeof(block_q5_K) == 176, "4- and 5-bit k-quants");
_Static_assert(sizeof(block_q6_K) == 210, "6-bit k-quant");

#endif
