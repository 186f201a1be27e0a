// Vector operations of the kernels for many rows, in AVX-512 with VNNI: a lane is a weight row.
#pragma once

#include "super_blocks_avx512.h"

#include <cstring>

// The same eight bytes in every two lanes
inline Ints eight_bytes(const void * x) {
    int64_t eight;
    memcpy(&eight, x, sizeof(eight));
    return _mm512_set1_epi64(eight);
}
inline Ints load_64(const void * x) { return _mm512_load_si512(x); }
inline void store_64(void * out, Ints x) { _mm512_store_si512(out, x); }
// x, in a register: where compilers would rather load it anew for every row
inline Ints kept(Ints x) {
    asm("" : "+v"(x));
    return x;
}

// sum + four products of bytes in each lane; one factor is unsigned
inline Ints dot_bytes(Ints sum, Ints unsigned_bytes, Ints signed_bytes) {
    return _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
}
// sum + two products of 16 bits in each lane
inline Ints dot_pairs(Ints sum, Ints a, Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }

// Fours of bytes of 64: by turns one of the first half, one of the second
inline Ints halves_by_turns(Ints x) {
    const Ints order = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
    return _mm512_permutexvar_epi32(order, x);
}
// The even fours of bytes of two vectors, or the odd ones
inline Ints even_fours(Ints a, Ints b) {
    const Ints even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_epi32(a, even, b);
}
inline Ints odd_fours(Ints a, Ints b) {
    const Ints odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_permutex2var_epi32(a, odd, b);
}

// Sixteen weight rows of eight eights of bytes each, turned: for each of the eights, rows 0, 1, 4,
// 5, 8, 9, 12 and 13, and then the others, so that two vectors of sums, packed to 16 bits, have the
// rows in order
struct TurnedEights {
    Ints x[8][2];

    explicit TurnedEights(const Ints rows[16]) {
        turn(rows, 0);
        turn(rows, 1);
    }

private:
    void turn(const Ints rows[16], int half) {
        Ints even[4], odd[4];
        for (int i = 0; i < 4; ++i) {
            const Ints a = rows[4 * i + 2 * half], b = rows[4 * i + 2 * half + 1];
            even[i] = _mm512_unpacklo_epi64(a, b);
            odd[i] = _mm512_unpackhi_epi64(a, b);
        }
        turn(even, 0, half);
        turn(odd, 1, half);
    }
    void turn(const Ints pairs[4], int first, int half) {
        const Ints a = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0x44);
        const Ints b = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0x44);
        const Ints c = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0xee);
        const Ints d = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0xee);
        x[first][half] = _mm512_shuffle_i64x2(a, b, 0x88);
        x[first + 2][half] = _mm512_shuffle_i64x2(a, b, 0xdd);
        x[first + 4][half] = _mm512_shuffle_i64x2(c, d, 0x88);
        x[first + 6][half] = _mm512_shuffle_i64x2(c, d, 0xdd);
    }
};
// Two vectors of sums of such rows, in 16 bits: of each row by turns what belongs to its eights'
// first four bytes and to the last
inline Ints packed_sums(Ints a, Ints b) { return _mm512_packs_epi32(a, b); }

// Eight fours of bytes of each of 16 weight rows, turned: rows i and 8 + i are the halves of x[i],
// and out[i] gets the i-th four of every row
inline void turn_fours(const Ints x[8], int8_t (*out)[64]) {
    Ints pairs[8], fours[8];  // of rows, of which a vector has two or four in each quarter
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    }
    const Ints low = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
    const Ints high = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
    for (int i = 0; i < 4; ++i) {
        store_64(out[i], _mm512_permutex2var_epi64(fours[i], low, fours[i + 4]));
        store_64(out[i + 4], _mm512_permutex2var_epi64(fours[i], high, fours[i + 4]));
    }
}

// Sums for each weight row, added up in the order of ggml's hsum_float_8
inline Floats sum_of_eight(const Floats x[8]) {
    const Floats even = add(add(x[0], x[4]), add(x[2], x[6]));
    return add(even, add(add(x[1], x[5]), add(x[3], x[7])));
}
