// The kernel of formats in blocks of 32 integers of up to eight bits that lie as ours lay them out
// (our_layout.h): a block of each of LANES weight rows, by turns four weights of each.
#pragma once

#include "../rounding.h"
#include "dots.h"

#include <climits>
#include <type_traits>

namespace {

template <class Block, class = void>
constexpr bool HAS_QH = false;
template <class Block>
constexpr bool HAS_QH<Block, std::void_t<decltype(Block::qh)>> = true;

// out (P, C) = rows (P, K) times weights (C, K), C = LANES. For every block b and row p
//
//     sums[p] += the sum of 32 products of bytes * (d of the weight row * d of the row)
//     mins[p] += m of the weight row * s of the row, where the format has minima
//
// and in the end the two are added. A lane is a weight row: a block's products are added up in
// integers, exactly, and nothing is added up across lanes. `Dots` and ggml keep eight sums of each
// pair; these bits are others, the same in any company.
//
// A format is one of `Dots`, with its Block as in a file. Rows are rounded as ggml does for it, to
// the format's Row; or, for weights with minima, to RowQ8_0: their sums are then in float, where
// RowQ8_1's, halves, are infinite for large rows.
template <class Format, class RoundedTo = typename Format::Row>
struct LaneDots {
    using InFile = typename Format::Block;
    using Row = RoundedTo;
    static constexpr abi::Type ROW = std::is_same_v<Row, RowQ8_0> ? abi::Q8_0 : Format::ROW;
    static constexpr int BLOCK = 32, COLUMNS = LANES, SIDE_BY_SIDE = LANES, ROWS = 1;
    static constexpr int AT_ONCE = HAS_FEW_REGISTERS ? 4 : 8, MOST_ROWS = INT_MAX;
    static constexpr bool HAS_MINS = Format::ROW == abi::Q8_1;
    static constexpr bool HAS_NIBBLES = sizeof(InFile::qs) == 16, HAS_FIFTH = HAS_QH<InFile>;
    static constexpr int STEPS = 8;  // of four weights
    static constexpr int STORED = HAS_NIBBLES ? STEPS / 2 : STEPS;  // steps that lie apart

    // Weights 4 i to 4 i + 3 of each weight row are in qs[i]; nibbles as in a file, where those of
    // weights 16 and up are the high ones. Where the fifth bits lie, vectors say.
    struct Block {
        uint16_t d[LANES], m[HAS_MINS ? LANES : 0];
        uint8_t high[HAS_FIFTH ? 4 * LANES : 0];
        uint8_t qs[STORED][4 * LANES];
    };
    static_assert(sizeof(Block) == LANES * sizeof(InFile));

    // One weight row's block into its lane
    static void lay_out(const InFile & from, int column, Block & to) {
        to.d[column] = from.d;
        if constexpr (HAS_MINS) to.m[column] = from.m;
        for (int i = 0; i < STORED; ++i) {
            uint32_t four;
            memcpy(&four, from.qs + 4 * i, sizeof(four));
            four ^= IS_MOVED_UP ? 0x80808080 : 0;
            memcpy(to.qs[i] + 4 * column, &four, sizeof(four));
        }
        if constexpr (HAS_FIFTH) {
            for (int i = 0; i < STEPS; ++i)
                put_fifth_bits(to.high, column, i, from.qh[i / 2] >> (i % 2 * 4) & 15);
        }
    }

    // n_rows weight rows of so many blocks, as in a file, from a group's first one on
    static void lay_out(const void * file, int64_t n_rows, int64_t n_blocks, void * to) {
        const InFile * from = (const InFile *)file;
        for (int64_t row = 0; row < n_rows; ++row) {
            Block * group = (Block *)to + row / COLUMNS * n_blocks;
            for (int64_t b = 0; b < n_blocks; ++b)
                lay_out(from[row * n_blocks + b], row % COLUMNS, group[b]);
        }
    }

    struct Unit {
        int8_t qs[STEPS][4];
        int32_t start;  // takes the weights' offset back
        float d, s;
    };

    static void pack(Unit & unit, int, const Row & block) {
        memcpy(unit.qs, block.qs, 32);
        unit.d = _cvtsh_ss(block.d);
        unit.start = Format::OFFSET ? sum_of_lanes(sums_of_four(block.qs, -Format::OFFSET)) : 0;
        if constexpr (HAS_MINS) unit.s = scaled_sum(block);
    }

#ifdef MTP_AVX512
    // n blocks of a row, rounded into Units so many apart: what `pack` makes of ggml's Rows
    static void pack_straight(const float * x, int n, Unit * units, int step) {
        round_fours(x, n, [=](const Rounded & rounded, int b, int64_t i) {
            Unit & unit = units[i * step];
            alignas(16) float d[4], s[4];
            alignas(16) int32_t sums[4];
            _mm_store_ps(d, _mm_cvtph_ps(rounded.d_halves()));
            _mm_store_ps(s, HAS_SUMS_IN_HALF ? _mm_cvtph_ps(rounded.s_halves()) : rounded.s());
            _mm_store_si128((__m128i *)sums, rounded.sum);
            rounded.store(b, (int8_t *)unit.qs);
            unit.d = d[b];
            unit.start = -Format::OFFSET * sums[b];
            if constexpr (HAS_MINS) unit.s = s[b];
        });
    }
#endif

