// The kernel of super-blocks for a prompt's many rows, in AVX-512: a lane is a weight row.
#pragma once

#include "super_dots.h"

#include "../many_rows.h"
#include "../many_rows_avx512.h"

namespace {

// A block of one row. Of every 64 numbers, qs has by turns four of the first half and four of the
// second one; those of lane 0 of ggml's eight come first.
struct alignas(8) ManySuperUnit {
    int8_t qs[8][4][8];
    int16_t sums[16], sums_of_32[8];
    float d;
};

// A block of 16 weight rows
struct alignas(64) SuperPanel {
    Ints qs[8][4][2];          // eights as in a row, TurnedEights
    Ints scales[2][4];         // in 16 bits, of these eights' halves: of lanes 0 to 3, and 4 to 7
    int16_t pairs[8][2 * 16];  // what two sums of the row are multiplied by
    Ints start[8];             // what takes an offset of the row back, in each lane
    float d[16], dmin[16];
};

inline Ints pair_products(Ints sum, const int16_t * pairs, const int16_t * sums) {
    return dot_pairs(sum, load_64(pairs), four_bytes(sums));
}
// N pairs of a weight row
template <int N>
void put_pairs(SuperPanel & panel, int column, const void * pairs) {
    for (int i = 0; i < N; ++i)
        memcpy(panel.pairs[i] + 2 * column, (const int16_t *)pairs + 2 * i, 4);
}

// A format's Mins, for many rows
template <class Mins>
struct ManyMins;

template <int ONE>
struct ManyMins<NoMins<ONE>> {
    template <class Block>
    static void unpack(const Block &, SuperPanel &, int) {}

    template <int P>
    struct Sums {
        void add_block(const SuperPanel &, const ManySuperUnit *, Floats (*)[8]) {}
        Floats added(int, Floats sum) const { return sum; }
    };
};

template <class Format, int ONE, bool IS_ADDED_UP>
struct ManyMins<FourMins<Format, ONE, IS_ADDED_UP>> {
    template <class Block>
    static void unpack(const Block & block, SuperPanel & panel, int column) {
        const __m128i mins = Format::mins(block);
        put_pairs<4>(panel, column, &mins);
        panel.dmin[column] = -_cvtsh_ss(block.dmin);
    }

    template <int P>
    struct Sums {
        static constexpr int N = IS_ADDED_UP ? 1 : 4;
        Floats mins[P][N];

        Sums() {
            for (auto & row : mins) std::fill_n(row, N, zeros());
        }
        void add_block(const SuperPanel & panel, const ManySuperUnit * units, Floats (*)[8]) {
            for (int p = 0; p < P; ++p) {
                const Floats scale = multiply(load(panel.dmin), all(units[p].d));
                for (int n = 0; n < N; ++n) {
                    Ints products = zero_ints();
                    for (int i = n * 4 / N; i < (n + 1) * 4 / N; ++i)
                        products = pair_products(products, panel.pairs[i],
                                                 units[p].sums_of_32 + 2 * i);
                    mins[p][n] = multiply_add(scale, to_floats(products), mins[p][n]);
                }
            }
        }
        Floats added(int p, Floats sum) const {
            const auto & x = mins[p];
            if constexpr (IS_ADDED_UP) return add(sum, x[0]);
            else return add(sum, add(add(x[0], x[2]), add(x[1], x[3])));
        }
    };
};

template <class Format, int ONE>
struct ManyMins<LaneMins<Format, ONE>> {
    template <class Block>
    static void unpack(const Block & block, SuperPanel & panel, int column) {
        const __m256i mins = Format::mins(block);
        put_pairs<8>(panel, column, &mins);
        panel.dmin[column] = -_cvtsh_ss(block.dmin);
    }

    template <int P>
    struct Sums {
        void add_block(const SuperPanel & panel, const ManySuperUnit * units, Floats (*sums)[8]) {
            for (int p = 0; p < P; ++p) {
                const Floats scale = multiply(load(panel.dmin), all(units[p].d));
                for (int i = 0; i < 8; ++i) {
                    const Ints products =
                        pair_products(zero_ints(), panel.pairs[i], units[p].sums + 2 * i);
                    sums[p][i] = multiply_add(scale, to_floats(products), sums[p][i]);
                }
            }
        }
        Floats added(int, Floats sum) const { return sum; }
    };
};

// What `SuperDots` computes, to the bit, with the weights of 16 weight rows turned: each of ggml's
// eight lanes has a vector of sums of its own for each row. Two vectors of sums of four products
// are packed to 16 bits, so that one instruction multiplies them by their scales.
template <class Format>
struct ManySuperDots {
    using Block = typename Format::Block;
    using Weights = typename Format::Weights;
    using Row = RowQ8_K;
    using Unit = ManySuperUnit;
    using Panel = SuperPanel;
    using Mins = ManyMins<typename Format::template Mins<1>>;
    static constexpr abi::Type ROW = abi::Q8_K;
    static constexpr int BLOCK = 256, COLUMNS = 16, SIDE_BY_SIDE = 1, P = 8;
    static constexpr bool HAS_START = Weights::OFFSET == Offset::OF_WEIGHTS;

