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
// The first of each of four pairs
inline __m128 firsts(__m256 pairs) {
    const __m256i even = _mm256_set_epi32(6, 4, 2, 0, 6, 4, 2, 0);
    return _mm256_castps256_ps128(_mm256_permutevar8x32_ps(pairs, even));
}
// The second of each of four pairs
inline __m128 seconds(__m256 pairs) {
    const __m256i odd = _mm256_set_epi32(7, 5, 3, 1, 7, 5, 3, 1);
    return _mm256_castps256_ps128(_mm256_permutevar8x32_ps(pairs, odd));
}
// Bytes with an offset added to each
inline __m128i raised(__m128i bytes, int offset) {
    return _mm_add_epi8(bytes, _mm_set1_epi8((char)offset));
}
// Eight half-precision numbers
inline __m256 eight_halves(const uint16_t * x) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
}
// Half of each of eight powers of two (E8M0), which are exponents with a bias of 127; of the first
// two the halves are denormal
inline __m256 halves_of_powers(__m128i exponents) {
    const __m256i e = _mm256_cvtepu8_epi32(exponents), one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(denormal, normal, _mm256_cmpgt_epi32(e, one)));
}
// The sums of each of four vectors' lanes, in the order of ggml's hsum_float_8
inline __m128 sums_of_four_vectors(const __m256 x[4]) {
    const auto halves = [](__m256 x) {
        return _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    };
    const auto quarters = [](__m128 a, __m128 b) {
        return _mm_add_ps(_mm_shuffle_ps(a, b, 0x44), _mm_shuffle_ps(a, b, 0xee));
    };
    const __m128 ab = quarters(halves(x[0]), halves(x[1]));
    const __m128 cd = quarters(halves(x[2]), halves(x[3]));
    return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
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
