// Super-blocks of 256 numbers in AVX-512: a vector holds 64 of them.
#pragma once

#include "vectors_avx512.h"

constexpr int SUPER_VECTORS = 4;  // of a super-block

// The same 32 bytes in both halves
inline Ints twice(const uint8_t * x) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)x));
}
// 16 bits each, shifted right by so many, in the upper half by so many more
inline Ints shifted(Ints x, int by, int more) {
    const __m256i low = _mm256_set1_epi16((short)by), high = _mm256_set1_epi16((short)(by + more));
    return _mm512_srlv_epi16(x, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
inline Ints masked(Ints x, int bits) { return _mm512_and_si512(x, _mm512_set1_epi8((char)bits)); }

// Fours of Q4_K and Q5_K: of 32 bytes the low halves, then the high ones
inline Ints super_nibbles(const uint8_t * qs, int i) {
    return masked(shifted(twice(qs + 32 * i), 0, 4), 15);
}
// Twos of Q2_K and Q3_K: of 32 bytes four vectors of two bits, the lowest ones first
inline Ints super_pairs_of_bits(const uint8_t * qs, int i) {
    return masked(shifted(twice(qs + 32 * (i / 2)), i % 2 * 4, 2), 3);
}
// x + value where the bit that vector i has in each of 32 bytes is set, or where it is not
inline Ints added_by_bits(Ints x, const uint8_t * bits, int i, bool is_set, int value) {
    const __m256i low = _mm256_set1_epi8((char)(1 << 2 * i));
    const __m256i high = _mm256_set1_epi8((char)(2 << 2 * i));
    const Ints both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    const __mmask64 mask = is_set ? _mm512_test_epi8_mask(twice(bits), both)
                                  : _mm512_testn_epi8_mask(twice(bits), both);
    return _mm512_mask_add_epi8(x, mask, x, _mm512_set1_epi8((char)value));
}
// Sixes of Q6_K: four bits of ql, two of qh above
inline Ints super_sixes(const uint8_t * ql, const uint8_t * qh, int i) {
    const Ints low = _mm512_loadu_si512(ql + 64 * (i / 2)), high = twice(qh + 32 * (i / 2));
    if (i % 2) {
        const Ints upper = masked(shifted(high, 0, 2), 0x30);
        return _mm512_or_si512(masked(_mm512_srli_epi16(low, 4), 15), upper);
    }
    const __m256i by_four = _mm256_set1_epi16(4), by_two = _mm256_set1_epi16(2);
    const Ints by = _mm512_inserti64x4(_mm512_castsi256_si512(by_four), by_two, 1);
    return _mm512_or_si512(masked(low, 15), masked(_mm512_sllv_epi16(high, by), 0x30));
}
// A table's bytes for two times 16 low nibbles, then 16 high ones
inline Ints super_looked_up(const uint8_t * qs, int i, __m128i table) {
    const __m256i packed = _mm256_loadu_si256((const __m256i *)(qs + 32 * i));
    const Ints order = _mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0);
    const Ints both = _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(packed));
    const Ints by = _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0,
                                     0x0004000400040004, 0x0004000400040004, 0, 0);
    const Ints fours = masked(_mm512_srlv_epi16(both, by), 15);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), fours);
}

// Of sixteen scales, each for sixteen numbers, those of vector i
inline Ints scales_by_16(__m256i sixteen, int i) {
    const Ints four = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002,
                                       0x0002000200020002, 0x0001000100010001, 0x0001000100010001,
                                       0, 0);
    const Ints order = _mm512_add_epi16(four, _mm512_set1_epi16((short)(4 * i)));
    return _mm512_permutexvar_epi16(order, _mm512_castsi256_si512(sixteen));
}
// Of eight scales, each for 32 numbers
inline Ints scales_by_32(__m128i eight, int i) {
    const Ints order = _mm512_inserti64x4(_mm512_set1_epi16((short)(2 * i)),
                                          _mm256_set1_epi16((short)(2 * i + 1)), 1);
    return _mm512_permutexvar_epi16(order, _mm512_castsi128_si512(eight));
}

// Sums of two products of bytes; 16 bits hold them
inline Ints pairs_of(Ints unsigned_weights, const int8_t * row) {
    return _mm512_maddubs_epi16(unsigned_weights, _mm512_loadu_si512(row));
}
inline Ints pairs_of(const uint8_t * unsigned_row, Ints weights) {
    return _mm512_maddubs_epi16(_mm512_loadu_si512(unsigned_row), weights);
}
inline Ints pairs_of(int unsigned_byte, Ints weights) {
    return _mm512_maddubs_epi16(_mm512_set1_epi8((char)unsigned_byte), weights);
}
// Of signed weights, too
inline Ints signed_pairs_of(Ints weights, const int8_t * row) {
    const Ints x = _mm512_loadu_si512(row);
    const Ints turned =
        _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), x);
    return _mm512_maddubs_epi16(_mm512_abs_epi8(weights), turned);
}
inline Ints add_scaled(Ints sum, Ints pairs, Ints scales) {
    return _mm512_dpwssd_epi32(sum, pairs, scales);
}
inline Ints zero_ints() { return _mm512_setzero_si512(); }
inline Ints negated(Ints x) { return _mm512_sub_epi32(_mm512_setzero_si512(), x); }
// Eight lanes of 32 bits, and eight zeros
inline Ints eight_lanes(__m256i x) { return _mm512_zextsi256_si512(x); }
// The eight sums of each of PER_VECTOR weight rows
inline Ints lanes_of_rows(const Ints x[PER_VECTOR]) {
    return _mm512_add_epi32(_mm512_shuffle_i64x2(x[0], x[1], 0x44),
                            _mm512_shuffle_i64x2(x[0], x[1], 0xee));
}