    static void pack(Unit & unit, const RowQ8_K & row) {
        const Ints flip = _mm512_set1_epi8(HAS_START ? (char)0x80 : 0);
        for (int i = 0; i < 4; ++i) {
            const Ints q = halves_by_turns(_mm512_loadu_si512(row.qs + 64 * i));
            alignas(64) int8_t eights[8][8];
            store_64(eights, _mm512_xor_si512(q, flip));
            for (int lane = 0; lane < 8; ++lane) memcpy(unit.qs[lane][i], eights[lane], 8);
        }
        memcpy(unit.sums, row.sums, sizeof(unit.sums));
        for (int i = 0; i < 8; ++i)
            unit.sums_of_32[i] = (int16_t)(row.sums[2 * i] + row.sums[2 * i + 1]);
        unit.d = row.d;
    }

    // sum + one lane's products of 64 numbers with a row, of each weight row
    static Ints add_products(Ints sum, const Ints weights[2], Ints row, Ints scales) {
        const auto products = [row](Ints x) {
            return HAS_START ? dot_bytes(zero_ints(), row, x) : dot_bytes(zero_ints(), x, row);
        };
        return dot_pairs(sum, packed_sums(products(weights[0]), products(weights[1])), scales);
    }

    [[gnu::flatten]]
    static void unpack(const char * weights, int n_blocks, int from, int to, Panel * panels) {
        const Block * blocks = (const Block *)weights;
        for (int b = from; b < to; ++b, ++panels) {
            Ints rows[4][COLUMNS];
            for (int c = 0; c < COLUMNS; ++c) {
                const Block & block = blocks[(size_t)c * n_blocks + b];
                const Weights unpacked(block);
                for (int i = 0; i < 4; ++i) rows[i][c] = halves_by_turns(unpacked.q[i]);
                unpack_scales(unpacked, *panels, c);
                Mins::unpack(block, *panels, c);
                panels->d[c] = _cvtsh_ss(block.d);
            }
            for (int i = 0; i < 4; ++i) {
                const TurnedEights turned(rows[i]);
                for (int lane = 0; lane < 8; ++lane)
                    std::copy_n(turned.x[lane], 2, panels->qs[lane][i]);
            }
            if constexpr (HAS_START) unpack_start(*panels);
        }
    }
    static void unpack_scales(const Weights & unpacked, Panel & panel, int column) {
        for (int i = 0; i < 4; ++i) {
            int16_t scales[4][8];  // each for sixteen numbers, eight times
            memcpy(scales, &unpacked.scales[i], sizeof(scales));
            for (int j = 0; j < 4; ++j)
                ((int16_t *)&panel.scales[j % 2][i])[2 * column + j / 2] = scales[j][0];
        }
        if constexpr (Weights::OFFSET == Offset::OF_SUMS)
            put_pairs<8>(panel, column, &unpacked.offset);
    }
    static void unpack_start(Panel & panel) {
        for (int lane = 0; lane < 8; ++lane) {
            Ints of_zeros = zero_ints();
            for (int i = 0; i < 4; ++i)
                of_zeros = add_products(of_zeros, panel.qs[lane][i],
                                        _mm512_set1_epi8((char)0x80), panel.scales[lane / 4][i]);
            panel.start[lane] = negated(of_zeros);
        }
    }

    struct State {
        Floats sums[P][8];
        typename Mins::template Sums<P> mins;

        State() {
            for (auto & row : sums) std::fill_n(row, 8, zeros());
        }
        void finish(float * out, size_t stride, int n) const {
            for (int p = 0; p < n; ++p)
                store(out + p * stride, mins.added(p, sum_of_eight(sums[p])));
        }
    };

    [[gnu::flatten]]
    static void tile(const Panel * panels, int n, const Unit * units, State & state) {
        for (const Panel * panel = panels; panel < panels + n; ++panel, units += P) {
            state.mins.add_block(*panel, units, state.sums);
            for (int lane = 0; lane < 8; ++lane) add_lane(*panel, units, lane, state);
        }
    }
    static void add_lane(const Panel & panel, const Unit * units, int lane, State & state) {
        Ints sums[P];
        std::fill_n(sums, P, HAS_START ? panel.start[lane] : zero_ints());
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p)
                sums[p] = add_products(sums[p], panel.qs[lane][i],
                                       eight_bytes(units[p].qs[lane][i]),
                                       panel.scales[lane / 4][i]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
            if constexpr (Weights::OFFSET == Offset::OF_SUMS)
                sums[p] = pair_products(sums[p], panel.pairs[lane], units[p].sums + 2 * lane);
            const Floats scale = multiply(load(panel.d), all(units[p].d));
            Floats & out = state.sums[p][lane];
            out = multiply_add(scale, to_floats(sums[p]), out);
        }
    }
};

template <class Format>
struct ForManyRows<SuperDots<Format>> {
    using Kernel = ManySuperDots<Format>;
};

}  // namespace
