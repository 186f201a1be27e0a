// How a product is cut up, the same for every number format.
//
//     out (M, N) = rows (M, K) times weights (N, K)
//
//     K   weights of a weight row, in B blocks of Kernel::BLOCK
//     N   weight rows: the columns of the result; C = Kernel::COLUMNS of them are a group
//     M   rows: a draft's few or a prompt's many; R = Kernel::ROWS of them are a Unit
//     P   Units whose sums have room in registers, at most Kernel::AT_ONCE
//
// A tile is what a kernel computes at a time: a group times P Units, through all of K. A weight is
// read and unpacked once for the P * R rows of a tile. Units lie in panels of up to PANEL, block by
// block within each, so that a tile reads weights and rows from front to back.
//
// Each kernel has
//   BLOCK    how many weights of a row it takes at a time
//   COLUMNS  how many weight rows it takes at a time; SIDE_BY_SIDE of them lie in one Block
//   ROWS     how many rows one Unit holds; with more than MOST_ROWS, ggml's own kernels are faster
//   AT_ONCE  the most Units whose sums have room in registers
//   Unit     a block of ROWS rows, laid out for `tile`
//   Row      a block of one row as ggml rounds it, to type ROW
//   pack     a Row into its place in a Unit
//   pack_straight   where it has one: blocks of a row of floats into Units, the same without a Row
//   MOST_WITH_TWO_GROUPS   where it has one: of how many Units at most its tiles take two groups
//   tile     COLUMNS weight rows times P Units of rows: out[row * stride + column]
//
// `tile` is "flatten": with so many kernels in one file, compilers stop inlining, and a call for
// each block costs up to a half.
//
// Knows nothing of formats, of threads, of ggml's tensors or of what the rows are.
#pragma once

#include "ggml_abi.h"
#include "vectors.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace {

// Weights are asked for so many bytes before they are read, or a little more: the hardware's
// prefetching ends with every page and row.
constexpr int64_t AHEAD = 8192;

constexpr int PANEL = 8;                        // Units whose blocks lie together
constexpr int64_t WEIGHTS_AT_A_TIME = 1 << 18;  // bytes that stay in the next one, for other Units

inline void prefetch(const void * from, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_T0);
}

// The group that will be read AHEAD bytes later. Its weights are asked for in the order of their
// addresses, from front to back, while those of another group are read side by side.
struct Ahead {
    const char * group;

    // As many bytes as a group has at a time, for the block that is being read
    template <size_t N_BYTES>
    void fetch(int block) const {
        prefetch(group + block * N_BYTES, N_BYTES);
    }
};

// A panel of rows times one group of weight rows
template <class Kernel>
void multiply_group(const char * weights, int n_blocks, const typename Kernel::Unit * units,
                    int n_units, const Ahead & ahead, float * out, size_t stride, int n_rows) {
    for (int first = 0; first < n_units; first += Kernel::AT_ONCE) {
        const int row = first * Kernel::ROWS, n = std::min(n_units - first, Kernel::AT_ONCE);
        const auto run = [&](auto tile) {
            tile(weights, n_blocks, units + first, n_units, ahead, out + row * stride, stride,
                 n_rows - row);
        };
        if (n == 1) run(Kernel::template tile<1>);
        if (n == 2) run(Kernel::template tile<2>);
        if (n == 3) run(Kernel::template tile<3>);
        if (n == 4) run(Kernel::template tile<4>);
        if constexpr (Kernel::AT_ONCE > 4) {
            if (n == 5) run(Kernel::template tile<5>);
            if (n == 6) run(Kernel::template tile<6>);
        }
        if constexpr (Kernel::AT_ONCE > 6) {
            if (n == 7) run(Kernel::template tile<7>);
            if (n == 8) run(Kernel::template tile<8>);
        }
    }
}

template <class Kernel, class = void>
constexpr int MOST_WITH_TWO_GROUPS = 0;
template <class Kernel>
constexpr int MOST_WITH_TWO_GROUPS<Kernel, std::void_t<decltype(Kernel::MOST_WITH_TWO_GROUPS)>> =
    Kernel::MOST_WITH_TWO_GROUPS;

// Likewise, two groups, for up to MOST_WITH_TWO_GROUPS Units
template <class Kernel>
void multiply_two_groups(const char * weights, int n_blocks, const typename Kernel::Unit * units,
                         int n_units, const Ahead & ahead, float * out, size_t stride,
                         int n_rows) {
    const auto run = [&](auto tile) {
        tile(weights, n_blocks, units, n_units, ahead, out, stride, n_rows);
    };
    if (n_units == 1) run(Kernel::template tile<1, 2>);
    if (n_units == 2) run(Kernel::template tile<2, 2>);
    if (n_units == 3) run(Kernel::template tile<3, 2>);
    if (n_units == 4) run(Kernel::template tile<4, 2>);
}

template <class Kernel>
int units_of(int64_t n_rows) {
    return (int)((n_rows + Kernel::ROWS - 1) / Kernel::ROWS);
}

// Where a Unit's first block lies, and how far its blocks are apart: as many Units as its panel has
struct Place {
    size_t first;
    int step;
};
inline Place place_of(int unit, int n_blocks, int n_units) {
    const int panel = unit / PANEL * PANEL;
    return {(size_t)panel * n_blocks + unit % PANEL, std::min(PANEL, n_units - panel)};
}

