// Super-blocks of 256 numbers in AVX2: a vector holds 32 of them.
#pragma once

#include "vectors_avx2.h"

constexpr int SUPER_VECTORS = 8;  // of a super-block

inline Ints load_32(const uint8_t * x) { return _mm256_loadu_si256((const __m256i *)x); }
inline Ints masked(Ints x, int bits) { return _mm256_and_si256(x, _mm256_set1_epi8((char)bits)); }

// Fours of Q4_K and Q5_K: of 32 bytes the low halves, then the high ones
inline Ints super_nibbles(const uint8_t * qs, int i) {
    return masked(_mm256_srli_epi16(load_32(qs + 32 * (i / 2)), i % 2 * 4), 15);
}
// Twos of Q2_K and Q3_K: of 32 bytes four vectors of two bits, the lowest ones first
inline Ints super_pairs_of_bits(const uint8_t * qs, int i) {
    return masked(_mm256_srli_epi16(load_32(qs + 32 * (i / 4)), i % 4 * 2), 3);
}
// x + value where the bit that vector i has in each of 32 bytes is set, or where it is not
inline Ints added_by_bits(Ints x, const uint8_t * bits, int i, bool is_set, int value) {
    const Ints bit = masked(load_32(bits), 1 << i);
    const Ints other = is_set ? _mm256_set1_epi8((char)(1 << i)) : _mm256_setzero_si256();
    return _mm256_add_epi8(x, masked(_mm256_cmpeq_epi8(bit, other), value));
}
// Sixes of Q6_K: four bits of ql, two of qh above
inline Ints super_sixes(const uint8_t * ql, const uint8_t * qh, int i) {
    const Ints packed = load_32(ql + 64 * (i / 4) + 32 * (i % 2));
    const Ints bits = load_32(qh + 32 * (i / 4));
    const Ints low = masked(_mm256_srli_epi16(packed, i % 4 / 2 * 4), 15);
    const Ints high =
        i % 4 < 2 ? _mm256_slli_epi16(bits, 4 - i % 4 * 2) : _mm256_srli_epi16(bits, i % 4 * 2 - 4);
    return _mm256_or_si256(low, masked(high, 0x30));
}
// A table's bytes for 16 low nibbles, then 16 high ones
inline Ints super_looked_up(const uint8_t * qs, int i, __m128i table) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles_apart(qs + 16 * i));
}

// Of sixteen scales, each for sixteen numbers, those of vector i
inline Ints scales_by_16(__m256i sixteen, int i) {
    const Ints eight = _mm256_permute4x64_epi64(sixteen, i < 4 ? 0x44 : 0xee);
    const short first = (short)(i % 4 * 0x0404 + 0x0100), second = (short)(first + 0x0202);
    return _mm256_shuffle_epi8(eight,
                               _mm256_set_m128i(_mm_set1_epi16(second), _mm_set1_epi16(first)));
}
// Of eight scales, each for 32 numbers
inline Ints scales_by_32(__m128i eight, int i) {
    const short bytes_of = (short)(i * 0x0202 + 0x0100);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(eight), _mm256_set1_epi16(bytes_of));
}

// Sums of two products of bytes; 16 bits hold them
inline Ints pairs_of(Ints unsigned_weights, const int8_t * row) {
    return _mm256_maddubs_epi16(unsigned_weights, load(row));
}
inline Ints pairs_of(const uint8_t * unsigned_row, Ints weights) {
    return _mm256_maddubs_epi16(load_32(unsigned_row), weights);
}
inline Ints pairs_of(int unsigned_byte, Ints weights) {
    return _mm256_maddubs_epi16(_mm256_set1_epi8((char)unsigned_byte), weights);
}
// Of signed weights, too
inline Ints signed_pairs_of(Ints weights, const int8_t * row) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(load(row), weights));
}
inline Ints add_scaled(Ints sum, Ints pairs, Ints scales) {
#ifdef __AVXVNNI__
    return _mm256_dpwssd_avx_epi32(sum, pairs, scales);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scales));
#endif
}
inline Ints zero_ints() { return _mm256_setzero_si256(); }
inline Ints negated(Ints x) { return _mm256_sub_epi32(_mm256_setzero_si256(), x); }
inline Ints eight_lanes(__m256i x) { return x; }
// The eight sums of each of PER_VECTOR weight rows
inline Ints lanes_of_rows(const Ints x[PER_VECTOR]) { return x[0]; }