// Sixteen numbers of 16 bits of each of PER_VECTOR weight rows, and their products, two to a lane
inline Ints joined(const __m256i x[PER_VECTOR]) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(x[0]), x[1], 1);
}
inline Ints products_of_16(Ints a, const int16_t * b) {
    return _mm512_madd_epi16(a, twice((const uint8_t *)b));
}

// Of four weight rows' numbers, those of the rows whose eight lanes stand in vector i
inline Floats for_lanes(__m128 four, int i) {
    const Ints order =
        _mm512_inserti64x4(_mm512_set1_epi32(2 * i), _mm256_set1_epi32(2 * i + 1), 1);
    return _mm512_permutexvar_ps(order, _mm512_castps128_ps512(four));
}
// Four lanes of each of four weight rows
struct FourLanes {
    static constexpr int VECTORS = 1;
    static Ints of_rows(const __m128i x[4], int) {
        const __m256i low = _mm256_set_m128i(x[1], x[0]), high = _mm256_set_m128i(x[3], x[2]);
        return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    // Eight products of 16 bits for each weight row, two to a lane
    static Ints products(Ints a, const int16_t * b) {
        const __m128i eight = _mm_loadu_si128((const __m128i *)b);
        return _mm512_madd_epi16(a, _mm512_broadcast_i32x4(eight));
    }
    // A weight row's lanes, added up in each
    static Ints added_up(Ints x) {
        x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, (_MM_PERM_ENUM)0x4e));
        return _mm512_add_epi32(x, _mm512_shuffle_epi32(x, (_MM_PERM_ENUM)0xb1));
    }
    static Floats numbers(__m128 four, int) {
        const Ints order = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
        return _mm512_permutexvar_ps(order, _mm512_castps128_ps512(four));
    }
    // The first lane of each weight row
    static __m128 first(const Floats x[1]) {
        const Ints order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
        return _mm512_castps512_ps128(_mm512_permutexvar_ps(order, x[0]));
    }
    static Floats folded(Floats x) {
        x = add(x, _mm512_permute_ps(x, 0x0e));
        return add(x, _mm512_permute_ps(x, 0x01));
    }
};

// Sums for eight weight rows side by side, two lanes to each
struct SideBySide {
    static constexpr int AT_ONCE = 8;  // rows whose sums have room
    Ints lanes = zero_ints();

    // Some bits of eight bytes of each weight row by turns, N times
    template <int N>
    struct Bytes {
        Ints q[N];
        Bytes(const uint8_t * qs, int shift, int bits) {
            for (int i = 0; i < N; ++i) {
                const Ints packed = _mm512_loadu_si512(qs + 64 * i);
                q[i] = masked(_mm512_srli_epi16(packed, shift), bits);
            }
        }
    };
    // Each weight row's scale of 16 bits
    struct Scales {
        Ints x;
        explicit Scales(__m128i eight) {
            const Ints four = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
            const Ints both = _mm512_or_si512(four, _mm512_slli_epi64(four, 32));
            x = _mm512_maskz_permutexvar_epi16(0x55555555, both, _mm512_castsi128_si512(eight));
        }
    };
    // Sixteen products of four bits and eight need sixteen: what is above is multiplied by zero.
    template <int N>
    void add(const Bytes<N> & weights, const int8_t * row, const Scales & scales) {
        Ints sum = zero_ints();
        for (int i = 0; i < N; ++i) {
            int64_t eight;
            __builtin_memcpy(&eight, row + 8 * i, 8);
            sum = _mm512_dpbusd_epi32(sum, weights.q[i], _mm512_set1_epi64(eight));
        }
        lanes = _mm512_dpwssd_epi32(lanes, sum, scales.x);
    }
    Floats sums() const {  // the same in both lanes
        return to_floats(
            _mm512_add_epi32(lanes, _mm512_shuffle_epi32(lanes, (_MM_PERM_ENUM)0xb1)));
    }
    static Floats numbers(const uint16_t * d) {
        const Ints order = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
        const __m256 eight = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)d));
        return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(eight));
    }
    static __m256 in_order(Floats x) {
        const Ints even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
        return _mm512_castps512_ps256(_mm512_permutexvar_ps(even, x));
    }
};
