// Operations on 256 bits that the kernels of every vector width use.
#pragma once

#include <immintrin.h>

#include <cstdint>

// The two half-precision numbers that each of four blocks begins with
inline __m256 first_pairs(const void * a, const void * b, const void * c, const void * d) {
    const __m128i ab = _mm_unpacklo_epi32(_mm_loadu_si32(a), _mm_loadu_si32(b));
    const __m128i cd = _mm_unpacklo_epi32(_mm_loadu_si32(c), _mm_loadu_si32(d));
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(ab, cd));
}
// The second of each pair, twice over
inline __m256 seconds(__m256 pairs) {
    return _mm256_permutevar8x32_ps(pairs, _mm256_set_epi32(7, 5, 3, 1, 7, 5, 3, 1));
}
// 16 low nibbles, then the 16 high ones
inline __m256i nibbles_apart(const uint8_t * x) {
    const __m128i packed = _mm_loadu_si128((const __m128i *)x);
    const __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
// Eight sums of four bytes each, times a factor
inline __m256i sums_of_four(const int8_t * x, int factor) {
    const __m256i row = _mm256_loadu_si256((const __m256i *)x);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), row);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16((short)factor));
}
inline int sum_of_lanes(__m256i x) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}
