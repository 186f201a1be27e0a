// What attention needs of AVX-512 beside vectors_avx512.h.
#pragma once

#include "vectors.h"

constexpr int MOST_QUERIES = 6;  // whose sums, four vectors of each, have room in registers

inline Floats with_sign_of(Floats sign, Floats x) {
    return _mm512_or_ps(x, _mm512_and_ps(sign, all(-0.0f)));
}
inline Floats widen_bf16(const uint16_t * x) {
    const __m256i halves = _mm256_loadu_si256((const __m256i *)x);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline __m128i some_bytes(const void * x) { return _mm_loadu_si128((const __m128i *)x); }
inline Floats widen_bytes(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }

// Vectors of 16 rows into those of 16 columns
inline void transpose(Floats x[16]) {
    const auto pairs = [](Floats a, Floats b, bool high) {
        const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
        return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(c, d) : _mm512_unpacklo_pd(c, d));
    };
    Floats t[16];  // t[i + j]: columns j, 4 + j, 8 + j and 12 + j of rows i to i + 3
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const Floats a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
        const Floats c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
        const Floats d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = pairs(a, c, false), t[i + 1] = pairs(a, c, true);
        t[i + 2] = pairs(b, d, false), t[i + 3] = pairs(b, d, true);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const Floats even = _mm512_shuffle_f32x4(t[j], t[4 + j], 0x88);
        const Floats odd = _mm512_shuffle_f32x4(t[j], t[4 + j], 0xdd);
        const Floats even_below = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0x88);
        const Floats odd_below = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0xdd);
        x[j] = _mm512_shuffle_f32x4(even, even_below, 0x88);
        x[4 + j] = _mm512_shuffle_f32x4(odd, odd_below, 0x88);
        x[8 + j] = _mm512_shuffle_f32x4(even, even_below, 0xdd);
        x[12 + j] = _mm512_shuffle_f32x4(odd, odd_below, 0xdd);
    }
}
