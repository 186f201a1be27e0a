// The kernel of formats in super-blocks of 256 numbers, which ggml multiplies by rows in Q8_K with
// `vec_dot`.
#pragma once

#include "../formats/rows.h"
#include "../tiles.h"

#ifdef MTP_AVX512
#include "../super_blocks_avx512.h"
#else
#include "../super_blocks_avx2.h"
#endif

namespace {

// With more ggml's kernels (`tiled.cpp`) are faster than this one, and round otherwise.
constexpr int MOST_ROWS_BESIDE_TILED = 16;

// A block of one row
struct alignas(64) SuperUnit {
    int8_t qs[256];
    int16_t sums[16], sums_of_32[8];
    float d;

    void pack(const RowQ8_K & row) {
        memcpy(qs, row.qs, sizeof(qs));
        memcpy(sums, row.sums, sizeof(sums));
        for (int i = 0; i < 8; ++i) sums_of_32[i] = (int16_t)(sums[2 * i] + sums[2 * i + 1]);
        d = row.d;
    }
};

// A half-precision number of each of four Blocks
template <class Block>
__m128 of_blocks(const Block * const blocks[4], uint16_t Block::*number) {
    const auto of = [&](int c) { return (short)(blocks[c]->*number); };
    return _mm_cvtph_ps(_mm_setr_epi16(of(0), of(1), of(2), of(3), 0, 0, 0, 0));
}

// What is to be taken back of a Block's products: nothing, something of the row's sums, or, with
// rows that are 128 too large, something of the weights
enum class Offset { NONE, OF_SUMS, OF_WEIGHTS };

struct UnsignedWeights {
    static constexpr Offset OFFSET = Offset::NONE;
    Ints q[SUPER_VECTORS], scales[SUPER_VECTORS];

    Ints start(const SuperUnit &) const { return zero_ints(); }
    Ints pairs(const SuperUnit & unit, int i) const {
        return pairs_of(q[i], unit.qs + 256 / SUPER_VECTORS * i);
    }
};

template <int P>
struct NoMins {
    template <class Blocks, class Sums>
    void add_block(const Blocks &, const SuperUnit *, Sums &) {}
    __m128 added(int, __m128 sums) const { return sums; }
};

// Minima of 32 weights each, in four lanes of two; added up to one integer for a block, or not
template <class Format, int P, bool IS_ADDED_UP>
struct FourMins {
    Floats mins[P][FourLanes::VECTORS];

    FourMins() {
        for (auto & row : mins) std::fill_n(row, FourLanes::VECTORS, zeros());
    }
    template <class Block, class Sums>
    void add_block(const Block * const blocks[4], const SuperUnit * units, Sums &) {
        __m128i eight[4];
        for (int c = 0; c < 4; ++c) eight[c] = Format::mins(*blocks[c]);
        const __m128 d = _mm_xor_ps(of_blocks(blocks, &Block::dmin), _mm_set1_ps(-0.0f));
        for (int i = 0; i < FourLanes::VECTORS; ++i) {
            const Ints factors = FourLanes::of_rows(eight, i);
            const Floats scales = FourLanes::numbers(d, i);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                Ints products = FourLanes::products(factors, units[p].sums_of_32);
                if constexpr (IS_ADDED_UP) products = FourLanes::added_up(products);
                const Floats scale = multiply(scales, all(units[p].d));
                mins[p][i] = multiply_add(scale, to_floats(products), mins[p][i]);
            }
        }
    }
    __m128 added(int p, __m128 sums) const {
        Floats x[FourLanes::VECTORS];
        for (int i = 0; i < FourLanes::VECTORS; ++i)
            x[i] = IS_ADDED_UP ? mins[p][i] : FourLanes::folded(mins[p][i]);
        return _mm_add_ps(sums, FourLanes::first(x));
    }
};

// Minima of 16 weights each, two to a lane of the sums themselves
template <class Format, int P>
struct LaneMins {
    template <class Block, class Sums>
    void add_block(const Block * const blocks[4], const SuperUnit * units, Sums & sums) {
        const __m128 d = _mm_xor_ps(of_blocks(blocks, &Block::dmin), _mm_set1_ps(-0.0f));
        for (int v = 0; v < 4 / PER_VECTOR; ++v) {
            __m256i sixteen[PER_VECTOR];
            for (int c = 0; c < PER_VECTOR; ++c)
                sixteen[c] = Format::mins(*blocks[v * PER_VECTOR + c]);
            const Ints factors = joined(sixteen);
            const Floats scales = for_lanes(d, v);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                const Floats scale = multiply(scales, all(units[p].d));
                const Ints products = products_of_16(factors, units[p].sums);
                sums[p][v] = multiply_add(scale, to_floats(products), sums[p][v]);
            }
        }
    }
    __m128 added(int, __m128 sums) const { return sums; }
};

