// The kernel of formats in blocks of 32 numbers of four bits that ggml has repacked: a block of each
// of eight weight rows, by turns eight bytes of each.
#pragma once

#include "../formats/rows.h"
#include "../tiles.h"

namespace {

// out (P * R, C) = rows (P * R, K) times weights (C, K), C = 8, with R rows to a vector. For every
// block b and Unit p
//
//     sums[p] += the sum of 32 products of bytes * (d of the weight row * d of the row)
//
// A lane is a weight row, as in ggml's kernel for one row; AVX-512 has such lanes for two rows.
//
// A format has
//   Block      ggml's, with the nibbles in `qs`
//   MOST_ROWS  as kernels have
//   Weights    EightRows or SignedEightRows: made from a Block's qs by `weights`
//   OFFSET     what was added to the numbers, so that unsigned bytes are multiplied by signed ones.
//              `start`, -OFFSET times the row's sum, takes it back, exactly, in integers.
//   scales     d of the eight weight rows, by `weight_scales`
template <class Format>
struct EightRowsDots {
    using Block = typename Format::Block;
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int BLOCK = 32, COLUMNS = 8, SIDE_BY_SIDE = 8, ROWS = PER_VECTOR, AT_ONCE = 4;
    static constexpr int MOST_ROWS = Format::MOST_ROWS;

    struct Unit {
        int8_t qs[32 * ROWS];
        int32_t start[ROWS];
        float d[ROWS];
    };

    static void pack(Unit & unit, int row, const RowQ8_0 & block) {
        memcpy(unit.qs + 32 * row, block.qs, 32);
        unit.start[row] = sum_of_lanes(sums_of_four(block.qs, -Format::OFFSET));
        unit.d[row] = _cvtsh_ss(block.d);
    }

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int n_rows) {
        const Block * blocks = (const Block *)weights;
        Floats sums[P];
        for (int p = 0; p < P; ++p) sums[p] = zeros();
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            ahead.fetch<sizeof(Block)>(b);
            const auto eight = Format::weights(blocks[b]);
            const Floats d = Format::scales(blocks[b]);
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
