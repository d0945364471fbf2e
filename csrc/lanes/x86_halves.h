/* The 16-bit lanes of AVX2 and AVX-512: sixteen of them. scalar.h explains the operations. */
#ifndef FORGE_LANES_X86_HALVES_H
#define FORGE_LANES_X86_HALVES_H

#if defined(__x86_64__)
#include <immintrin.h>

#include "../base.h"

#define S_LANES 16

typedef __m256i hs;

INLINE hs hs_set(int16_t x) { return _mm256_set1_epi16(x); }
INLINE hs hs_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE hs hs_magnitude(hs x) { return _mm256_and_si256(x, hs_set(0x7fff)); }
INLINE hs hs_order(hs x)
{
    return _mm256_xor_si256(x, _mm256_and_si256(_mm256_srai_epi16(x, 15), hs_set(0x7fff)));
}
INLINE hs hs_min(hs a, hs b) { return _mm256_min_epi16(a, b); }
INLINE hs hs_max(hs a, hs b) { return _mm256_max_epi16(a, b); }
/* phminposuw finds the least of unsigned numbers, so the order of signed ones is mapped to that of
 * unsigned ones. */
INLINE int16_t hs_least(hs x)
{
    const __m128i m = _mm_min_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return (int16_t)(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(m, _mm_set1_epi16(-0x8000)))) ^ 0x8000);
}
INLINE int16_t hs_greatest(hs x)
{
    const __m128i m = _mm_max_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return (int16_t)(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(m, _mm_set1_epi16(0x7fff)))) ^ 0x7fff);
}

#endif
#endif
