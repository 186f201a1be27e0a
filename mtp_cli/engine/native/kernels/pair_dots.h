// The kernel of formats in blocks of 32 numbers of four bits, looked up in a table, which ggml
// multiplies by rows in Q8_0 with `vec_dot`, two blocks at a time.
#pragma once

#include "../formats/rows.h"
#include "../tiles.h"

#include <climits>

namespace {

// out (P, C) = rows (P, K) times weights (C, K), C = 4. For every pair of blocks, weight row c and
// row p
//
//     sums[p][c] += (d of c * d of the row) * eight sums of four products of bytes, for each block
//
// and once all of K is through, the first blocks' sums and the second ones' are added, then their
// eight lanes. These are the sums of ggml's kernel in its order: it has a vector of eight for even
// blocks and one for odd ones. A vector of AVX-512 holds both. An odd block at the end, which ggml
// adds up as one integer, is not taken.
//
// A format has
//   Block      as in a file, with the nibbles in `qs`
//   table      of sixteen bytes
//   OFFSET     what was added to these, so that unsigned bytes are multiplied by signed ones.
//              `start`, -OFFSET times the row's sums of four, takes it back. Where it is 0, bytes
//              are signed.
//   scales     d of eight Blocks
template <class Format>
struct PairDots {
    struct Block {
        typename Format::Block halves[2];
    };
    struct Row {
        RowQ8_0 halves[2];
    };
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int BLOCK = 64, COLUMNS = 4, SIDE_BY_SIDE = 1, ROWS = 1;
    static constexpr int AT_ONCE = 2 * PER_VECTOR, MOST_ROWS = INT_MAX;
    static constexpr int VECTORS = 2 / PER_VECTOR;  // of sums for a pair of blocks

    struct alignas(64) Unit {
        int8_t qs[64];
        float d[16];
        int32_t start[Format::OFFSET ? 16 : 0];
    };

    static void pack(Unit & unit, int, const Row & row) {
        for (int i = 0; i < 2; ++i) {
            const RowQ8_0 & block = row.halves[i];
            memcpy(unit.qs + 32 * i, block.qs, 32);
            _mm256_storeu_ps(unit.d + 8 * i, _mm256_set1_ps(_cvtsh_ss(block.d)));
            if constexpr (Format::OFFSET != 0) {
                const __m256i sums = sums_of_four(block.qs, -Format::OFFSET);
                _mm256_storeu_si256((__m256i *)(unit.start + 8 * i), sums);
            }
        }
    }

    static Ints products(Ints weights, const Unit & unit, int v) {
        const auto qs = load(unit.qs + 4 * LANES * v);
        if constexpr (Format::OFFSET != 0)
            return dot(load(unit.start + LANES * v), weights, qs);
        else
            return signed_dot(weights, qs);
    }

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const size_t row_bytes = n_blocks * sizeof(Block);
        Floats sums[P][COLUMNS][VECTORS];
        for (auto & row : sums) {
            for (auto & column : row) std::fill_n(column, VECTORS, zeros());
        }
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            ahead.fetch<COLUMNS * sizeof(Block)>(b);
            const typename Format::Block * blocks[2 * COLUMNS];
            for (int c = 0; c < COLUMNS; ++c) {
                const Block * pair = (const Block *)(weights + c * row_bytes) + b;
                blocks[2 * c] = pair->halves;
                blocks[2 * c + 1] = pair->halves + 1;
            }
            const __m256 scales = Format::scales(blocks);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) {
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; ++v) {
                    const Ints w = pair_looked_up(blocks[2 * c]->qs, blocks[2 * c + 1]->qs, v,
                                                  Format::table());
                    const Floats d = pair_scales(scales, c, v);
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p) {
                        Floats & sum = sums[p][c][v];
                        const Floats scale = multiply(d, load(units[p].d + LANES * v));
                        sum = multiply_add(scale, to_floats(products(w, units[p], v)), sum);
                    }
                }
            }
        }
        for (int p = 0; p < P; ++p) {
            __m256 four[COLUMNS];
            for (int c = 0; c < COLUMNS; ++c) four[c] = added_pair(sums[p][c]);
            _mm_storeu_ps(out + p * stride, sums_of_four_vectors(four));
        }
    }
};

}  // namespace