// Sixteen numbers of 16 bits of each of PER_VECTOR weight rows, and their products, two to a lane
inline Ints joined(const __m256i x[PER_VECTOR]) { return x[0]; }
inline Ints products_of_16(Ints a, const int16_t * b) {
    return _mm256_madd_epi16(a, load_32((const uint8_t *)b));
}

// Of four weight rows' numbers, that of the row whose eight lanes stand in vector i
inline Floats for_lanes(__m128 four, int i) {
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_set1_epi32(i));
}
// Four lanes of each of four weight rows
struct FourLanes {
    static constexpr int VECTORS = 2;
    static Ints of_rows(const __m128i x[4], int i) {
        return _mm256_set_m128i(x[2 * i + 1], x[2 * i]);
    }
    // Eight products of 16 bits for each weight row, two to a lane
    static Ints products(Ints a, const int16_t * b) {
        const __m128i eight = _mm_loadu_si128((const __m128i *)b);
        return _mm256_madd_epi16(a, _mm256_broadcastsi128_si256(eight));
    }
    // A weight row's lanes, added up in each
    static Ints added_up(Ints x) {
        x = _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0x4e));
        return _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0xb1));
    }
    static Floats numbers(__m128 four, int i) {
        const int a = 2 * i, b = a + 1;
        return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four),
                                        _mm256_set_epi32(b, b, b, b, a, a, a, a));
    }
    // The first lane of each weight row
    static __m128 first(const Floats x[2]) {
        const __m128 ab = _mm_unpacklo_ps(_mm256_castps256_ps128(x[0]),
                                          _mm256_extractf128_ps(x[0], 1));
        const __m128 cd = _mm_unpacklo_ps(_mm256_castps256_ps128(x[1]),
                                          _mm256_extractf128_ps(x[1], 1));
        return _mm_movelh_ps(ab, cd);
    }
    static Floats folded(Floats x) {
        x = add(x, _mm256_permute_ps(x, 0x0e));
        return add(x, _mm256_permute_ps(x, 0x01));
    }
};

// Sums for eight weight rows side by side, two lanes to each
struct SideBySide {
    static constexpr int AT_ONCE = 4;  // rows whose sums have room
    Ints low = zero_ints(), high = zero_ints();

    // Some bits of eight bytes of each weight row by turns, N times
    template <int N>
    struct Bytes {
        Ints low[N], high[N];
        Bytes(const uint8_t * qs, int shift, int bits) {
            const auto part = [&](int i) {
                return masked(_mm256_srli_epi16(load_32(qs + 32 * i), shift), bits);
            };
            for (int i = 0; i < N; ++i) {
                low[i] = part(2 * i);
                high[i] = part(2 * i + 1);
            }
        }
    };
    // Each weight row's scale of 16 bits
    struct Scales {
        Ints low, high;
        explicit Scales(__m128i eight) {
            const Ints all = _mm256_broadcastsi128_si256(eight);
            const Ints order = _mm256_set_epi64x(0x0706070607060706, 0x0504050405040504,
                                                 0x0302030203020302, 0x0100010001000100);
            low = _mm256_shuffle_epi8(all, order);
            high = _mm256_shuffle_epi8(all, _mm256_add_epi8(order, _mm256_set1_epi8(8)));
        }
    };
    template <int N>
    void add(const Bytes<N> & weights, const int8_t * row, const Scales & scales) {
        Ints lows = zero_ints(), highs = zero_ints();  // sixteen bits hold eight products each
        for (int i = 0; i < N; ++i) {
            int64_t eight;
            __builtin_memcpy(&eight, row + 8 * i, 8);
            const Ints part = _mm256_set1_epi64x(eight);
            lows = _mm256_add_epi16(lows, _mm256_maddubs_epi16(weights.low[i], part));
            highs = _mm256_add_epi16(highs, _mm256_maddubs_epi16(weights.high[i], part));
        }
        low = add_scaled(low, lows, scales.low);
        high = add_scaled(high, highs, scales.high);
    }
    Floats sums() const { return to_floats(_mm256_hadd_epi32(low, high)); }
    static Floats numbers(const uint16_t * d) { return weight_scales(eight_halves(d)); }
    static __m256 in_order(Floats x) {
        return _mm256_permutevar8x32_ps(x, _mm256_set_epi32(7, 6, 3, 2, 5, 4, 1, 0));
    }
};
