// The kernel of super-blocks that ggml has repacked for a prompt's many rows, in AVX-512.
#pragma once

#include "side_by_side.h"

#include "../many_rows.h"
#include "../many_rows_avx512.h"

namespace {

// What `SideBySideDots` computes, to the bit, for two times eight weight rows: a lane is a weight
// row, as there, but has four weights at a time.
template <class Format>
struct ManySideBySideDots {
    using Block = typename Format::Block;
    using Row = RowQ8_K;
    using Unit = SuperUnit;
    static constexpr abi::Type ROW = abi::Q8_K;
    static constexpr int BLOCK = 256, COLUMNS = 16, SIDE_BY_SIDE = 8, P = 8;
    static constexpr int N_SCALES = Format::N_SCALES;

    struct alignas(64) Panel {
        uint8_t qs[64][64];  // four of each weight row
        int32_t scales[N_SCALES][16];
        int16_t mins[N_SCALES / 2][32];  // two of each weight row
        float d[16], dmin[16];
    };

    static void pack(Unit & unit, const RowQ8_K & row) { unit.pack(row); }

    [[gnu::flatten]]
    static void unpack(const char * weights, int n_blocks, int from, int to, Panel * panels) {
        const Block * blocks = (const Block *)weights;
        for (int b = from; b < to; ++b, ++panels) {
            const Block &first = blocks[b], &second = blocks[b + n_blocks];
            for (int i = 0; i < 32; ++i) {
                const Ints x = eights(first, i), y = eights(second, i);
                store_64(panels->qs[2 * i], even_fours(x, y));
                store_64(panels->qs[2 * i + 1], odd_fours(x, y));
            }
            unpack_scales(first, *panels, 0);
            unpack_scales(second, *panels, 8);
        }
    }
    // Eight weights of each weight row
    static Ints eights(const Block & block, int i) {
        const Ints packed = _mm512_loadu_si512(block.qs + Format::place(i));
        return masked(_mm512_srli_epi16(packed, Format::shift(i)), Format::BITS);
    }
    static void unpack_scales(const Block & block, Panel & panel, int column) {
        const auto put = [column](void * numbers, __m256i x) {
            _mm256_store_si256((__m256i *)((int32_t *)numbers + column), x);
        };
        for (int i = 0; i < N_SCALES / 2; ++i) {
            const typename Format::Scales two(block, i);
            put(panel.scales[2 * i], _mm256_cvtepu16_epi32(two.first));
            put(panel.scales[2 * i + 1], _mm256_cvtepu16_epi32(two.second));
            put(panel.mins[i], two.mins);
        }
        for (int c = 0; c < 8; ++c) {
            panel.d[column + c] = _cvtsh_ss(block.d[c]);
            panel.dmin[column + c] = _cvtsh_ss(block.dmin[c]);
        }
    }

    struct State {
        Floats sums[P], mins[P];

        State() {
            std::fill_n(sums, P, zeros());
            std::fill_n(mins, P, zeros());
        }
        void finish(float * out, size_t stride, int n) const {
            for (int p = 0; p < n; ++p) store(out + p * stride, subtract(sums[p], mins[p]));
        }
    };

    [[gnu::flatten]]
    static void tile(const Panel * panels, int n, const Unit * units, State & state) {
        for (const Panel * panel = panels; panel < panels + n; ++panel, units += P) {
            Ints sums[P];
            add_products(*panel, units, sums);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const Floats d = all(units[p].d), dmin = multiply(load(panel->dmin), d);
                const Floats products = to_floats(sums[p]);
                const Floats mins = to_floats(products_of_mins(*panel, units[p]));
                state.sums[p] = multiply_add(products, multiply(load(panel->d), d), state.sums[p]);
                state.mins[p] = multiply_add(mins, dmin, state.mins[p]);
            }
        }
    }
    // Sixteen products of four bits and eight need sixteen: what is above is multiplied by zero.
    static void add_products(const Panel & panel, const Unit * units, Ints sums[P]) {
        std::fill_n(sums, P, zero_ints());
#pragma GCC unroll 2
        for (int i = 0; i < 16; ++i) {
            Ints products[P];
            std::fill_n(products, P, zero_ints());
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const Ints weights = load_64(panel.qs[4 * i + j]);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p)
                    products[p] = dot_bytes(products[p], weights,
                                            four_bytes(units[p].qs + 16 * i + 4 * j));
            }
            const Ints scales = load_64(panel.scales[i * N_SCALES / 16]);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) sums[p] = dot_pairs(sums[p], products[p], scales);
        }
    }
    static Ints products_of_mins(const Panel & panel, const Unit & unit) {
        const int16_t * sums = N_SCALES == 8 ? unit.sums_of_32 : unit.sums;
        Ints products = zero_ints();
        for (int i = 0; i < N_SCALES / 2; ++i)
            products = dot_pairs(products, load_64(panel.mins[i]), four_bytes(sums + 2 * i));
        return products;
    }
};

template <class Format>
struct ForManyRows<SideBySideDots<Format>> {
    using Kernel = ManySideBySideDots<Format>;
};

}  // namespace
