// The vector operations in AVX2: a vector holds eight sums of one weight row, or 8 floats. Where
// the processor has VNNI for such vectors (Intel's without AVX-512, from 2021 on), one instruction
// multiplies bytes and adds up, of weights up to 255; integers come out the same.
#pragma once

#include "vectors_shared.h"

#include <cstddef>

#ifdef __AVXVNNI__
#define MTP_VECTORS "AVX2 with VNNI"
#else
#define MTP_VECTORS "AVX2"
#endif

using Ints = __m256i;
using Floats = __m256;

constexpr int PER_VECTOR = 1;
constexpr int LANES = 8;
constexpr bool HAS_FEW_REGISTERS = true;
constexpr int ROWS_IN_REGISTERS = 2;  // whose sums with four weight rows have room in them
constexpr int MOST_ROWS_BESIDE_GEMM = 16;
#ifdef __AVXVNNI__
constexpr bool HAS_UNSIGNED_DOT = true;  // of bytes up to 255 without saturation
#else
constexpr bool HAS_UNSIGNED_DOT = false;
#endif

inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline float first_lane(Floats x) { return _mm256_cvtss_f32(x); }
inline Floats load(const float * x) { return _mm256_loadu_ps(x); }
inline void store(float * out, Floats x) { _mm256_storeu_ps(out, x); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats maximum(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
inline Floats widen_f16(const uint16_t * x) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
}

inline Ints load(const int8_t * x) { return _mm256_loadu_si256((const __m256i *)x); }
inline Ints load(const int32_t * x) { return _mm256_loadu_si256((const __m256i *)x); }
inline Ints for_each_weight_row(const void * x) { return load((const int8_t *)x); }
inline Ints all_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Floats halves_of_lanes(const uint16_t * x) { return eight_halves(x); }
// The same four bytes in every lane
inline Ints four_bytes(const void * x) {
    int32_t four;
    __builtin_memcpy(&four, x, sizeof(four));
    return _mm256_set1_epi32(four);
}
inline Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Ints high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

// Signed bytes plus 128 where they are multiplied as unsigned ones
inline Ints offset_bytes(const int8_t * x, const int8_t *) {
    return HAS_UNSIGNED_DOT ? _mm256_xor_si256(load(x), _mm256_set1_epi8((char)0x80)) : load(x);
}
constexpr int HIGH_NIBBLE = 1;  // sums of sixteen bits have no room for more
inline Ints nibbles(const uint8_t * x, const uint8_t *) { return nibbles_apart(x); }
inline Ints shifted_nibbles(const uint8_t * x, const uint8_t *) { return nibbles_apart(x); }
// Nibbles of which each gets one of 32 bits above it
inline Ints with_fifth_bits(Ints nibbles, const uint8_t * x, const uint8_t *) {
    int bits;
    __builtin_memcpy(&bits, x, 4);
    const Ints byte_of_each = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202,
                                                0x0101010101010101, 0);
    const Ints bit_of_each = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const Ints eight = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of_each);
    const Ints is_set = _mm256_cmpeq_epi8(_mm256_and_si256(eight, bit_of_each), bit_of_each);
    return _mm256_or_si256(nibbles, _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
}
// Of weight rows side by side, four weights of each in a step: bit i of byte 4 c + j is that of
// weight j of weight row c in step i. So one vector holds those of all steps.
inline void put_fifth_bits(uint8_t * high, int column, int step, int four) {
    for (int j = 0; j < 4; ++j) {
        uint8_t & steps = high[4 * column + j];
        steps = (uint8_t)((steps & ~(1 << step)) | (four >> j & 1) << step);
    }
}
inline Ints with_fifth_bits_of_step(Ints nibbles, const uint8_t * high, int step) {
    const Ints bits = load((const int8_t *)high);
    const Ints fifth =
        step < 4 ? _mm256_slli_epi16(bits, 4 - step) : _mm256_srli_epi16(bits, step - 4);
    return _mm256_or_si256(nibbles, _mm256_and_si256(fifth, _mm256_set1_epi8(16)));
}
// start + products of unsigned weights and signed rows, four to a lane
#ifdef __AVXVNNI__
constexpr bool HAS_SUMS_OF_PAIRS = false;
inline Ints dot(Ints start, Ints weights, Ints rows) {
    return _mm256_dpbusd_avx_epi32(start, weights, rows);
}
#else
constexpr bool HAS_SUMS_OF_PAIRS = true;  // a step of `dot`: what is added up before the next
inline Ints dot(Ints start, Ints weights, Ints rows) {
    const Ints pairs = _mm256_maddubs_epi16(weights, rows);
    return _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
inline Ints dot(Ints weights, Ints rows) { return dot(_mm256_setzero_si256(), weights, rows); }
// Sums of pairs in 16 bits, plus one of each two products; and start + sums of those, two to a lane
inline Ints with_pairs(Ints pairs, Ints weights, Ints rows) {
    return _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights, rows));
}
inline Ints with_sums_of_pairs(Ints start, Ints pairs) {
    return _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
// The same of signed weights
inline Ints signed_dot(Ints start, Ints weights, Ints rows) {
    return dot(start, _mm256_abs_epi8(weights), _mm256_sign_epi8(rows, weights));
}
inline Ints signed_dot(Ints weights, Ints rows) {
    return signed_dot(_mm256_setzero_si256(), weights, rows);
}

inline Ints pair_looked_up(const uint8_t * first, const uint8_t * second, int v, __m128i table) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table),
                               nibbles_apart(v ? second : first));
}
inline Floats pair_scales(__m256 eight, int c, int v) {
    return _mm256_permutevar8x32_ps(eight, _mm256_set1_epi32(2 * c + v));
}
inline __m256 added_pair(const Floats x[2]) { return add(x[0], x[1]); }

