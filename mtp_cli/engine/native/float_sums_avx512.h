// Vectors of sums for floating-point numbers where ggml uses AVX-512 for them, which it does with
// AVX512F alone: vectors.h may have AVX2 there.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

struct FloatSums {
    using Floats = __m512;
    static constexpr int LANES = 16;
    // Vectors of sums that ggml adds up to by turns
    static constexpr int N_BF16 = 2, N_F16 = 4, N_F32 = 4;
    // Weight rows and rows at a time: as many as there are registers for their sums
    static constexpr int COLUMNS_BF16 = 2, COLUMNS_F16 = 1, AT_ONCE_HALVES = 6;
    static constexpr int COLUMNS_F32 = 2, AT_ONCE_F32 = 3;
    static constexpr int MANY_COLUMNS = 4, MANY_ROWS = 6;

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

    // The same for 4 weight rows times P rows: out[row * stride + column]
    template <int N, int P>
    static bool store_sums(const Floats (&x)[N][4][P], float * out, size_t stride) {
        for (int first = 0; first < P; first += 4) {
            const int from = first + 4 > P ? P - 4 : first;
            store_four(sums_of_four(x, from), out + from * stride, stride);
        }
        return true;
    }

private:
    // BF16's two vectors are reduced apart: in single precision, which rounds their sum alike.
    template <int P>
    static Floats sums_of_four(const Floats (&x)[N_BF16][4][P], int from) {
        const auto sum = [&](int s) {
            return reduced([&](int c, int p) { return x[s][c][from + p]; });
        };
        return _mm512_add_ps(sum(0), sum(1));
    }
    template <int P>
    static Floats sums_of_four(const Floats (&x)[N_F16][4][P], int from) {
        return reduced([&](int c, int p) {
            const auto & of = [&](int s) { return x[s][c][from + p]; };
            return _mm512_add_ps(_mm512_add_ps(of(0), of(2)), _mm512_add_ps(of(1), of(3)));
        });
    }
    // _mm512_reduce_add_ps of 4 * 4 vectors, in its order; that of (c, p) in lane 4p + c
    template <class Of>
    static Floats reduced(Of of) {
        const auto halves = [&](int c, int p) {
            const Floats a = of(c, p), b = of(c, p + 1), low = _mm512_shuffle_f32x4(a, b, 0x44);
            return _mm512_add_ps(low, _mm512_shuffle_f32x4(a, b, 0xee));
        };
        const auto quarters = [&](int c) {
            const Floats a = halves(c, 0), b = halves(c, 2), low = _mm512_shuffle_f32x4(a, b, 0x88);
            return _mm512_add_ps(low, _mm512_shuffle_f32x4(a, b, 0xdd));
        };
        const auto pairs = [&](int c) {
            const Floats a = quarters(c), b = quarters(c + 1);
            return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
        };
        const Floats a = pairs(0), b = pairs(2);
        return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
    }
    static void store_four(Floats x, float * out, size_t stride) {
        _mm_storeu_ps(out, _mm512_castps512_ps128(x));
        _mm_storeu_ps(out + stride, _mm512_extractf32x4_ps(x, 1));
        _mm_storeu_ps(out + 2 * stride, _mm512_extractf32x4_ps(x, 2));
        _mm_storeu_ps(out + 3 * stride, _mm512_extractf32x4_ps(x, 3));
    }
};
