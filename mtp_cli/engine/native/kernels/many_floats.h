// The kernel of floating-point formats for a prompt's many rows.
#pragma once

#include "float_dots.h"

#include "../many_rows.h"

namespace {

// What `FloatDots` computes, to the bit. A pair of a weight row and a row has N_SUMS vectors of
// sums there, so that few pairs would fill the registers. Vector s gets every N_SUMS-th STEP
// numbers, from the s-th on: here these lie together, a plane, and planes are multiplied one after
// another, with one vector of sums for each of C * P pairs. A State keeps what all planes gave.
template <class Format>
struct ManyFloats {
    using Number = typename Format::Number;
    using Wide = typename Format::Wide;
    using Floats = FloatSums::Floats;
    static constexpr abi::Type ROW = Format::ROW;
    static constexpr int BLOCK = 64, COLUMNS = FloatSums::MANY_COLUMNS, SIDE_BY_SIDE = 1;
    static constexpr int P = FloatSums::MANY_ROWS, N_SUMS = Format::N_SUMS, STEP = Format::STEP;
    static constexpr int STEPS = BLOCK / STEP / N_SUMS;  // of a block in each plane

    struct Block {
        Number x[BLOCK];
    };
    using Row = Block;
    struct alignas(64) Unit {
        Number x[BLOCK];
    };

    struct State {
        Floats sums[N_SUMS][COLUMNS][P];

        void finish(float * out, size_t stride, int n_rows) const {
            if (n_rows == P && FloatSums::store_sums(sums, out, stride)) return;
            for (int p = 0; p < n_rows; ++p) {
                for (int c = 0; c < COLUMNS; ++c) {
                    Floats x[N_SUMS];
                    for (int s = 0; s < N_SUMS; ++s) x[s] = sums[s][c][p];
                    out[p * stride + c] = Format::sum(x);
                }
            }
        }
    };

    // n steps of a plane, side by side those of C weight rows; row(i), of step i / P
    template <class RowAt>
    [[gnu::flatten]]
    static void tile(const Wide * weights, RowAt row_at, int n, bool is_first,
                     Floats (&out)[COLUMNS][P]) {
        Floats sums[COLUMNS][P];
        each([&](int c, int p) { sums[c][p] = is_first ? FloatSums::zeros() : out[c][p]; });
        for (int i = 0; i < n * P; i += P, weights += COLUMNS) {
            Wide w[COLUMNS];
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) w[c] = weights[c];
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const Wide row = in_register(row_at(i + p));
#pragma GCC unroll 4
                for (int c = 0; c < COLUMNS; ++c)
                    sums[c][p] = Format::add_products(w[c], row, sums[c][p]);
            }
        }
        each([&](int c, int p) { out[c][p] = sums[c][p]; });
    }
    template <class Do>
    static void each(Do with) {
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; ++c) {
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) with(c, p);
        }
    }
    // Compilers would rather load a row anew for each weight row.
    static Wide in_register(Wide x) {
        asm("" : "+v"(x));
        return x;
    }
};

// Rows in planes, P side by side
template <class Format>
struct ManyRows<ManyFloats<Format>> {
    using Kernel = ManyFloats<Format>;
    using Number = typename Kernel::Number;
    static constexpr int P = Kernel::P, STEP = Kernel::STEP;

    typename Kernel::Unit * units;
    int n_rows, n_blocks;

    static int64_t padded(int64_t n_rows) { return (n_rows + P - 1) / P * P; }

    // Plane s of P rows, from a block on
    Number * at(int tile, int s, int block) const {
        const size_t in_plane = (size_t)block * Kernel::STEPS * P * STEP;
        return units[((size_t)tile * P) * n_blocks].x +
               s * ((size_t)n_blocks * Kernel::STEPS * P * STEP) + in_plane;
    }

    // Blocks `from` to `to` of all rows, rounded as ggml rounds a row alone
    template <class RowAt>
    void pack(decltype(abi::TypeTraits::from_float) round, RowAt row_at, int from, int to) const {
        typename Kernel::Row block;
        for (int row = 0; row < padded(n_rows); ++row) {
            if (row >= n_rows) memset(&block, 0, sizeof(block));
            for (int b = from; b < to; ++b) {
                if (row < n_rows)
                    round(row_at(row) + b * Kernel::BLOCK, &block, Kernel::BLOCK);
                for (int i = 0; i < Kernel::BLOCK / STEP; ++i) {
                    const int step = i / Kernel::N_SUMS * P + row % P;
                    memcpy(at(row / P, i % Kernel::N_SUMS, b) + step * STEP, block.x + i * STEP,
                           STEP * sizeof(Number));
                }
            }
        }
    }
};