// A half-precision number of a weight row, for its eight lanes
inline Floats for_each_lane(uint16_t a, uint16_t) {
    return _mm256_cvtph_ps(_mm_set1_epi16((short)a));
}
// The scale of each of four weight rows, of the pairs that their blocks begin with
template <int HIGH>
struct FourScales {
    static_assert(HIGH == 1);
    __m128 four;
    explicit FourScales(__m256 pairs) : four(firsts(pairs)) {}

    // Times a row's: read from memory for all lanes, which leaves the multipliers to the rest
    struct Products {
        alignas(16) float d[4];
        Floats of(int v) const { return _mm256_broadcast_ss(d + v); }
    };
    Products times(float row_scale) const {
        Products products;
        _mm_store_ps(products.d, _mm_mul_ps(four, _mm_set1_ps(row_scale)));
        return products;
    }
};
inline __m128 halves(Floats x) {
    return _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
}
inline __m128 sums_of_rows(const Floats x[4]) { return sums_of_four_vectors(x); }

struct EightRows {
    Ints low[4], high[4];  // of weight rows 0 to 3, 4 to 7, then the next eight bytes of each
    explicit EightRows(const uint8_t * qs, int flipped = 0) {
        const Ints flip = _mm256_set1_epi8((char)flipped), mask = _mm256_set1_epi8(15);
        for (int i = 0; i < 4; ++i) {
            const Ints packed = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)qs + i), flip);
            low[i] = _mm256_and_si256(packed, mask);
            high[i] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
        }
    }
    EightRows(const uint8_t * qs, __m128i table) : EightRows(qs) {
        for (int i = 0; i < 4; ++i) {
            low[i] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), low[i]);
            high[i] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), high[i]);
        }
    }
    static Ints part(const int8_t * row, int i) {
        int64_t eight;
        __builtin_memcpy(&eight, row + 8 * i, 8);
        return _mm256_set1_epi64x(eight);
    }
    Ints sums(const int8_t * row, const int32_t * start) const {
        const Ints added = _mm256_hadd_epi32(four_sums(row, 0), four_sums(row, 1));
        return _mm256_add_epi32(added, _mm256_set1_epi32(*start));
    }

private:
    // Of weight rows 4 * i to 4 * i + 3, two lanes to each
#ifdef __AVXVNNI__
    Ints four_sums(const int8_t * row, int i) const {
        const Ints sums = dot(dot(low[i], part(row, 0)), low[i + 2], part(row, 1));
        return dot(dot(sums, high[i], part(row, 2)), high[i + 2], part(row, 3));
    }
#else
    Ints four_sums(const int8_t * row, int i) const {  // at most 4 * 2 * 24 * 128: 16 bits hold it
        const Ints lows = _mm256_add_epi16(_mm256_maddubs_epi16(low[i], part(row, 0)),
                                           _mm256_maddubs_epi16(low[i + 2], part(row, 1)));
        const Ints highs = _mm256_add_epi16(_mm256_maddubs_epi16(high[i], part(row, 2)),
                                            _mm256_maddubs_epi16(high[i + 2], part(row, 3)));
        return _mm256_madd_epi16(_mm256_add_epi16(lows, highs), _mm256_set1_epi16(1));
    }
#endif
};
#ifdef __AVXVNNI__
using EightWideRows = EightRows;
#else
// Of a table whose bytes are signed and need all of eight bits: their sign goes to the row
struct EightWideRows : EightRows {
    using EightRows::EightRows;
    Ints sums(const int8_t * row, const int32_t *) const {
        const auto four = [&](int i) {
            const Ints lows = _mm256_add_epi32(signed_dot(low[i], part(row, 0)),
                                               signed_dot(low[i + 2], part(row, 1)));
            const Ints highs = _mm256_add_epi32(signed_dot(high[i], part(row, 2)),
                                                signed_dot(high[i + 2], part(row, 3)));
            return _mm256_add_epi32(lows, highs);
        };
        return _mm256_hadd_epi32(four(0), four(1));
    }
};
#endif
inline Floats weight_scales(__m256 d) {
    return _mm256_permutevar8x32_ps(d, _mm256_set_epi32(7, 6, 3, 2, 5, 4, 1, 0));
}
inline Floats row_scales(const float * d) { return _mm256_broadcast_ss(d); }
inline void store_eight(Floats x, float * out, size_t, int) {
    const Ints order = _mm256_set_epi32(7, 6, 3, 2, 5, 4, 1, 0);
    _mm256_storeu_ps(out, _mm256_permutevar8x32_ps(x, order));
}

inline float sum_lanes(__m128 x) {
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float sum_lanes(Floats x) { return sum_lanes(halves(x)); }
inline float max_lanes(Floats x) {
    __m128 most = _mm_max_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
}
inline Floats sums_of_each(const Floats x[8]) {
    const auto four = [](const Floats * x) {
        return _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    };
    const Floats a = four(x), b = four(x + 4);
    return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
inline Floats nearest(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT); }
inline Floats times_power(Floats x, Floats exponent) {
    const Ints bits = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
    return multiply(x, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23)));
}
inline Floats zero_below(Floats x, float least, Floats then) {
    return _mm256_and_ps(_mm256_cmp_ps(x, all(least), _CMP_GE_OQ), then);
}
