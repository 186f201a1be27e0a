// The kernel of formats in blocks of 32 integers of up to eight bits, which ggml multiplies by
// rows of signed bytes with `vec_dot`.
#pragma once

#include "../tiles.h"

namespace {

// out (P, C) = rows (P, K) times weights (C, K), C = 4. For every block b, weight row c and row p
//
//     sums[p][c] += (d of c * d of the row) * eight sums of four products of bytes
//
// and once all of K is through, the eight lanes of a pair's sums are added up. These are the sums
// of ggml's kernel in its order: eight for each pair of a weight row and a row. A vector of AVX-512
// holds the sums of two weight rows, so that none is half empty with an odd number of rows;
// 8 * 2 vectors of sums are half of its 32 registers.
//
// A format has
//   Block, Row, ROW, MOST_ROWS   as kernels have. Block begins with the scale d and, where ROW is
//              Q8_1, the minimum m, which is multiplied by the row's s.
//   weights    the 32 numbers as bytes of as many Blocks as a vector has weight rows, two or only
//              the first, once for all rows
//   OFFSET     what was added to them. VNNI multiplies unsigned weights by signed rows, so signed
//              weights are moved up; `start`, -OFFSET times the row's sums of four, takes it back,
//              exactly, since these are integers.
//   HIGH       what the upper 16 are multiplied by. High nibbles stay where they are in their
//              bytes, which saves a shift; the weight row's scale for their lanes is divided by
//              HIGH, exactly, since that is a power of two.
//   IS_SIGNED  whether the bytes are signed: AVX2's product has no room for an OFFSET of 128, and
//              takes the sign from the weights to the row.
template <class Format>
struct Dots {
    using Block = typename Format::Block;
    using Row = typename Format::Row;
    static constexpr abi::Type ROW = Format::ROW;
    static constexpr int BLOCK = 32, COLUMNS = 4, SIDE_BY_SIDE = 1, ROWS = 1;
    static constexpr int AT_ONCE = 4 * PER_VECTOR, MOST_ROWS = Format::MOST_ROWS;
    static constexpr int VECTORS = COLUMNS / PER_VECTOR;  // of sums for a row
    static constexpr bool HAS_MINS = Format::ROW == abi::Q8_1;
    static constexpr bool HAS_PAIRS = HAS_MINS || Format::HIGH != 1;

    struct alignas(32) Unit {
        int8_t qs[32];
        int32_t start[Format::OFFSET ? 8 : 0];  // takes the weights' offset back
        float d;
        float s[HAS_MINS ? 1 : 0];
    };

    static void pack(Unit & unit, int, const Row & block) {
        memcpy(unit.qs, block.qs, 32);
        unit.d = _cvtsh_ss(block.d);
        if constexpr (Format::OFFSET != 0) {
            const __m256i sums = sums_of_four(block.qs, -Format::OFFSET);
            const __m256i high = _mm256_set_m128i(_mm_set1_epi32(Format::HIGH), _mm_set1_epi32(1));
            _mm256_storeu_si256((__m256i *)unit.start, _mm256_mullo_epi32(sums, high));
        }
        if constexpr (HAS_MINS) unit.s[0] = _cvtsh_ss(block.s);
    }

    static Ints dots(Ints weights, const Unit & unit) {
        const auto row = for_each_weight_row(unit.qs);
        if constexpr (Format::OFFSET)
            return dot(for_each_weight_row(unit.start), weights, row);
        else if constexpr (Format::IS_SIGNED)
            return signed_dot(weights, row);
        else
            return dot(weights, row);
    }

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const size_t row_bytes = n_blocks * sizeof(Block);
        Floats sums[P][VECTORS];
        __m128 mins[P];
        for (auto & row : sums) std::fill_n(row, VECTORS, zeros());
        std::fill_n(mins, P, _mm_setzero_ps());
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            const Block * blocks[COLUMNS];
            ahead.fetch<COLUMNS * sizeof(Block)>(b);
            for (int c = 0; c < COLUMNS; ++c)
                blocks[c] = (const Block *)(weights + c * row_bytes) + b;
            __m256 pairs;  // of a scale and what follows it, of each weight row
            if constexpr (HAS_PAIRS)
                pairs = first_pairs(blocks[0], blocks[1], blocks[2], blocks[3]);
            Ints w[VECTORS];
            Floats d[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                const int c = v * PER_VECTOR;
                const Block &first = *blocks[c], &last = *blocks[c + PER_VECTOR - 1];
                w[v] = Format::weights(first, last);
                if constexpr (HAS_PAIRS) d[v] = first_of_pairs<Format::HIGH>(pairs, v);
                else d[v] = for_each_lane(first.d, last.d);
            }
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const Floats row_scale = all(units[p].d);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) {
                    const Floats products = to_floats(dots(w[v], units[p]));
                    sums[p][v] = multiply_add(multiply(d[v], row_scale), products, sums[p][v]);
                }
            }
            if constexpr (HAS_MINS) {
                const __m128 four = seconds(pairs);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p)
                    mins[p] = _mm_fmadd_ps(four, _mm_set1_ps(units[p].s[0]), mins[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            __m128 four = sums_of_rows(sums[p]);
            if constexpr (HAS_MINS) four = _mm_add_ps(four, mins[p]);
            _mm_storeu_ps(out + p * stride, four);
        }
    }
};

}  // namespace
