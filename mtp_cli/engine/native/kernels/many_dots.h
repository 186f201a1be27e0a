// The kernel of blocks of 32 integers for a prompt's many rows, in AVX-512: a lane is a weight row.
#pragma once

#include "dots.h"

#include "../many_rows.h"
#include "../many_rows_avx512.h"

namespace {

// What `Dots` computes, to the bit, with the weights of 16 weight rows turned: each of ggml's eight
// lanes has a vector of sums of its own for each row. A scale is multiplied once for all eight.
// Three rows' sums leave room for what is loaded; with two, loads would be the limit.
//
// Weights that have an OFFSET are signed bytes here, and rows 128 too large. What that makes
// depends on weights alone: `start` takes it back.
template <class Format>
struct ManyDots {
    using Block = typename Format::Block;
    using Row = typename Format::Row;
    static constexpr abi::Type ROW = Format::ROW;
    static constexpr int BLOCK = 32, COLUMNS = 16, SIDE_BY_SIDE = 1, P = 3;
    static constexpr bool HAS_MINS = ROW == abi::Q8_1, HAS_START = Format::OFFSET != 0;

    struct Unit {
        int8_t qs[8][4];
        float d, s;
    };
    struct alignas(64) Panel {
        int8_t qs[8][64];  // four of each weight row
        int32_t start[HAS_START ? 8 : 0][16];
        float d[16], m[HAS_MINS ? 16 : 0];
    };

    static void pack(Unit & unit, const Row & block) {
        const __m256i flip = _mm256_set1_epi8(HAS_START ? (char)0x80 : 0);
        const __m256i q = _mm256_loadu_si256((const __m256i *)block.qs);
        _mm256_storeu_si256((__m256i *)unit.qs, _mm256_xor_si256(q, flip));
        unit.d = _cvtsh_ss(block.d);
        if constexpr (HAS_MINS) unit.s = _cvtsh_ss(block.s);
    }

    static Ints products(Ints start, Ints weights, Ints row) {
        return HAS_START ? dot_bytes(start, row, weights) : dot_bytes(start, weights, row);
    }

    [[gnu::flatten]]
    static void unpack(const char * weights, int n_blocks, int from, int to, Panel * panels) {
        const Block * blocks = (const Block *)weights;
        for (int b = from; b < to; ++b, ++panels) {
            Ints rows[8];  // of weight rows i and 8 + i
            for (int i = 0; i < 8; ++i) {
                const Block & low = blocks[(size_t)i * n_blocks + b];
                const Block & high = blocks[(size_t)(i + 8) * n_blocks + b];
                rows[i] = numbers(low, high);
                unpack_scales(low, *panels, i);
                unpack_scales(high, *panels, i + 8);
            }
            turn_fours(rows, panels->qs);
            if constexpr (HAS_START) {
                for (int i = 0; i < 8; ++i) {
                    const Ints of_zeros = products(zero_ints(), load_64(panels->qs[i]),
                                                   _mm512_set1_epi8((char)0x80));
                    store_64(panels->start[i], negated(of_zeros));
                }
            }
        }
    }
    static void unpack_scales(const Block & block, Panel & panel, int column) {
        panel.d[column] = _cvtsh_ss(block.d);
        if constexpr (HAS_MINS) panel.m[column] = _cvtsh_ss(block.m);
    }
    static Ints numbers(const Block & low, const Block & high) {
        Ints q = Format::weights(low, high);
        if constexpr (Format::HIGH != 1) {  // upper halves still lie in their bytes' high nibbles
            const Ints shifted = _mm512_and_si512(_mm512_srli_epi16(q, 4), _mm512_set1_epi8(15));
            q = _mm512_mask_mov_epi64(q, 0xcc, shifted);
        }
        return _mm512_sub_epi8(q, _mm512_set1_epi8((char)Format::OFFSET));
    }

    struct State {
        Floats sums[P][8], mins[P];

        State() {
            for (auto & row : sums) std::fill_n(row, 8, zeros());
            std::fill_n(mins, P, zeros());
        }
        State(const State & other) { *this = other; }
        // One by one: all at once, compilers copy in memory what is to be in registers
        State & operator=(const State & other) {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) sums[p][i] = other.sums[p][i];
                if constexpr (HAS_MINS) mins[p] = other.mins[p];
            }
            return *this;
        }
        void finish(float * out, size_t stride, int n) const {
            for (int p = 0; p < n; ++p) {
                const Floats sum = sum_of_eight(sums[p]);
                store(out + p * stride, HAS_MINS ? add(sum, mins[p]) : sum);
            }
        }
    };

    [[gnu::flatten]]
    static void tile(const Panel * panels, int n, const Unit * units, State & out) {
        State state = out;  // in registers
        for (const Panel * panel = panels; panel < panels + n; ++panel, units += P) {
            Floats scales[P];
            for (int p = 0; p < P; ++p) scales[p] = multiply(load(panel->d), all(units[p].d));
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const Ints weights = kept(load_64(panel->qs[i]));
                Ints start = zero_ints();
                if constexpr (HAS_START) start = kept(load_64(panel->start[i]));
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const Ints sum = products(start, weights, four_bytes(units[p].qs[i]));
                    state.sums[p][i] = multiply_add(scales[p], to_floats(sum), state.sums[p][i]);
                }
            }
            if constexpr (HAS_MINS) {
                for (int p = 0; p < P; ++p)
                    state.mins[p] =
                        multiply_add(load(panel->m), all(units[p].s), state.mins[p]);
            }
        }
        out = state;
    }
};

template <class Format>
struct ForManyRows<Dots<Format>> {
    using Kernel = ManyDots<Format>;
};

}  // namespace
