/* ggml's block layouts, as they lie in a GGUF file. Source: ggml-common.h of llama.cpp.
 *
 * Half-precision fields are bit patterns. The structs are packed to alignment 1, so that a block may lie
 * at any address. A comment behind a field says which bits of which byte belong to element i of the block,
 * and the comment behind a struct how an element's value x follows from its level q. */
#ifndef FORGE_BLOCKS_H
#define FORGE_BLOCKS_H

#include <stddef.h>
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
enum {
    TYPE_IQ2_XXS = 16,
    TYPE_IQ2_XS = 17,
    TYPE_IQ3_XXS = 18,
    TYPE_IQ1_S = 19,
    TYPE_IQ4_NL = 20,
    TYPE_IQ3_S = 21,
    TYPE_IQ2_S = 22,
    TYPE_IQ4_XS = 23,
    TYPE_IQ1_M = 29
};
enum { TYPE_TQ1_0 = 34, TYPE_TQ2_0 = 35, TYPE_MXFP4 = 39, TYPE_NVFP4 = 40, TYPE_Q1_0 = 41, TYPE_Q2_0 = 42 };
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

/* The i-quants. A group of 8 values (IQ1, IQ2) or 4 values (IQ3) is one point of a grid, and the block
 * stores the index of that point. */

typedef struct {
    uint16_t d;
    uint32_t qs[8]
               [2]; /* of each 32 elements: four indices of 8 bits; four signs of 7 bits, 4 bits of scale */
} block_iq2_xxs;    /* x = +- d * (scale + 1/2) / 4 * point */

typedef struct {
    uint16_t d;
    uint16_t qs[32];   /* of each 8 elements: 9 bits of index, 7 bits of signs */
    uint8_t scales[8]; /* of each 16 elements: a nibble */
} block_iq2_xs;        /* as block_iq2_xxs */

typedef struct {
    uint16_t d;
    uint8_t qs[32], signs[32]; /* of each 8 elements: 8 bits of index; a bit a sign */
    uint8_t qh[8];             /* group k: bits 2 (k % 4) and up of byte k / 4 are the index's high bits */
    uint8_t scales[8];
} block_iq2_s; /* as block_iq2_xxs */

typedef struct {
    uint16_t d;
    uint8_t qs[64];           /* of each 4 elements: the index */
    uint32_t signs_scales[8]; /* of each 32 elements: four signs of 7 bits, 4 bits of scale */
} block_iq3_xxs;              /* x = +- d * (scale + 1/2) / 2 * point */

typedef struct {
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8]; /* group k: bit k % 8 of byte k / 8 is the index's ninth bit */
    uint8_t signs[32];
    uint8_t scales[4]; /* of each 32 elements: a nibble */
} block_iq3_s;         /* x = +- d * (2 scale + 1) * point */

typedef struct {
    uint16_t d;
    uint8_t qs[32]; /* of each 8 elements: 8 bits of index */
    uint16_t qh[8]; /* of each 32: high 3 bits of four indices, 3 bits of scale, and the sign of the shift */
} block_iq1_s;      /* x = d * (2 scale + 1) * (point +- 1/8) */

typedef struct {
    uint8_t qs[32];
    uint8_t qh[16];     /* of each 16: for either group, high 3 bits of the index and the sign of the shift */
    uint16_t scales[4]; /* four scales of 3 bits; the high nibbles together are d */
} block_iq1_m;          /* as block_iq1_s */

typedef struct {
    uint16_t d;
    uint8_t qs[16]; /* as in block_q4_0 */
} block_iq4_nl;     /* x = d * value[q] */

typedef struct {
    uint16_t d;
    uint16_t scales_h;   /* high 2 bits of 8 scales */
    uint8_t scales_l[4]; /* their low nibbles */
    uint8_t qs[128];     /* of each 32 elements, as in block_q4_0 */
} block_iq4_xs;          /* x = d * (scale - 32) * value[q] */

/* Ternary and binary formats. */

typedef struct {
    uint8_t qs[48]; /* five elements a byte in base 3, see ternary.inc: i = 32 n + m < 160; then 16 n + m */
    uint8_t qh[4];  /* the last 16, four a byte */
    uint16_t d;
} block_tq1_0; /* x = d * (q - 1) */

typedef struct {
    uint8_t qs[64]; /* as in block_q2_K */
    uint16_t d;
} block_tq2_0; /* x = d * (q - 1) */

typedef struct {
    uint16_t d;
    uint8_t qs[16]; /* a bit an element */
} block_q1_0;       /* x = d or -d */

typedef struct {
    uint16_t d;
    uint8_t qs[16]; /* two bits an element */
} block_q2_0;       /* x = d * (q - 1) */

/* 4-bit floats (E2M1). */

typedef struct {
    uint8_t e;      /* the scale's exponent: E8M0 */
    uint8_t qs[16]; /* as in block_q4_0 */
} block_mxfp4;

typedef struct {
    uint8_t d[4];   /* the scales of each 16 elements: UE4M3 */
    uint8_t qs[32]; /* of each 16 elements, i < 8: low nibble of byte i; else high nibble of byte i - 8 */
} block_nvfp4;

#pragma pack(pop)

_Static_assert(sizeof(block_q4_0) == 18 && sizeof(block_q4_1) == 20, "4-bit legacy blocks");
_Static_assert(sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "5-bit legacy blocks");
_Static_assert(sizeof(block_q8_0) == 34, "8-bit legacy block");
_Static_assert(sizeof(block_q2_K) == 84 && sizeof(block_q3_K) == 110, "2- and 3-bit k-quants");
_Static_assert(sizeof(block_q4_K) == 144 && sizeof(block_q5_K) == 176, "4- and 5-bit k-quants");
_Static_assert(offsetof(block_q4_K, qs) == offsetof(block_q5_K, qh),
               "Q4_K and Q5_K begin with the same fields");
_Static_assert(sizeof(block_q6_K) == 210, "6-bit k-quant");
_Static_assert(sizeof(block_iq2_xxs) == 66 && sizeof(block_iq2_xs) == 74, "2-bit i-quants");
_Static_assert(sizeof(block_iq2_s) == 82, "2-bit i-quant");
_Static_assert(sizeof(block_iq3_xxs) == 98 && sizeof(block_iq3_s) == 110, "3-bit i-quants");
_Static_assert(sizeof(block_iq1_s) == 50 && sizeof(block_iq1_m) == 56, "1-bit i-quants");
_Static_assert(sizeof(block_iq4_nl) == 18 && sizeof(block_iq4_xs) == 136, "4-bit i-quants");
_Static_assert(sizeof(block_tq1_0) == 54 && sizeof(block_tq2_0) == 66, "ternary blocks");
_Static_assert(sizeof(block_q1_0) == 18 && sizeof(block_q2_0) == 18, "binary and 2-bit blocks");
_Static_assert(sizeof(block_mxfp4) == 17 && sizeof(block_nvfp4) == 36, "4-bit float blocks");

#endif
