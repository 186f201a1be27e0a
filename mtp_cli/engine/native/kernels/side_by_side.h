// The kernel of formats in super-blocks of 256 numbers that ggml has repacked: a block of each of
// eight weight rows, by turns eight bytes of each.
#pragma once

#include "super_dots.h"

#include <climits>

namespace {

// Of one block, in integers: the products with P rows, and what is to be taken off them
template <int P>
struct BlockSums {
    SideBySide lanes[P];
    __m256i mins[P];

    BlockSums() { std::fill_n(mins, P, _mm256_setzero_si256()); }

    // 8 N weights of each weight row, which the rows have from `from` on
    template <int N>
    void add(const SideBySide::Bytes<N> & weights, __m128i scales, const SuperUnit * units,
             int from) {
        const SideBySide::Scales each(scales);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) lanes[p].add(weights, units[p].qs + from, each);
    }
    // Two minima of each weight row, and two sums of the row
    template <int N>
    void add_mins(__m256i pairs, const SuperUnit * units, int16_t (SuperUnit::*sums)[N],
                  int from) {
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
            int two;
            memcpy(&two, units[p].*sums + from, sizeof(two));
            const __m256i products = _mm256_madd_epi16(pairs, _mm256_set1_epi32(two));
            mins[p] = _mm256_add_epi32(mins[p], products);
        }
    }
};

// out (P, C) = rows (P, K) times weights (C, K), C = 8. For every block b and row p
//
//     sums[p] += 256 products of bytes and a scale * (d of the weight row * d of the row)
//     mins[p] += products of minima and sums of the row * (dmin * d of the row)
//
// and in the end the minima are taken off. A lane is a weight row, as in ggml's kernel for one row.
//
// A format has
//   Block         ggml's
//   add           a Block's products with all rows to BlockSums
//   Scales        two scales of each weight row, and two minima; N_SCALES in a Block
//   place, shift  of eight weights of each weight row: where in qs, how far up their BITS are
template <class Format>
struct SideBySideDots {
    using Block = typename Format::Block;
    using Row = RowQ8_K;
    using Unit = SuperUnit;
    static constexpr abi::Type ROW = abi::Q8_K;
    static constexpr int BLOCK = 256, COLUMNS = 8, SIDE_BY_SIDE = 8, ROWS = 1;
    static constexpr int AT_ONCE = SideBySide::AT_ONCE, MOST_ROWS = INT_MAX;

    static void pack(Unit & unit, int, const RowQ8_K & row) { unit.pack(row); }

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const Block * blocks = (const Block *)weights;
        Floats sums[P];
        __m256 mins[P];
        std::fill_n(sums, P, zeros());
        std::fill_n(mins, P, _mm256_setzero_ps());
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            const Block & block = blocks[b];
            ahead.fetch<sizeof(Block)>(b);
            BlockSums<P> of_block;
            Format::add(block, units, of_block);
            const Floats d = SideBySide::numbers(block.d);
            const __m256 dmin = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)block.dmin));
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const __m256 min_scale = _mm256_mul_ps(dmin, _mm256_set1_ps(units[p].d));
                const __m256 min = _mm256_cvtepi32_ps(of_block.mins[p]);
                sums[p] =
                    multiply_add(of_block.lanes[p].sums(), multiply(d, all(units[p].d)), sums[p]);
                mins[p] = _mm256_fmadd_ps(min, min_scale, mins[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            const __m256 eight = _mm256_sub_ps(SideBySide::in_order(sums[p]), mins[p]);
            _mm256_storeu_ps(out + p * stride, eight);
        }
    }
};

}  // namespace
