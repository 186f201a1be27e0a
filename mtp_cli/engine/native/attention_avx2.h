// What attention needs of AVX2 beside vectors_avx2.h.
#pragma once

#include "vectors.h"

constexpr int MOST_QUERIES = 3;  // whose sums, four vectors of each, have room in registers

inline Floats with_sign_of(Floats sign, Floats x) {
    return _mm256_or_ps(x, _mm256_and_ps(sign, all(-0.0f)));
}
inline Floats widen_bf16(const uint16_t * x) {
    const __m128i halves = _mm_loadu_si128((const __m128i *)x);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline __m128i some_bytes(const void * x) { return _mm_loadl_epi64((const __m128i *)x); }
inline Floats widen_bytes(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }

// Vectors of 8 rows into those of 8 columns
inline void transpose(Floats x[8]) {
    const auto pairs = [](Floats a, Floats b, bool high) {
        const __m256d c = _mm256_castps_pd(a), d = _mm256_castps_pd(b);
        return _mm256_castpd_ps(high ? _mm256_unpackhi_pd(c, d) : _mm256_unpacklo_pd(c, d));
    };
    Floats t[8];  // t[i + j]: columns j and 4 + j of rows i to i + 3
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const Floats a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
        const Floats c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
        const Floats d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = pairs(a, c, false), t[i + 1] = pairs(a, c, true);
        t[i + 2] = pairs(b, d, false), t[i + 3] = pairs(b, d, true);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        x[j] = _mm256_permute2f128_ps(t[j], t[4 + j], 0x20);
        x[4 + j] = _mm256_permute2f128_ps(t[j], t[4 + j], 0x31);
    }
}
