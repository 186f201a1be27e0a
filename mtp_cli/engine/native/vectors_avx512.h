// The vector operations in AVX-512 with VNNI: a vector holds eight sums of each of two weight rows,
// or 16 floats.
#pragma once

#include "vectors_shared.h"

#include <climits>
#include <cstddef>

#define MTP_VECTORS "AVX-512"

using Ints = __m512i;
using Floats = __m512;

constexpr int PER_VECTOR = 2;
constexpr int LANES = 16;
constexpr bool HAS_FEW_REGISTERS = false;
constexpr int ROWS_IN_REGISTERS = 8;  // whose sums with four weight rows have room in them
constexpr int MOST_ROWS_BESIDE_GEMM = INT_MAX;  // faster than ggml's kernels for prompts, too
constexpr bool HAS_SUMS_OF_PAIRS = false;       // `dot` is one step
constexpr bool HAS_UNSIGNED_DOT = true;         // of bytes up to 255 without saturation

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline float first_lane(Floats x) { return _mm512_cvtss_f32(x); }
inline Floats load(const float * x) { return _mm512_loadu_ps(x); }
inline void store(float * out, Floats x) { _mm512_storeu_ps(out, x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats maximum(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Floats widen_f16(const uint16_t * x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}

inline Ints load(const int8_t * x) { return _mm512_loadu_si512(x); }
inline Ints load(const int32_t * x) { return _mm512_loadu_si512(x); }
inline Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Floats halves_of_lanes(const uint16_t * x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}
// The same four bytes in every lane
inline Ints four_bytes(const void * x) {
    int32_t four;
    __builtin_memcpy(&four, x, sizeof(four));
    return _mm512_set1_epi32(four);
}
// Eight lanes of a row, once for every weight row of a vector
inline Ints for_each_weight_row(const void * x) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)x));
}

// 32 bytes of each of two weight rows, plus 128, as unsigned bytes
inline Ints offset_bytes(const int8_t * a, const int8_t * b) {
    const Ints low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)a));
    const Ints both = _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *)b), 1);
    return _mm512_xor_si512(both, _mm512_set1_epi8((char)0x80));
}
inline Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Ints high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
// 16 bytes of each, twice over
inline Ints twice_each(const uint8_t * a, const uint8_t * b) {
    const Ints four = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)a));
    return _mm512_mask_broadcast_i32x4(four, 0xff00, _mm_loadu_si128((const __m128i *)b));
}
// 16 low nibbles of each, then its 16 high ones times HIGH_NIBBLE
constexpr int HIGH_NIBBLE = 16;
inline Ints nibbles(const uint8_t * a, const uint8_t * b) {
    const __m256i mask = _mm256_set_m128i(_mm_set1_epi8((char)0xf0), _mm_set1_epi8(0x0f));
    return _mm512_and_si512(twice_each(a, b), _mm512_broadcast_i64x4(mask));
}
// Likewise, not times anything
inline Ints shifted_nibbles(const uint8_t * a, const uint8_t * b) {
    const __m256i by = _mm256_set_m128i(_mm_set1_epi16(4), _mm_setzero_si128());
    const Ints shifted = _mm512_srlv_epi16(twice_each(a, b), _mm512_broadcast_i64x4(by));
    return _mm512_and_si512(shifted, _mm512_set1_epi8(15));
}
// Nibbles of which each gets one of 32 bits above it
inline Ints with_fifth_bits(Ints nibbles, const uint8_t * a, const uint8_t * b) {
    uint32_t low, high;
    __builtin_memcpy(&low, a, 4);
    __builtin_memcpy(&high, b, 4);
    const __mmask64 bits = low | (uint64_t)high << 32;
    return _mm512_mask_add_epi8(nibbles, bits, nibbles, _mm512_set1_epi8(16));
}
// Of weight rows side by side, four weights of each in a step: bit 4 c + j of a step's 64 bits is
// that of weight j of weight row c.
inline void put_fifth_bits(uint8_t * high, int column, int step, int four) {
    const int shift = column % 2 * 4;
    uint8_t & two = high[LANES / 2 * step + column / 2];
    two = (uint8_t)((two & ~(15 << shift)) | four << shift);
}
inline Ints with_fifth_bits_of_step(Ints nibbles, const uint8_t * high, int step) {
    return with_fifth_bits(nibbles, high + LANES / 2 * step, high + LANES / 2 * step + 4);
}
// start + products of unsigned weights and signed rows, four to a lane
inline Ints dot(Ints start, Ints weights, Ints rows) {
    return _mm512_dpbusd_epi32(start, weights, rows);
}
inline Ints dot(Ints weights, Ints rows) { return dot(_mm512_setzero_si512(), weights, rows); }

// A table's bytes for the nibbles of two blocks, one after the other
inline Ints pair_looked_up(const uint8_t * first, const uint8_t * second, int, __m128i table) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), shifted_nibbles(first, second));
}
// Of the scales of four pairs of blocks, those of pair c for eight lanes each
inline Floats pair_scales(__m256 eight, int c, int) {
    const Ints order =
        _mm512_inserti64x4(_mm512_set1_epi32(2 * c), _mm256_set1_epi32(2 * c + 1), 1);
    return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(eight));
}
// The sums of a pair of blocks, added up
inline __m256 added_pair(const Floats x[1]) {
    return _mm256_add_ps(_mm512_castps512_ps256(x[0]), _mm512_extractf32x8_ps(x[0], 1));
}

