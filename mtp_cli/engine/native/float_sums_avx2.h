// Vectors of sums for floating-point numbers where ggml uses AVX2 for them.
#pragma once

#include "vectors_avx2.h"

struct FloatSums {
    using Floats = __m256;
    static constexpr int LANES = 8;
    // Vectors of sums that ggml adds up to by turns
    static constexpr int N_BF16 = 4, N_F16 = 4, N_F32 = 4;
    // Weight rows and rows at a time: as many as there are registers for their sums
    static constexpr int COLUMNS_BF16 = 2, COLUMNS_F16 = 2, AT_ONCE_HALVES = 4;
    static constexpr int COLUMNS_F32 = 1, AT_ONCE_F32 = 3;
    static constexpr int MANY_COLUMNS = 2, MANY_ROWS = 6;

    static Floats zeros() { return ::zeros(); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return ::multiply_add(a, b, c); }
    static Floats load_f32(const float * x) { return ::load(x); }
    static Floats widen_f16(const uint16_t * x) { return ::widen_f16(x); }
    // BF16 is the upper half of a float: a shift is all there is to it.
    static Floats widen_bf16(const uint16_t * x) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)x));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }

    // The last additions of ggml_vec_dot_bf16, ggml_vec_dot_f16 and ggml_vec_dot_f32
    static float sum_bf16(const Floats x[N_BF16]) { return sum_lanes(of_four(x)); }
    static float sum_f16(const Floats x[N_F16]) {
        const __m128 two = _mm_hadd_ps(of_four(x), of_four(x));
        return _mm_cvtss_f32(_mm_hadd_ps(two, two));
    }
    static float sum_f32(const Floats x[N_F32]) { return sum_f16(x); }

    // Nothing is gained by adding up several pairs' sums at a time.
    template <class Sums>
    static bool store_sums(const Sums &, float *, size_t) {
        return false;
    }

private:
    static __m128 of_four(const Floats x[4]) {
        return halves(add(add(x[0], x[2]), add(x[1], x[3])));
    }
};