// out (P, C) = rows (P, K) times weights (C, K), C = 4. For every super-block, weight
// row c and row p
//
//     sums[p][c] += (d of c * d of the row) * eight sums of 32 products of bytes and a scale
//
// and once all of K is through, the eight lanes are added up. These are the sums of ggml's kernel
// in its order: lane l has the products of bytes 4l to 4l + 3 of every 32. Scales are integers, so
// that a vector may hold 64 bytes of a super-block and its halves be added up in the end: no vector
// is half empty with an odd number of rows.
//
// A format has
//   Block      as in a file
//   Weights    a Block unpacked, once for all rows: `scales`; `pairs`, sums of two products of
//              bytes of vector i; and `start`, what an offset of weights or of the row makes
//   packed     a row's byte as `pairs` wants it
//   Mins<P>    what is multiplied by sums of the row and added up in ggml's order
template <class Format>
struct SuperDots {
    using Block = typename Format::Block;
    using Weights = typename Format::Weights;
    using Row = RowQ8_K;
    static constexpr abi::Type ROW = abi::Q8_K;
    static constexpr int BLOCK = 256, COLUMNS = 4, SIDE_BY_SIDE = 1, ROWS = 1, AT_ONCE = 8;
    static constexpr int VECTORS = COLUMNS / PER_VECTOR, MOST_ROWS = MOST_ROWS_BESIDE_TILED;

    using Unit = SuperUnit;

    static void pack(Unit & unit, int, const RowQ8_K & row) {
        unit.pack(row);
        for (int8_t & q : unit.qs) q = Format::packed(q);
    }

    // A Block's sums with each row, for weight row c of a vector. AVX2 has too few registers for all
    // of its weights and scales: each of their vectors is taken once, for all rows.
    template <int P>
    static void add_lanes(const Weights & w, const Unit * units, int c,
                          Ints (&lanes)[P][PER_VECTOR]) {
        const auto add = [&](int p, int i) {
            lanes[p][c] = add_scaled(lanes[p][c], w.pairs(units[p], i), w.scales[i]);
        };
        if constexpr (HAS_FEW_REGISTERS) {
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) lanes[p][c] = w.start(units[p]);
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p) add(p, i);
            }
        } else {
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                lanes[p][c] = w.start(units[p]);
#pragma GCC unroll 8
                for (int i = 0; i < SUPER_VECTORS; ++i) add(p, i);
            }
        }
    }

    template <int P>
    [[gnu::flatten]]
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const size_t row_bytes = n_blocks * sizeof(Block);
        Floats sums[P][VECTORS];
        for (auto & row : sums) std::fill_n(row, VECTORS, zeros());
        typename Format::template Mins<P> mins;
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            const Block * blocks[COLUMNS];
            ahead.fetch<COLUMNS * sizeof(Block)>(b);
            for (int c = 0; c < COLUMNS; ++c)
                blocks[c] = (const Block *)(weights + c * row_bytes) + b;
            mins.add_block(blocks, units, sums);
            const __m128 d = of_blocks(blocks, &Block::d);
            for (int v = 0; v < VECTORS; ++v) {
                Ints lanes[P][PER_VECTOR];
                for (int c = 0; c < PER_VECTOR; ++c) {
                    const Weights w(*blocks[v * PER_VECTOR + c]);
                    add_lanes<P>(w, units, c, lanes);
                }
                const Floats scales = for_lanes(d, v);
#pragma GCC unroll 8
                for (int p = 0; p < P; ++p) {
                    const Floats scale = multiply(scales, all(units[p].d));
                    const Floats products = to_floats(lanes_of_rows(lanes[p]));
                    sums[p][v] = multiply_add(scale, products, sums[p][v]);
                }
            }
        }
        for (int p = 0; p < P; ++p)
            _mm_storeu_ps(out + p * stride, mins.added(p, sums_of_rows(sums[p])));
    }
};

}  // namespace