// COLUMNS weight rows of so many Blocks
template <class Kernel>
size_t group_bytes(int64_t n_blocks) {
    return n_blocks * sizeof(typename Kernel::Block) * Kernel::COLUMNS / Kernel::SIDE_BY_SIDE;
}

// n blocks of a row, from the first-th on, into their Units
template <class Kernel>
void pack_blocks(const typename Kernel::Row * blocks, int row, int n_rows, int n_blocks,
                 typename Kernel::Unit * units, int first, int n) {
    const Place place = place_of(row / Kernel::ROWS, n_blocks, units_of<Kernel>(n_rows));
    for (int i = 0; i < n; ++i) {
        typename Kernel::Unit & unit = units[place.first + (first + i) * place.step];
        Kernel::pack(unit, row % Kernel::ROWS, blocks[i]);
    }
}

template <class Kernel, class = void>
constexpr bool PACKS_STRAIGHT = false;
template <class Kernel>
constexpr bool PACKS_STRAIGHT<Kernel, std::void_t<decltype(&Kernel::pack_straight)>> = true;

// Blocks `from` to `to` of all rows: rounded as ggml rounds a row alone, and into their Units.
// row_at(row): where a row's numbers lie
template <class Kernel, class RowAt>
void pack_rows(decltype(abi::TypeTraits::from_float) round, RowAt row_at, int n_rows, int n_blocks,
               typename Kernel::Unit * units, int from, int to) {
    if constexpr (PACKS_STRAIGHT<Kernel>) {
        for (int row = 0; row < n_rows; ++row) {
            const Place place = place_of(row, n_blocks, n_rows);
            Kernel::pack_straight(row_at(row) + (int64_t)from * Kernel::BLOCK, to - from,
                                  units + place.first + (int64_t)from * place.step, place.step);
        }
        return;
    }
    constexpr int AT_ONCE = 8;
    typename Kernel::Row blocks[AT_ONCE] = {};
    for (int row = 0; row < units_of<Kernel>(n_rows) * Kernel::ROWS; ++row) {
        const bool is_there = row < n_rows;
        if (!is_there) memset(blocks, 0, sizeof(blocks));
        for (int first = from; first < to; first += AT_ONCE) {
            const int n = std::min(AT_ONCE, to - first);
            if (is_there)
                round(row_at(row) + first * Kernel::BLOCK, blocks, n * Kernel::BLOCK);
            pack_blocks<Kernel>(blocks, row, n_rows, n_blocks, units, first, n);
        }
    }
}

// Groups `from` to `to` of COLUMNS weight rows times all rows: out[row * stride + column]
template <class Kernel>
void multiply_groups(const char * weights, int n_blocks, const typename Kernel::Unit * units,
                     int n_units, int64_t from, int64_t to, float * out, size_t stride,
                     int n_rows) {
    const int64_t bytes = group_bytes<Kernel>(n_blocks);
    const int64_t ahead = (AHEAD + bytes - 1) / bytes * bytes;
    const int64_t most =
        n_units <= PANEL ? to - from : std::max<int64_t>(1, WEIGHTS_AT_A_TIME / bytes);
    for (; from < to; from += most) {
        for (int first = 0; first < n_units; first += PANEL) {
            const Place place = place_of(first, n_blocks, n_units);
            const int row = first * Kernel::ROWS;
            const int64_t end = std::min(from + most, to);
            int64_t g = from;
            const auto multiply = [&](auto multiply_some, int n_groups) {
                const char * group = weights + g * bytes;
                multiply_some(group, n_blocks, units + place.first, place.step,
                              Ahead{group + ahead}, out + row * stride + g * Kernel::COLUMNS,
                              stride, n_rows - row);
                g += n_groups;
            };
            if constexpr (MOST_WITH_TWO_GROUPS<Kernel> > 0)
                if (place.step <= MOST_WITH_TWO_GROUPS<Kernel>)
                    while (g + 1 < end) multiply(multiply_two_groups<Kernel>, 2);
            while (g < end) multiply(multiply_group<Kernel>, 1);
        }
    }
}

// The part-th of n_parts of all `n_out` weight rows times all rows. The last one takes weight rows
// that make no whole group together with some that it had before.
template <class Kernel>
void multiply_part(const char * weights, int n_blocks, int64_t n_out,
                   const typename Kernel::Unit * units, int n_units, int64_t part, int64_t n_parts,
                   float * out, size_t stride, int n_rows) {
    const int64_t n_groups = n_out / Kernel::COLUMNS, end = n_groups * (part + 1) / n_parts;
    multiply_groups<Kernel>(weights, n_blocks, units, n_units, n_groups * part / n_parts, end, out,
                            stride, n_rows);
    if (n_out % Kernel::COLUMNS == 0 || part < n_parts - 1) return;
    const int64_t first = n_out - Kernel::COLUMNS;
    multiply_groups<Kernel>(weights + first * (group_bytes<Kernel>(n_blocks) / Kernel::COLUMNS),
                            n_blocks, units, n_units, 0, 1, out + first, stride, n_rows);
}

}  // namespace
