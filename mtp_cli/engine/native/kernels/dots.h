// The kernel of formats in blocks of 32 integers of up to eight bits, which ggml multiplies by
// rows of signed bytes with `vec_dot`.
#pragma once

#include "../tiles.h"

namespace {

// out (P * R, C) = rows (P * R, K) times weights (C, K), C = 4, with R rows to a vector. For every
// block b, weight row c and Unit p
//
//     sums[p][c] += (d of c * d of the row) * eight sums of four products of bytes
//
// and once all of K is through, the eight lanes of a row's sums are added up. These are the sums
// of ggml's kernel in its order: eight for each pair of a weight row and a row. AVX-512 holds the
// sums of two rows in a vector; 4 * 4 vectors of sums are half of its 32 registers.
//
// A format has
//   Block, Row, ROW, MOST_ROWS   as kernels have. Block begins with the scale d and, where ROW is
//              Q8_1, the minimum m, which is multiplied by the row's s.
//   weights    a Block's 32 numbers as bytes, once for every row of a vector
//   OFFSET     what was added to them. VNNI multiplies unsigned weights by signed rows, so signed
//              weights are moved up; `start`, -OFFSET times the row's sums of four, takes it back,
//              exactly, since these are integers.
//   HIGH       what the upper 16 are multiplied by. High nibbles stay where they are in their
//              bytes, which saves a shift; the row's scale for their lanes is divided by HIGH,
//              exactly, since that is a power of two.
//   IS_SIGNED  whether the bytes are signed: AVX2's product has no room for an OFFSET of 128, and
//              takes the sign from the weights to the row.
template <class Format>
struct Dots {
    using Block = typename Format::Block;
    using Row = typename Format::Row;
    static constexpr abi::Type ROW = Format::ROW;
    static constexpr int BLOCK = 32, COLUMNS = 4, SIDE_BY_SIDE = 1, ROWS = PER_VECTOR, AT_ONCE = 4;
    static constexpr bool HAS_MINS = Format::ROW == abi::Q8_1;
    static constexpr int MOST_ROWS = Format::MOST_ROWS;

    struct alignas(32) Unit {
        int8_t qs[32 * ROWS];
        float d[8 * ROWS];
        int32_t start[Format::OFFSET ? 8 * ROWS : 0];  // takes the weights' offset back
        float s[HAS_MINS ? 4 * ROWS : 0];
    };

    static void pack(Unit & unit, int row, const Row & block) {
        memcpy(unit.qs + 32 * row, block.qs, 32);
        // What the weights in the upper lanes are too large by, the scale takes back.
        const __m128 d = _mm_set1_ps(_cvtsh_ss(block.d));
        _mm_storeu_ps(unit.d + 8 * row, d);
        _mm_storeu_ps(unit.d + 8 * row + 4, _mm_mul_ps(d, _mm_set1_ps(1.0f / Format::HIGH)));
        if constexpr (Format::OFFSET != 0) {
            const __m256i sums = sums_of_four(block.qs, -Format::OFFSET);
            const __m256i high = _mm256_set_m128i(_mm_set1_epi32(Format::HIGH), _mm_set1_epi32(1));
            _mm256_storeu_si256((__m256i *)(unit.start + 8 * row), _mm256_mullo_epi32(sums, high));
        }
        if constexpr (HAS_MINS) {
            _mm_storeu_ps(unit.s + 4 * row, _mm_set1_ps(_cvtsh_ss(block.s)));
        }
    }

    static Ints products(Ints weights, const Unit & unit) {
        if constexpr (Format::OFFSET)
            return dot(load(unit.start), weights, unit.qs);
        else if constexpr (Format::IS_SIGNED)
            return signed_dot(weights, unit.qs);
        else
            return dot(weights, unit.qs);
    }

    template <int P>
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int n_rows) {
        const size_t row_bytes = n_blocks * sizeof(Block);
        Floats sums[P][COLUMNS];
        Floats4 mins[P];
        for (int p = 0; p < P; ++p) {
            for (int c = 0; c < COLUMNS; ++c) sums[p][c] = zeros();
            mins[p] = zeros4();
        }
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            const Block * blocks[COLUMNS];
            for (int c = 0; c < COLUMNS; ++c) {
                blocks[c] = (const Block *)(weights + c * row_bytes) + b;
                prefetch((const char *)blocks[c] + ahead.of(b), 1);
            }
            const __m256 pairs = first_pairs(blocks[0], blocks[1], blocks[2], blocks[3]);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) {
                const Ints w = Format::weights(*blocks[c]);
                const Floats d = first_of_pair(pairs, c);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const Floats scale = multiply(d, load(units[p].d));
                    sums[p][c] = multiply_add(scale, to_floats(products(w, units[p])), sums[p][c]);
                }
            }
            if constexpr (HAS_MINS) {
                const Floats4 four = second_of_pairs(pairs);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    mins[p] = multiply_add(four, load4(units[p].s), mins[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            Floats4 four = sums4(sums[p]);
            if constexpr (HAS_MINS) four = add(four, mins[p]);
            store4(four, out + p * ROWS * stride, stride, n_rows - p * ROWS);
        }
    }
};

}  // namespace
