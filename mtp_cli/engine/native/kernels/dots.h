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
// 8 * 2 vectors of sums are half of its 32 registers. AVX2 has 16 of them: with more than two rows
// some blocks are unpacked into memory, and two weight rows at a time are multiplied by up to four
// rows.
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
    static constexpr int VECTORS = COLUMNS / PER_VECTOR;  // of sums for a row
    static constexpr bool HAS_MINS = Format::ROW == abi::Q8_1;
    static constexpr bool HAS_PAIRS = HAS_MINS || Format::HIGH != 1;
    // With more rows weights are unpacked into memory first, where that pays.
    static constexpr int DIRECT = HAS_PAIRS ? ROWS_IN_REGISTERS : std::max(4, ROWS_IN_REGISTERS);
    static constexpr int AT_ONCE = Format::IS_SIGNED ? DIRECT : 8, MOST_ROWS = Format::MOST_ROWS;

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

    // A block of each of the four weight rows
    struct FourBlocks {
        const Block * blocks[COLUMNS];
        __m256 pairs;  // of a scale and what follows it, of each weight row

        FourBlocks(const char * weights, size_t row_bytes, int b) {
            for (int c = 0; c < COLUMNS; ++c)
                blocks[c] = (const Block *)(weights + c * row_bytes) + b;
            pairs = first_pairs(blocks[0], blocks[1], blocks[2], blocks[3]);
        }
        Ints unpacked(int v) const {
            const int c = v * PER_VECTOR;
            return Format::weights(*blocks[c], *blocks[c + PER_VECTOR - 1]);
        }
    };
    // The scale of each weight row, in its lanes: cheaper than pairs, with few rows
    struct LaneScales {
        Floats each[VECTORS];
        explicit LaneScales(const Block * const blocks[COLUMNS]) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                const int c = v * PER_VECTOR;
                each[v] = for_each_lane(blocks[c]->d, blocks[c + PER_VECTOR - 1]->d);
            }
        }
        struct Products {
            const Floats * each;
            Floats row_scale;
            Floats of(int v) const { return multiply(each[v], row_scale); }
        };
        Products times(float row_scale) const { return {each, all(row_scale)}; }
    };
    static auto scales_of(const FourBlocks & four) {
        if constexpr (HAS_PAIRS) return FourScales<Format::HIGH>(four.pairs);
        else return LaneScales(four.blocks);
    }

    template <int P>
    struct Mins {
        __m128 sums[P];
        Mins() { std::fill_n(sums, P, _mm_setzero_ps()); }
        void add(const FourBlocks & of, const Unit * units) {
            if constexpr (HAS_MINS) {
                const __m128 four = seconds(of.pairs);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p)
                    sums[p] = _mm_fmadd_ps(four, _mm_set1_ps(units[p].s[0]), sums[p]);
            }
        }
        __m128 added(int p, __m128 products) const {
            return HAS_MINS ? _mm_add_ps(products, sums[p]) : products;
        }
    };

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        Floats sums[P][VECTORS];
        for (auto & row : sums) std::fill_n(row, VECTORS, zeros());
        Mins<P> mins;
        if constexpr (P <= DIRECT)
            add_directly<P>(weights, n_blocks, units, n_units, ahead, sums, mins);
        else
            add_unpacked<P>(weights, n_blocks, units, n_units, ahead, sums, mins);
        for (int p = 0; p < P; ++p)
            _mm_storeu_ps(out + p * stride, mins.added(p, sums_of_rows(sums[p])));
    }

    template <int P>
    static void add_directly(const char * weights, int n_blocks, const Unit * units, int n_units,
                             const Ahead & ahead, Floats (&sums)[P][VECTORS], Mins<P> & mins) {
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            ahead.fetch<COLUMNS * sizeof(Block)>(b);
            const FourBlocks four(weights, n_blocks * sizeof(Block), b);
            const auto d = scales_of(four);
            Ints w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) w[v] = four.unpacked(v);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const auto scale = d.times(units[p].d);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) {
                    const Floats products = to_floats(dots(w[v], units[p]));
                    sums[p][v] = multiply_add(scale.of(v), products, sums[p][v]);
                }
            }
            mins.add(four, units);
        }
    }

    // Some blocks' weights for all rows, few enough to stay in the first cache
    template <int P>
    struct Unpacked {
        static constexpr int MOST = 24;
        Ints weights[MOST][VECTORS];
        typename FourScales<Format::HIGH>::Products scales[MOST][P];
    };

    template <int P>
    static void add_unpacked(const char * weights, int n_blocks, const Unit * units, int n_units,
                             const Ahead & ahead, Floats (&sums)[P][VECTORS], Mins<P> & mins) {
        constexpr int HALF = P > 4 ? (P + 1) / 2 : P;
        Unpacked<P> some;
        for (int b = 0, n; b < n_blocks; b += n, units += n * n_units) {
            n = std::min(Unpacked<P>::MOST, n_blocks - b);
            for (int i = 0; i < n; ++i) {
                ahead.fetch<COLUMNS * sizeof(Block)>(b + i);
                const FourBlocks four(weights, n_blocks * sizeof(Block), b + i);
                const FourScales<Format::HIGH> d(four.pairs);
                const Unit * of_block = units + i * n_units;
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) some.weights[i][v] = four.unpacked(v);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p) some.scales[i][p] = d.times(of_block[p].d);
                mins.add(four, of_block);
            }
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v += 2) {
                add_two<P, 0, HALF>(some, n, v, units, n_units, sums);
                if constexpr (HALF < P)
                    add_two<P, HALF, P - HALF>(some, n, v, units, n_units, sums);
            }
        }
    }

    // n blocks of weight rows v and v + 1 times N rows from FIRST on, whose sums are in registers
    template <int P, int FIRST, int N>
    static void add_two(const Unpacked<P> & some, int n, int v, const Unit * units, int n_units,
                        Floats (&all_sums)[P][VECTORS]) {
        asm volatile("" : : "r"(all_sums) : "memory");  // and no others'
        Floats sums[N][2];
#pragma GCC unroll 4
        for (int p = 0; p < N; ++p) {
            sums[p][0] = all_sums[FIRST + p][v];
            sums[p][1] = all_sums[FIRST + p][v + 1];
        }
        for (int i = 0; i < n; ++i, units += n_units) {
            const Ints w[2] = {some.weights[i][v], some.weights[i][v + 1]};
#pragma GCC unroll 4
            for (int p = 0; p < N; ++p) {
#pragma GCC unroll 2
                for (int j = 0; j < 2; ++j) {
                    const Floats products = to_floats(dots(w[j], units[FIRST + p]));
                    const Floats scale = some.scales[i][FIRST + p].of(v + j);
                    sums[p][j] = multiply_add(scale, products, sums[p][j]);
                }
            }
        }
#pragma GCC unroll 4
        for (int p = 0; p < N; ++p) {
            all_sums[FIRST + p][v] = sums[p][0];
            all_sums[FIRST + p][v + 1] = sums[p][1];
        }
    }
};

}  // namespace
