// How a product with a prompt's many rows is cut up, the same for every number format.
//
//     out (M, N) = rows (M, K) times weights (N, K), with the letters of tiles.h
//
// A lane of a vector is a weight row here. C = Kernel::COLUMNS weight rows are unpacked together,
// as many blocks of K as fit into the nearest cache, and multiplied by all rows, P at a time,
// before the next blocks. What is added up of P rows is a State and waits in memory meanwhile.
//
// Each kernel has BLOCK, COLUMNS, SIDE_BY_SIDE, ROW and Row as those of tiles.h, and
//   P          how many rows are taken at a time
//   Unit       a block of one row, laid out for `tile` by `pack`
//   Panel      a block of C weight rows, as `unpack` lays it out
//   State      the sums of P rows with C weight rows
//   tile       so many Panels times P rows, to a State
//   finish     a State's sums, added up: out[row * stride + column], for the first n rows
//
// Knows nothing of formats, of threads, of ggml's tensors or of what the rows are.
#pragma once

#include "tiles.h"

#include <new>

namespace {

constexpr int MOST_OF_FEW_ROWS = 32;  // with more, unpacking weights beforehand pays

constexpr int64_t PANELS_AT_A_TIME = 32 << 10;  // bytes that leave room for rows in the first cache
constexpr int ROWS_AT_A_TIME = 512;             // whose States stay in the second cache

// The kernel for many rows that computes what one of tiles.h does, where there is one
template <class FewRowsKernel>
struct ForManyRows {
    using Kernel = void;
};

// What one thread unpacks and adds up in
template <class Kernel>
struct ManyWork {
    static constexpr int PANELS =
        (int)std::max<int64_t>(1, PANELS_AT_A_TIME / sizeof(typename Kernel::Panel));

    static constexpr int STATES = (ROWS_AT_A_TIME + Kernel::P - 1) / Kernel::P;
    static constexpr int ROWS = STATES * Kernel::P;

    typename Kernel::Panel panels[PANELS];
    typename Kernel::State states[STATES];
};

// Many rows in Units: P rows together, block by block, filled up with rows of zeros
template <class Kernel>
struct ManyRows {
    typename Kernel::Unit * units;
    int n_rows, n_blocks;

    static int64_t padded(int64_t n_rows) {
        return (n_rows + Kernel::P - 1) / Kernel::P * Kernel::P;
    }
    typename Kernel::Unit * at(int row, int block) const {
        return units + (int64_t)(row / Kernel::P * n_blocks + block) * Kernel::P + row % Kernel::P;
    }

    // Blocks `from` to `to` of all rows, rounded as ggml rounds a row alone. row_at(row): where a
    // row's numbers lie
    template <class RowAt>
    void pack(decltype(abi::TypeTraits::from_float) round, RowAt row_at, int from, int to) const {
        const auto read = [&](int row, int first, int n, typename Kernel::Row * blocks) {
            round(row_at(row) + first * Kernel::BLOCK, blocks, n * Kernel::BLOCK);
        };
        pack(read, from, to);
    }
    // Likewise; read(row, first, n, blocks): n of a row's blocks, rounded
    template <class Read>
    void pack(Read read, int from, int to) const {
        constexpr int AT_ONCE = 8;
        typename Kernel::Row blocks[AT_ONCE] = {};
        for (int row = 0; row < padded(n_rows); ++row) {
            if (row >= n_rows) memset(blocks, 0, sizeof(blocks));
            for (int first = from; first < to; first += AT_ONCE) {
                const int n = std::min(AT_ONCE, to - first);
                if (row < n_rows) read(row, first, n, blocks);
                for (int i = 0; i < n; ++i) Kernel::pack(*at(row, first + i), blocks[i]);
            }
        }
    }
};

// A group of weight rows times the rows from `first` on, at most ROWS of them, where all blocks of
// K fit: a State is one's own and waits for nothing
template <class Kernel>
void multiply_rows_at_once(const char * weights, const ManyRows<Kernel> & rows, int first,
                           ManyWork<Kernel> & work, float * out, size_t stride) {
    constexpr int P = Kernel::P;
    const int n = std::min(work.ROWS, rows.n_rows - first), n_blocks = rows.n_blocks;
    Kernel::unpack(weights, n_blocks, 0, n_blocks, work.panels);
    for (int row = 0; row < n; row += P) {
        typename Kernel::State state;
        Kernel::tile(work.panels, n_blocks, rows.at(first + row, 0), state);
        state.finish(out + (first + row) * stride, stride, std::min(P, n - row));
    }
}

// Likewise, with blocks of K in as many passes as they need, all about as long
template <class Kernel>
void multiply_rows(const char * weights, const ManyRows<Kernel> & rows, int first,
                   ManyWork<Kernel> & work, float * out, size_t stride) {
    constexpr int P = Kernel::P;
    const int n = std::min(work.ROWS, rows.n_rows - first), n_blocks = rows.n_blocks;
    const int n_passes = (n_blocks + work.PANELS - 1) / work.PANELS;
    if (n_passes == 1) return multiply_rows_at_once(weights, rows, first, work, out, stride);
    for (int row = 0; row < n; row += P) new (work.states + row / P) typename Kernel::State();
    for (int pass = 0; pass < n_passes; ++pass) {
        const int from = n_blocks * pass / n_passes, to = n_blocks * (pass + 1) / n_passes;
        Kernel::unpack(weights, n_blocks, from, to, work.panels);
        for (int row = 0; row < n; row += P)
            Kernel::tile(work.panels, to - from, rows.at(first + row, from), work.states[row / P]);
    }
    for (int row = 0; row < n; row += P)
        work.states[row / P].finish(out + (first + row) * stride, stride, std::min(P, n - row));
}

// The part-th of n_parts of all `n_out` weight rows times all rows. The last one takes weight rows
// that make no whole group together with some that it had before.
template <class Kernel>
void multiply_part(const char * weights, int64_t n_out, const ManyRows<Kernel> & rows,
                   ManyWork<Kernel> & work, int64_t part, int64_t n_parts, float * out,
                   size_t stride) {
    const int64_t row_bytes = group_bytes<Kernel>(rows.n_blocks) / Kernel::COLUMNS;
    const auto multiply = [&](int64_t column) {
        const char * group = weights + column * row_bytes;
        for (int first = 0; first < rows.n_rows; first += work.ROWS)
            multiply_rows(group, rows, first, work, out + column, stride);
    };
    const int64_t n_groups = n_out / Kernel::COLUMNS, end = n_groups * (part + 1) / n_parts;
    for (int64_t i = n_groups * part / n_parts; i < end; ++i) multiply(i * Kernel::COLUMNS);
    if (n_out % Kernel::COLUMNS != 0 && part == n_parts - 1) multiply(n_out - Kernel::COLUMNS);
}

}  // namespace
