// Rows rounded to Q8_K, with the bits of ggml's quantize_row_q8_K_ref, which takes one number after
// another.
#pragma once

#include "formats/rows.h"
#include "vectors.h"

#include <cstring>

namespace {

struct Greatest {
    float magnitude, number;  // the first number of that magnitude, with its sign
};

inline Greatest greatest_of_256(const float * x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most[4] = {};
    for (int i = 0; i < 256; i += 32) {
        for (int j = 0; j < 4; ++j) {
            const __m256 magnitudes = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 8 * j));
            most[j] = _mm256_max_ps(magnitudes, most[j]);  // a NaN is passed over
        }
    }
    const __m256 eight =
        _mm256_max_ps(_mm256_max_ps(most[0], most[1]), _mm256_max_ps(most[2], most[3]));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float magnitude = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    for (int i = 0; i < 256; i += 8) {
        const __m256 magnitudes = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i));
        const __m256 is_it = _mm256_cmp_ps(magnitudes, _mm256_set1_ps(magnitude), _CMP_EQ_OQ);
        const int found = _mm256_movemask_ps(is_it);
        if (found) return {magnitude, x[i + __builtin_ctz(found)]};
    }
    return {0, 0};  // nothing but NaN
}

// The nearest integers, as the low bits of a sum with 1.5 * 2^23 have them
inline __m256i nearest_integers(__m256 x) {
    const __m256i sum = _mm256_castps_si256(_mm256_add_ps(x, _mm256_set1_ps(12582912.0f)));
    const __m256i bits = _mm256_and_si256(sum, _mm256_set1_epi32(0x007fffff));
    return _mm256_sub_epi32(bits, _mm256_set1_epi32(0x00400000));
}

// The sums of each 16 of 128 bytes
inline __m128i sums_of_sixteen(const int8_t * qs) {
    const auto fours = [qs](int i) { return sums_of_four(qs + 32 * i, 1); };
    const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(fours(0), fours(1)),
                                             _mm256_hadd_epi32(fours(2), fours(3)));
    const __m128i first = _mm256_castsi256_si128(halves);
    const __m128i second = _mm256_extracti128_si256(halves, 1);
    return _mm_packs_epi32(_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
}

inline void round_256(const float * x, RowQ8_K & out) {
    const Greatest greatest = greatest_of_256(x);
    memset(&out, 0, sizeof(out));
    if (greatest.magnitude == 0) return;
    const float scale = -127.0f / greatest.number;
    out.d = 1 / scale;
    if (out.d == 0) return;  // of numbers so small that their scale is infinite
    const __m256i in_order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    for (int i = 0; i < 256; i += 32) {
        const auto eight = [&](int j) {
            return nearest_integers(
                _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(x + i + 8 * j)));
        };
        const __m256i q = _mm256_packs_epi16(_mm256_packs_epi32(eight(0), eight(1)),
                                             _mm256_packs_epi32(eight(2), eight(3)));
        _mm256_storeu_si256((__m256i *)(out.qs + i), _mm256_permutevar8x32_epi32(q, in_order));
    }
    _mm_storeu_si128((__m128i *)out.sums, sums_of_sixteen(out.qs));
    _mm_storeu_si128((__m128i *)(out.sums + 8), sums_of_sixteen(out.qs + 128));
}

inline void round_to_q8_k(const float * x, void * blocks, int64_t n) {
    for (int64_t i = 0; i < n / 256; ++i) round_256(x + 256 * i, ((RowQ8_K *)blocks)[i]);
}

}  // namespace