// What one thread widens and adds up in: GROUPS groups of weight rows, as many blocks as fit, a
// plane of them, into the first cache; a tile of P rows likewise
template <class Format>
struct ManyWork<ManyFloats<Format>> {
    using Kernel = ManyFloats<Format>;
    using Number = typename Kernel::Number;
    using Wide = typename Kernel::Wide;
    static constexpr int C = Kernel::COLUMNS, P = Kernel::P;
    static constexpr int GROUPS = 4, TILES = 20;  // whose States stay in the second cache
    static constexpr int BLOCKS = PANELS_AT_A_TIME / (sizeof(Wide) * GROUPS * C * Kernel::STEPS);
    static constexpr int STEPS = BLOCKS * Kernel::STEPS;

    alignas(64) Wide panels[Kernel::N_SUMS][GROUPS][STEPS][C];
    Wide tile[STEPS * P];
    typename Kernel::State states[TILES][GROUPS];

    // Blocks `from` to `to` of so many groups
    void unpack(const typename Kernel::Block * weights, int n_blocks, int n_groups, int from,
                int to) {
        for (int row = 0; row < n_groups * C; ++row) {
            for (int b = from; b < to; ++b) {
                const Number * x = weights[(size_t)row * n_blocks + b].x;
                for (int i = 0; i < Kernel::BLOCK / Kernel::STEP; ++i) {
                    const int step = (b - from) * Kernel::STEPS + i / Kernel::N_SUMS;
                    panels[i % Kernel::N_SUMS][row / C][step][row % C] =
                        Format::widen(x + i * Kernel::STEP);
                }
            }
        }
    }

    // Plane s of so many groups times n steps of P rows, from which the first group widens them
    void multiply(int s, int n_groups, const Number * rows, int n, bool is_first,
                  typename Kernel::State * out) {
        const auto from_rows = [&](int i) { return Format::widen(rows + i * Kernel::STEP); };
        const auto widened = [&](int i) { return tile[i]; };
        const auto widening = [&](int i) { return tile[i] = from_rows(i); };
        for (int g = 0; g < n_groups; ++g) {
            const auto run = [&](auto row_at) {
                Kernel::tile(panels[s][g][0], row_at, n, is_first, out[g].sums[s]);
            };
            if (sizeof(Wide) == Kernel::STEP * sizeof(Number)) run(from_rows);
            else if (g == 0) run(widening);
            else run(widened);
        }
    }
};

// So many groups of weight rows, at most GROUPS, times so many tiles of rows, at most TILES
template <class Format>
void multiply_tiles(const char * weights, int n_groups, const ManyRows<ManyFloats<Format>> & rows,
                    int first, int n_tiles, ManyWork<ManyFloats<Format>> & work, float * out,
                    size_t stride) {
    using Kernel = ManyFloats<Format>;
    const int n_blocks = rows.n_blocks, n_passes = (n_blocks + work.BLOCKS - 1) / work.BLOCKS;
    for (int pass = 0; pass < n_passes; ++pass) {
        const int from = n_blocks * pass / n_passes, to = n_blocks * (pass + 1) / n_passes;
        const int n = (to - from) * Kernel::STEPS;
        work.unpack((const typename Kernel::Block *)weights, n_blocks, n_groups, from, to);
        for (int s = 0; s < Kernel::N_SUMS; ++s) {
            for (int i = 0; i < n_tiles; ++i) {
                work.multiply(s, n_groups, rows.at(first + i, s, from), n, from == 0,
                              work.states[i]);
            }
        }
    }
    for (int i = 0; i < n_tiles; ++i) {
        const int row = (first + i) * Kernel::P;
        for (int g = 0; g < n_groups; ++g)
            work.states[i][g].finish(out + row * stride + g * Kernel::COLUMNS, stride,
                                     std::min(Kernel::P, rows.n_rows - row));
    }
}

template <class Format>
void multiply_part(const char * weights, int64_t n_out, const ManyRows<ManyFloats<Format>> & rows,
                   ManyWork<ManyFloats<Format>> & work, int64_t part, int64_t n_parts, float * out,
                   size_t stride) {
    using Kernel = ManyFloats<Format>;
    const int64_t row_bytes = group_bytes<Kernel>(rows.n_blocks) / Kernel::COLUMNS;
    const int n_tiles = (int)(rows.padded(rows.n_rows) / Kernel::P);
    const auto multiply = [&](int64_t column, int n_groups) {
        for (int first = 0; first < n_tiles; first += work.TILES)
            multiply_tiles(weights + column * row_bytes, n_groups, rows, first,
                           std::min(work.TILES, n_tiles - first), work, out + column, stride);
    };
    const int64_t n_groups = n_out / Kernel::COLUMNS, end = n_groups * (part + 1) / n_parts;
    for (int64_t i = n_groups * part / n_parts; i < end; i += work.GROUPS)
        multiply(i * Kernel::COLUMNS, (int)std::min<int64_t>(work.GROUPS, end - i));
    if (n_out % Kernel::COLUMNS != 0 && part == n_parts - 1) multiply(n_out - Kernel::COLUMNS, 1);
}

template <class Format>
struct ForManyRows<FloatDots<Format>> {
    using Kernel = ManyFloats<Format>;
};

}  // namespace
