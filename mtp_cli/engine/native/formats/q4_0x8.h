// Q4_0 as ggml repacks it, its block_q4_0x8: a block of each of eight weight rows, by turns eight
// bytes of each. Nibbles are signed here: ggml has flipped their top bit, which takes the 8 off.
#pragma once

#include "../tiles.h"
#include "rows.h"

namespace {

// out (P * R, C) = rows (P * R, K) times weights (C, K), C = 8, with R rows to a vector. For every
// block b and Unit p
//
//     sums[p] += the sum of 32 products of bytes * (d of the weight row * d of the row)
//
// A lane is a weight row, as in ggml's kernel for one row; AVX-512 has such lanes for two rows.
// Bytes are multiplied unsigned by signed: flipping the nibbles' top bit again makes them unsigned
// and 8 too large. `start`, -8 times the row's sum, takes that back, exactly, in integers.
struct Q4_0x8 {
    struct Block {
        uint16_t d[8];
        uint8_t qs[128];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int BLOCK = 32, COLUMNS = 8, SIDE_BY_SIDE = 8, ROWS = PER_VECTOR, AT_ONCE = 4;
    static constexpr int MOST_ROWS = MOST_ROWS_BESIDE_GEMM;

    struct Unit {
        int8_t qs[32 * ROWS];
        int32_t start[ROWS];
        float d[ROWS];
    };

    static void pack(Unit & unit, int row, const RowQ8_0 & block) {
        memcpy(unit.qs + 32 * row, block.qs, 32);
        unit.start[row] = sum_of_lanes(sums_of_four(block.qs, -8));
        unit.d[row] = _cvtsh_ss(block.d);
    }

    template <int P>
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int n_rows) {
        const Block * blocks = (const Block *)weights;
        Floats sums[P];
        for (int p = 0; p < P; ++p) sums[p] = zeros();
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            prefetch((const char *)(blocks + b) + ahead.of(b), sizeof(Block));
            const EightRows eight(blocks[b].qs);
            const Floats d = weight_scales(blocks[b].d);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                const Floats scale = multiply(d, row_scales(units[p].d));
                const Ints products = eight.sums(units[p].qs, units[p].start);
                sums[p] = multiply_add(to_floats(products), scale, sums[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            store_eight(sums[p], out + p * ROWS * stride, stride, n_rows - p * ROWS);
        }
    }
};

}  // namespace