// A half-precision number of each of two weight rows, for its eight lanes
inline Floats for_each_lane(uint16_t a, uint16_t b) {
    const __m256i both = _mm256_mask_set1_epi16(_mm256_set1_epi16((short)a), 0xff00, (short)b);
    return _mm512_cvtph_ps(both);
}
// The scale of each of four weight rows, two rows to a vector, of the pairs that their blocks begin
// with; for a weight row's upper four lanes over HIGH
template <int HIGH>
struct FourScales {
    Floats each[2];
    explicit FourScales(__m256 pairs) {
        const __m256 over = _mm256_mul_ps(pairs, _mm256_set1_ps(1.0f / HIGH));
        const Floats both = _mm512_insertf32x8(_mm512_castps256_ps512(pairs), over, 1);
        const Ints order =
            _mm512_set_epi32(10, 10, 10, 10, 2, 2, 2, 2, 8, 8, 8, 8, 0, 0, 0, 0);
        each[0] = _mm512_permutexvar_ps(order, both);
        each[1] = _mm512_permutexvar_ps(_mm512_add_epi32(order, _mm512_set1_epi32(4)), both);
    }

    // Times a row's
    struct Products {
        Floats d[2];
        Floats of(int v) const { return d[v]; }
    };
    Products times(float row_scale) const {
        const Floats scale = all(row_scale);
        return {{multiply(each[0], scale), multiply(each[1], scale)}};
    }
};
// The sums of each weight row's eight lanes, in the order of ggml's hsum_float_8
inline __m128 sums_of_rows(const Floats x[4 / PER_VECTOR]) {
    const Floats four = add(_mm512_shuffle_f32x4(x[0], x[1], 0x88),
                            _mm512_shuffle_f32x4(x[0], x[1], 0xdd));
    const Floats two = add(four, _mm512_permute_ps(four, 0x0e));
    const Floats one = add(two, _mm512_permute_ps(two, 0x01));
    const Ints order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(order, one));
}

// Nibbles of eight weight rows that ggml has interleaved by eight bytes, a block of each
struct EightRows {
    Ints low[2], high[2];
    // With some bits of every byte flipped
    explicit EightRows(const uint8_t * qs, int flipped = 0) {
        const Ints flip = _mm512_set1_epi8((char)flipped), mask = _mm512_set1_epi8(15);
        for (int i = 0; i < 2; ++i) {
            const Ints packed = _mm512_xor_si512(_mm512_loadu_si512(qs + 64 * i), flip);
            low[i] = _mm512_and_si512(packed, mask);
            high[i] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
        }
    }
    // A table's bytes, unsigned
    EightRows(const uint8_t * qs, __m128i table) : EightRows(qs) {
        for (int i = 0; i < 2; ++i) {
            low[i] = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), low[i]);
            high[i] = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), high[i]);
        }
    }
    // Sums for one row: two lanes to a weight row
    Ints dot(const int8_t * row, int32_t start) const {
        const auto part = [row](int i) {
            int64_t eight;
            __builtin_memcpy(&eight, row + 8 * i, 8);
            return _mm512_set1_epi64(eight);
        };
        Ints sum = _mm512_set1_epi64((uint32_t)start);
        sum = _mm512_dpbusd_epi32(sum, low[0], part(0));
        sum = _mm512_dpbusd_epi32(sum, low[1], part(1));
        sum = _mm512_dpbusd_epi32(sum, high[0], part(2));
        return _mm512_dpbusd_epi32(sum, high[1], part(3));
    }
    // For both rows of a vector: weight rows 2i and 2i + 1 of each in the i-th quarter
    Ints sums(const int8_t * rows, const int32_t * starts) const {
        const Floats a = _mm512_castsi512_ps(dot(rows, starts[0]));
        const Floats b = _mm512_castsi512_ps(dot(rows + 32, starts[1]));
        return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                                _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
    }
};
using EightWideRows = EightRows;  // of a table whose bytes need all of eight bits
inline Floats weight_scales(__m256 d) {
    const Ints order = _mm512_set_epi32(7, 6, 7, 6, 5, 4, 5, 4, 3, 2, 3, 2, 1, 0, 1, 0);
    return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(d));
}
inline Floats row_scales(const float * d) {
    const __m128 both = _mm_castpd_ps(_mm_load_sd((const double *)d));
    return _mm512_broadcast_f32x4(_mm_unpacklo_ps(both, both));
}
inline void store_eight(Floats x, float * out, size_t stride, int n) {
    const Ints order = _mm512_set_epi32(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0);
    const Floats sums = _mm512_permutexvar_ps(order, x);
    _mm256_storeu_ps(out, _mm512_castps512_ps256(sums));
    if (n > 1) _mm256_storeu_ps(out + stride, _mm512_extractf32x8_ps(sums, 1));
}

inline float sum_lanes(Floats x) { return _mm512_reduce_add_ps(x); }
inline float max_lanes(Floats x) { return _mm512_reduce_max_ps(x); }
// The sum of each vector's lanes
inline Floats sums_of_each(const Floats x[16]) {
    const auto quarters = [](const Floats * x) {  // of four vectors
        const auto pairs = [](Floats a, Floats b) {
            return add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        };
        const Floats ab = pairs(x[0], x[1]), cd = pairs(x[2], x[3]);
        return add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    };
    const auto halves = [](Floats a, Floats b) {
        return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return halves(halves(quarters(x), quarters(x + 4)), halves(quarters(x + 8), quarters(x + 12)));
}
inline Floats nearest(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
inline Floats times_power(Floats x, Floats exponent) { return _mm512_scalef_ps(x, exponent); }
inline Floats zero_below(Floats x, float least, Floats then) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, all(least), _CMP_GE_OQ), then);
}
