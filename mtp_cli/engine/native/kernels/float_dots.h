// The kernel of floating-point formats, whose rows ggml rounds to the weights' own format.
#pragma once

#include "../tiles.h"

#ifdef __AVX512F__
#include "../float_sums_avx512.h"
#else
#include "../float_sums_avx2.h"
#endif

#include <climits>

namespace {

// With more `ManyFloats` (many_floats.h) is faster.
constexpr int MOST_OF_FEW_HALVES = 16;

// out (P, C) = rows (P, K) times weights (C, K): for every STEP weights from i on, weight row c and
// row p
//
//     sums[p][c][i / STEP % N_SUMS] += STEP products
//
// These are the sums of ggml's kernel in its order: it goes through K with N_SUMS vectors of sums
// by turns, and adds them up at the end, for each format otherwise (Format::sum).
//
// Half-precision rows are so in their Units, too, and widened for every tile: as single-precision
// ones, some rows would fill the nearest cache.
//
// A format has
//   Number          as it lies in memory
//   Wide, widen     STEP numbers as they are multiplied
//   add_products    of STEP weights and STEP numbers of a row, to one vector of sums
//   sum             of N_SUMS vectors
//   ROW, COLUMNS, AT_ONCE, MOST_ROWS    as kernels have
template <class Format>
struct FloatDots {
    using Number = typename Format::Number;
    using Floats = FloatSums::Floats;
    static constexpr int STEP = Format::STEP, N_SUMS = Format::N_SUMS;
    static constexpr int BLOCK = 64, COLUMNS = Format::COLUMNS, SIDE_BY_SIDE = 1;
    static constexpr int ROWS = 1, AT_ONCE = Format::AT_ONCE, MOST_ROWS = Format::MOST_ROWS;
    static constexpr abi::Type ROW = Format::ROW;

    struct Block {
        Number x[BLOCK];
    };
    using Row = Block;
    using Unit = Block;

    static void pack(Unit & unit, int, const Row & row) { unit = row; }

    // With one row, one weight row after another: memory is read fastest from one place.
    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        if (P > 1 || COLUMNS == 1) {
            columns<P, COLUMNS>(weights, n_blocks, units, n_units, ahead, out, stride);
            return;
        }
        for (int c = 0; c < COLUMNS; ++c, weights += n_blocks * sizeof(Block))
            columns<P, 1>(weights, n_blocks, units, n_units, {weights + AHEAD}, out + c, stride);
    }

private:
    // Of one row in single precision the hardware fetches as much by itself.
    template <int P>
    static constexpr bool IS_FETCHED = P > 1 || sizeof(Number) < sizeof(float);

    template <int P, int C>
    static void columns(const char * weights, int n_blocks, const Unit * units, int n_units,
                        const Ahead & ahead, float * out, size_t stride) {
        const size_t length = (size_t)n_blocks * BLOCK;
        const Number * w = (const Number *)weights;
        Floats sums[P][C][N_SUMS];
        for (auto & row : sums) {
            for (auto & column : row) std::fill_n(column, N_SUMS, FloatSums::zeros());
        }
        for (int b = 0; b < n_blocks; ++b, units += n_units, w += BLOCK) {
            if constexpr (IS_FETCHED<P>) ahead.fetch<C * sizeof(Block)>(b);
#pragma GCC unroll 8
            for (int i = 0; i < BLOCK; i += STEP) {
                typename Format::Wide rows[P];
#pragma GCC unroll 6
                for (int p = 0; p < P; ++p) rows[p] = Format::widen(units[p].x + i);
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) {
                    const auto x = Format::widen(w + c * length + i);
#pragma GCC unroll 6
                    for (int p = 0; p < P; ++p) {
                        Floats & sum = sums[p][c][i / STEP % N_SUMS];
                        sum = Format::add_products(x, rows[p], sum);
                    }
                }
            }
        }
        for (int p = 0; p < P; ++p) {
            for (int c = 0; c < C; ++c) out[p * stride + c] = Format::sum(sums[p][c]);
        }
    }
};

// A format that is multiplied in single precision, a vector at a time. A product of two halves is
// exact there, so that ggml has the same bits whether it adds in the same instruction; of two
// single-precision numbers it is not, and ggml does.
template <abi::Type TYPE, class NUMBER, int N, int C, int P,
          FloatSums::Floats (*WIDEN)(const NUMBER *), float (*SUM)(const FloatSums::Floats *)>
struct InFloat32 {
    using Number = NUMBER;
    using Wide = FloatSums::Floats;
    static constexpr abi::Type ROW = TYPE;
    static constexpr int STEP = FloatSums::LANES, N_SUMS = N, COLUMNS = C, AT_ONCE = P;
    static constexpr int MOST_ROWS = TYPE == abi::F32 ? INT_MAX : MOST_OF_FEW_HALVES;
    static Wide widen(const Number * x) { return WIDEN(x); }
    static Wide add_products(Wide a, Wide b, Wide sum) {
        return FloatSums::multiply_add(a, b, sum);
    }
    static float sum(const Wide * x) { return SUM(x); }
};

}  // namespace
