// Vectors of sums for floating-point numbers where ggml uses AVX-512 for them, which it does with
// AVX512F alone: vectors.h may have AVX2 there.
#pragma once

#include <immintrin.h>

#include <cstdint>

struct FloatSums {
    using Floats = __m512;
    static constexpr int LANES = 16;
    // Vectors of sums that ggml adds up to by turns
    static constexpr int N_BF16 = 2, N_F16 = 4, N_F32 = 4;
    // Weight rows and rows at a time: as many as there are registers for their sums
    static constexpr int COLUMNS_BF16 = 2, COLUMNS_F16 = 1, AT_ONCE_HALVES = 6;
    static constexpr int COLUMNS_F32 = 2, AT_ONCE_F32 = 3;

    static Floats zeros() { return _mm512_setzero_ps(); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static Floats load_f32(const float * x) { return _mm512_loadu_ps(x); }
    static Floats widen_f16(const uint16_t * x) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
    }
    // BF16 is the upper half of a float: a shift is all there is to it.
    static Floats widen_bf16(const uint16_t * x) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }

    // The last additions of ggml_vec_dot_bf16, ggml_vec_dot_f16 and ggml_vec_dot_f32
    static float sum_bf16(const Floats x[N_BF16]) {
        return (float)((double)_mm512_reduce_add_ps(x[0]) + (double)_mm512_reduce_add_ps(x[1]));
    }
    static float sum_f16(const Floats x[N_F16]) {
        return _mm512_reduce_add_ps(
            _mm512_add_ps(_mm512_add_ps(x[0], x[2]), _mm512_add_ps(x[1], x[3])));
    }
    static float sum_f32(const Floats x[N_F32]) { return sum_f16(x); }
};
