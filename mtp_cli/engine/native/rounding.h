// Rows rounded with ggml's bits, faster: to Q8_K, where ggml takes one number after another
// (quantize_row_q8_K_ref), and with AVX-512 to Q8_0 and Q8_1.
#pragma once

#include "formats/rows.h"
#include "ggml_abi.h"
#include "vectors.h"

#include <algorithm>
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

#ifdef MTP_AVX512
// Of each of four vectors what is left when `join` has joined its lanes, in whatever order
template <class Join>
__m128 lanes_joined(const Floats (&x)[4], Join join) {
    const auto pairs = [&](Floats a, Floats b) {
        return join(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    };
    const Floats ab = pairs(x[0], x[1]), cd = pairs(x[2], x[3]);
    const Floats fours = join(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const Floats halves = join(fours, _mm512_shuffle_f32x4(fours, fours, 0x4e));
    return _mm512_castps512_ps128(join(halves, _mm512_shuffle_f32x4(halves, halves, 0xb1)));
}

// Four blocks of 32 numbers, each over its largest magnitude, times 127. What waits long for one
// number, a division say, is done for four.
struct Rounded {
    __m128i qs[4][2];
    __m128 d;     // what 1 stands for in each
    __m128i sum;  // of each one's integers

    // Of the first n of them, and of zeros instead of the rest
    explicit Rounded(const float * x, int n = 4) {
        Floats numbers[4][2], most[4];
        for (int b = 0; b < 4; ++b) {
            for (int i = 0; i < 2; ++i)
                numbers[b][i] = b < n ? load(x + 32 * b + LANES * i) : zeros();
            most[b] = maximum(_mm512_abs_ps(numbers[b][0]), _mm512_abs_ps(numbers[b][1]));
        }
        const __m128 each = lanes_joined(most, [](Floats a, Floats b) { return maximum(a, b); });
        const __m128 limit = _mm_set1_ps(127.0f), zero = _mm_setzero_ps();
        const __m128 scale =
            _mm_andnot_ps(_mm_cmpeq_ps(each, zero), _mm_div_ps(limit, each));
        d = _mm_div_ps(each, limit);
        Floats sums[4];
        for (int b = 0; b < 4; ++b) {
            const Floats by = _mm512_permutexvar_ps(_mm512_set1_epi32(b),
                                                    _mm512_castps128_ps512(scale));
            const Ints low = _mm512_cvtps_epi32(multiply(numbers[b][0], by));
            const Ints high = _mm512_cvtps_epi32(multiply(numbers[b][1], by));
            qs[b][0] = _mm512_cvtsepi32_epi8(low);
            qs[b][1] = _mm512_cvtsepi32_epi8(high);
            sums[b] = _mm512_castsi512_ps(_mm512_add_epi32(low, high));
        }
        sum = _mm_castps_si128(lanes_joined(sums, [](Floats a, Floats b) {
            return _mm512_castsi512_ps(
                _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        }));
    }
    __m128i d_halves() const { return _mm_cvtps_ph(d, 0); }
    __m128 s() const { return _mm_mul_ps(d, _mm_cvtepi32_ps(sum)); }
    __m128i s_halves() const { return _mm_cvtps_ph(s(), 0); }
    void store(int b, int8_t * to) const {
        _mm_storeu_si128((__m128i *)to, qs[b][0]);
        _mm_storeu_si128((__m128i *)(to + LANES), qs[b][1]);
    }
};

// each(rounded, b, i): block i of n, which is the b-th of four
template <class Each>
void round_fours(const float * x, int64_t n, Each each) {
    for (int64_t first = 0; first < n; first += 4) {
        const int n_blocks = (int)std::min<int64_t>(4, n - first);
        const Rounded rounded(x + 32 * first, n_blocks);
        for (int b = 0; b < n_blocks; ++b) each(rounded, b, first + b);
    }
}

inline void round_to_q8_0(const float * x, void * blocks, int64_t n) {
    round_fours(x, n / 32, [=](const Rounded & rounded, int b, int64_t i) {
        RowQ8_0 & row = ((RowQ8_0 *)blocks)[i];
        uint16_t d[8];
        _mm_storeu_si128((__m128i *)d, rounded.d_halves());
        row.d = d[b];
        rounded.store(b, row.qs);
    });
}
inline void round_to_q8_1(const float * x, void * blocks, int64_t n) {
    round_fours(x, n / 32, [=](const Rounded & rounded, int b, int64_t i) {
        RowQ8_1 & row = ((RowQ8_1 *)blocks)[i];
        uint16_t d[8], s[8];
        _mm_storeu_si128((__m128i *)d, rounded.d_halves());
        _mm_storeu_si128((__m128i *)s, rounded.s_halves());
        row.d = d[b], row.s = s[b];
        rounded.store(b, row.qs);
    });
}
#endif

// What rounds a row to a number format as ggml does. type_traits: ggml's function
inline decltype(abi::TypeTraits::from_float) rounding_to(
    abi::Type type, const abi::TypeTraits * (*type_traits)(int type)) {
    if (type == abi::Q8_K) return round_to_q8_k;
#ifdef MTP_AVX512
    if (type == abi::Q8_0) return round_to_q8_0;
    if (type == abi::Q8_1) return round_to_q8_1;
#endif
    return type_traits(type)->from_float;
}

}  // namespace