    // Of so many Units what is loaded of rows serves two groups: their sums have room in registers.
    static constexpr int MOST_WITH_TWO_GROUPS = HAS_FEW_REGISTERS ? 0 : 4;

    template <int P, int G = 1>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const Block * blocks = (const Block *)weights;
        Floats sums[G][P], mins[G][P];
        std::fill_n(sums[0], G * P, zeros());
        std::fill_n(mins[0], G * P, zeros());
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            Ints dots[G][P];
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p)
                for (int g = 0; g < G; ++g) dots[g][p] = all_ints(units[p].start);
            for (int g = 0; g < G; ++g) ahead.fetch<sizeof(Block)>(g * n_blocks + b);
#pragma GCC unroll 8
            for (int i = 0; i < STEPS; i += STEPS_AT_A_TIME)
                add_steps<P, G>(blocks + b, n_blocks, i, units, dots);
#pragma GCC unroll 2
            for (int g = 0; g < G; ++g) {
                const Block & block = blocks[g * n_blocks + b];
                const Floats d = halves_of_lanes(block.d);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p)
                    sums[g][p] = multiply_add(multiply(d, all(units[p].d)), to_floats(dots[g][p]),
                                              sums[g][p]);
                if constexpr (HAS_MINS) {
                    const Floats m = halves_of_lanes(block.m);
#pragma GCC unroll 8
                    for (int p = 0; p < P; ++p)
                        mins[g][p] = multiply_add(m, all(units[p].s), mins[g][p]);
                }
            }
        }
        for (int g = 0; g < G; ++g)
            for (int p = 0; p < P; ++p)
                store(out + p * stride + g * COLUMNS,
                      HAS_MINS ? add(sums[g][p], mins[g][p]) : sums[g][p]);
    }

private:
    static constexpr bool HAS_SUMS_IN_HALF = ROW == abi::Q8_1;
    static float scaled_sum(const RowQ8_1 & row) { return _cvtsh_ss(row.s); }
    static float scaled_sum(const RowQ8_0 & row) {
        return _cvtsh_ss(row.d) * sum_of_lanes(sums_of_four(row.qs, 1));
    }

    static constexpr bool IS_MOVED_UP = !HAS_NIBBLES && Format::OFFSET != 0;

    static Ints step(const Block & block, int i) {
        const Ints stored = load((const int8_t *)block.qs[i % STORED]);
        if constexpr (!HAS_NIBBLES) return stored;
        const Ints nibbles = i < STORED ? low_nibbles(stored) : high_nibbles(stored);
        if constexpr (HAS_FIFTH) return with_fifth_bits_of_step(nibbles, block.high, i);
        return nibbles;
    }
    // Sums of pairs of products have room in 16 bits for so many steps, where there are any.
    static constexpr int STEPS_AT_A_TIME = !HAS_SUMS_OF_PAIRS || !HAS_NIBBLES ? 1
                                           : HAS_FIFTH                        ? 4
                                                                              : STEPS;

    // blocks: the same one of each group, so many apart
    template <int P, int G>
    static void add_steps(const Block * blocks, int apart, int first, const Unit * units,
                          Ints (&dots)[G][P]) {
        if constexpr (STEPS_AT_A_TIME == 1) {
            Ints w[G];
#pragma GCC unroll 2
            for (int g = 0; g < G; ++g) w[g] = step(blocks[g * apart], first);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p)
                for (int g = 0; g < G; ++g)
                    dots[g][p] = with_products(dots[g][p], w[g], units[p], first);
        } else {
            static_assert(G == 1);
            const Block & block = *blocks;
            Ints pairs[P];
            std::fill_n(pairs, P, all_ints(0));
#pragma GCC unroll 8
            for (int i = first; i < first + STEPS_AT_A_TIME; ++i) {
                const Ints w = step(block, i);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p)
                    pairs[p] = with_pairs(pairs[p], w, four_bytes(units[p].qs[i]));
            }
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) dots[0][p] = with_sums_of_pairs(dots[0][p], pairs[p]);
        }
    }
    static Ints with_products(Ints sums, Ints weights, const Unit & unit, int i) {
        const auto row = four_bytes(unit.qs[i]);
        if constexpr (Format::IS_SIGNED) return signed_dot(sums, weights, row);
        else return dot(sums, weights, row);
    }
};

}  // namespace
