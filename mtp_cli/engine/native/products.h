// Products of a few weight rows with a few rows, in each number format.
//
// These read and unpack a weight once for all rows, and add up every row's products in the order of
// ggml's kernel for one row (arch/x86/quants.c, arch/x86/repack.cpp, vec.cpp). Knows nothing of
// threads, of ggml's tensors or of what the rows are.
#pragma once

#include "ggml_abi.h"
#include "vectors.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <type_traits>

namespace {

// Weights are asked for so many bytes before they are read: the hardware's prefetching ends with
// every page and row.
constexpr int64_t AHEAD = 8192;

constexpr int PANEL = 8;                        // Units that stay in the nearest cache
constexpr int64_t WEIGHTS_AT_A_TIME = 1 << 18;  // bytes that stay in the next one, for other Units

inline void prefetch(const void * from, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_T0);
}

// From a Block that is being read to the one that will be AHEAD bytes later, in bytes. The rows of
// a group are read side by side, one Block of each, and after a group comes the next.
struct Ahead {
    int64_t within, beyond;  // of the groups it may be in, the nearer and the next one
    int first_beyond;        // the first Block of a row for which it is that one

    int64_t of(int block) const { return block < first_beyond ? within : beyond; }
};

// Each kernel has
//   BLOCK    how many weights of a row it takes at a time
//   COLUMNS  how many weight rows it takes at a time; SIDE_BY_SIDE of them lie in one Block
//   ROWS     how many rows one Unit holds; with more than MOST_ROWS, ggml's own kernels are faster
//   AT_ONCE  the most Units whose sums have room in registers
//   Unit     a block of ROWS rows, laid out for `tile`
//   Row      a block of one row as ggml rounds it, to type ROW
//   pack     a Row into its place in a Unit
//   tile     COLUMNS weight rows times P Units of rows: out[row * stride + column]

struct RowQ8_0 {
    uint16_t d;
    int8_t qs[32];
};
struct RowQ8_1 {
    uint16_t d, s;
    int8_t qs[32];
};

struct Q8_0 {
    struct Block {
        uint16_t d;
        int8_t qs[32];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int OFFSET = HAS_UNSIGNED_DOT ? 128 : 0;  // of the bytes as multiplied
    static constexpr int HIGH = 1;  // how many times too large the upper half of them is
    static Ints weights(const Block & block) { return offset_bytes(block.qs); }
};

struct Q4_0 {
    struct Block {
        uint16_t d;
        uint8_t qs[16];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int OFFSET = 8, HIGH = HIGH_NIBBLE;
    static Ints weights(const Block & block) { return nibbles(block.qs); }
};

struct Q4_1 {
    struct Block {
        uint16_t d, m;
        uint8_t qs[16];
    };
    using Row = RowQ8_1;
    static constexpr abi::Type ROW = abi::Q8_1;
    static constexpr int OFFSET = 0, HIGH = HIGH_NIBBLE;
    static Ints weights(const Block & block) { return nibbles(block.qs); }
};

// Formats that ggml multiplies by `vec_dot`: eight sums for each pair of rows, all through
template <class Format>
struct Dots {
    using Block = typename Format::Block;
    using Row = typename Format::Row;
    static constexpr abi::Type ROW = Format::ROW;
    static constexpr int BLOCK = 32, COLUMNS = 4, SIDE_BY_SIDE = 1, ROWS = PER_VECTOR, AT_ONCE = 4;
    static constexpr bool HAS_MINS = Format::ROW == abi::Q8_1;
    // Q4_1 is the one of them that ggml has no kernel for many rows for.
    static constexpr int MOST_ROWS = HAS_MINS ? INT_MAX : MOST_ROWS_BESIDE_GEMM;
    static constexpr bool IS_SIGNED = !HAS_UNSIGNED_DOT && std::is_same_v<Format, Q8_0>;

    struct alignas(32) Unit {
        int8_t qs[32 * ROWS];
        float d[8 * ROWS];
        int32_t start[Format::OFFSET ? 8 * ROWS : 0];  // takes the weights' offset back
        float s[HAS_MINS ? 4 * ROWS : 0];
    };

    static void pack(Unit & unit, int row, const Row & block) {
        memcpy(unit.qs + 32 * row, block.qs, 32);
        // What the weights in the upper lanes are too large by, the scale takes back.
        const __m128 d = _mm_set1_ps(_cvtsh_ss(block.d));
        _mm_storeu_ps(unit.d + 8 * row, d);
        _mm_storeu_ps(unit.d + 8 * row + 4, _mm_mul_ps(d, _mm_set1_ps(1.0f / Format::HIGH)));
        if constexpr (Format::OFFSET != 0) {
            const __m256i sums = sums_of_four(block.qs, -Format::OFFSET);
            const __m256i high = _mm256_set_m128i(_mm_set1_epi32(Format::HIGH), _mm_set1_epi32(1));
            _mm256_storeu_si256((__m256i *)(unit.start + 8 * row), _mm256_mullo_epi32(sums, high));
        }
        if constexpr (HAS_MINS) {
            _mm_storeu_ps(unit.s + 4 * row, _mm_set1_ps(_cvtsh_ss(block.s)));
        }
    }

    static Ints products(Ints weights, const Unit & unit) {
        if constexpr (Format::OFFSET)
            return dot(load(unit.start), weights, unit.qs);
        else if constexpr (IS_SIGNED)
            return signed_dot(weights, unit.qs);
        else
            return dot(weights, unit.qs);
    }

    template <int P>
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int n_rows) {
        const size_t row_bytes = n_blocks * sizeof(Block);
        Floats sums[P][COLUMNS];
        Floats4 mins[P];
        for (int p = 0; p < P; ++p) {
            for (int c = 0; c < COLUMNS; ++c) sums[p][c] = zeros();
            mins[p] = zeros4();
        }
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            const Block * blocks[COLUMNS];
            for (int c = 0; c < COLUMNS; ++c) {
                blocks[c] = (const Block *)(weights + c * row_bytes) + b;
                prefetch((const char *)blocks[c] + ahead.of(b), 1);
            }
            const __m256 pairs = first_pairs(blocks[0], blocks[1], blocks[2], blocks[3]);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) {
                const Ints w = Format::weights(*blocks[c]);
                const Floats d = first_of_pair(pairs, c);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const Floats scale = multiply(d, load(units[p].d));
                    sums[p][c] = multiply_add(scale, to_floats(products(w, units[p])), sums[p][c]);
                }
            }
            if constexpr (HAS_MINS) {
                const Floats4 four = second_of_pairs(pairs);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    mins[p] = multiply_add(four, load4(units[p].s), mins[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            Floats4 four = sums4(sums[p]);
            if constexpr (HAS_MINS) four = add(four, mins[p]);
            store4(four, out + p * ROWS * stride, stride, n_rows - p * ROWS);
        }
    }
};

// ggml's block_q4_0x8: eight weight rows side by side, so that a lane is a weight row
struct Q4_0x8 {
    struct Block {
        uint16_t d[8];
        uint8_t qs[128];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int BLOCK = 32, COLUMNS = 8, SIDE_BY_SIDE = 8, ROWS = PER_VECTOR, AT_ONCE = 4;
    static constexpr int MOST_ROWS = MOST_ROWS_BESIDE_GEMM;

    struct Unit {
        int8_t qs[32 * ROWS];
        int32_t start[ROWS];
        float d[ROWS];
    };

    static void pack(Unit & unit, int row, const RowQ8_0 & block) {
        memcpy(unit.qs + 32 * row, block.qs, 32);
        unit.start[row] = sum_of_lanes(sums_of_four(block.qs, -8));
        unit.d[row] = _cvtsh_ss(block.d);
    }

    template <int P>
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int n_rows) {
        const Block * blocks = (const Block *)weights;
        Floats sums[P];
        for (int p = 0; p < P; ++p) sums[p] = zeros();
        for (int b = 0; b < n_blocks; ++b, units += n_units) {
            prefetch((const char *)(blocks + b) + ahead.of(b), sizeof(Block));
            const EightRows eight(blocks[b].qs);
            const Floats d = weight_scales(blocks[b].d);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                const Floats scale = multiply(d, row_scales(units[p].d));
                const Ints products = eight.sums(units[p].qs, units[p].start);
                sums[p] = multiply_add(to_floats(products), scale, sums[p]);
            }
        }
        for (int p = 0; p < P; ++p) {
            store_eight(sums[p], out + p * ROWS * stride, stride, n_rows - p * ROWS);
        }
    }
};

// Half-precision formats: STEP of a weight row or a row at a time
template <abi::Type TYPE, int N, int C, Floats (*WIDEN)(const uint16_t *),
          float (*SUM)(const Floats *)>
struct InFloat32 {
    using Wide = Floats;
    static constexpr abi::Type ROW = TYPE;
    static constexpr int STEP = LANES, N_SUMS = N, COLUMNS = C;
    static Wide widen(const uint16_t * x) { return WIDEN(x); }
    static Floats add_products(Wide a, Wide b, Floats sum) { return multiply_add(a, b, sum); }
    static float sum(const Floats * x) { return SUM(x); }
};

using F16 = InFloat32<abi::F16, N_SUMS_F16, COLUMNS_F16, widen_f16, sum_f16>;

#ifdef __AVX512BF16__
// As ggml's kernel does where the processor multiplies pairs of them
struct BF16 {
    using Wide = __m512bh;
    static constexpr abi::Type ROW = abi::BF16;
    static constexpr int STEP = 2 * LANES, N_SUMS = N_SUMS_BF16, COLUMNS = COLUMNS_BF16;
    static Wide widen(const uint16_t * x) { return (__m512bh)_mm512_loadu_si512(x); }
    static Floats add_products(Wide a, Wide b, Floats sum) { return _mm512_dpbf16_ps(sum, a, b); }
    static float sum(const Floats * x) { return sum_bf16(x); }
};
#else
using BF16 = InFloat32<abi::BF16, N_SUMS_BF16, COLUMNS_BF16, widen_bf16, sum_bf16>;
#endif

template <class Format>
struct Halves {
    static constexpr int STEP = Format::STEP, N_SUMS = Format::N_SUMS;
    static constexpr int BLOCK = 64, COLUMNS = Format::COLUMNS, SIDE_BY_SIDE = 1;
    static constexpr int ROWS = 1, AT_ONCE = HALVES_AT_ONCE, MOST_ROWS = 16;
    static constexpr abi::Type ROW = Format::ROW;

    struct Block {
        uint16_t x[BLOCK];
    };
    using Row = Block;
    using Unit = Block;  // widened each time: in single precision some rows would fill the cache

    static void pack(Unit & unit, int, const Row & row) { unit = row; }

    template <int P>
    static void tile(const char * weights, int n_blocks, const Unit * units, int n_units,
                     const Ahead & ahead, float * out, size_t stride, int) {
        const size_t length = (size_t)n_blocks * BLOCK;
        const uint16_t * w = (const uint16_t *)weights;
        Floats sums[P][COLUMNS][N_SUMS];
        for (auto & row : sums) {
            for (auto & column : row) std::fill_n(column, N_SUMS, zeros());
        }
        for (int b = 0; b < n_blocks; ++b, units += n_units, w += BLOCK) {
            for (int c = 0; c < COLUMNS; ++c)
                prefetch((const char *)(w + c * length) + ahead.of(b), sizeof(Block));
#pragma GCC unroll 8
            for (int i = 0; i < BLOCK; i += STEP) {
                typename Format::Wide rows[P];
#pragma GCC unroll 6
                for (int p = 0; p < P; ++p) rows[p] = Format::widen(units[p].x + i);
#pragma GCC unroll 4
                for (int c = 0; c < COLUMNS; ++c) {
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
            for (int c = 0; c < COLUMNS; ++c) out[p * stride + c] = Format::sum(sums[p][c]);
        }
    }
};

// Some Units of rows times one group of weight rows
template <class Kernel>
void multiply_group(const char * weights, int n_blocks, const typename Kernel::Unit * units,
                    int n_units, int first, int last, const Ahead & ahead, float * out,
                    size_t stride, int n_rows) {
    for (; first < last; first += Kernel::AT_ONCE) {
        const int row = first * Kernel::ROWS, n = std::min(last - first, Kernel::AT_ONCE);
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
    }
}

template <class Kernel>
int units_of(int64_t n_rows) {
    return (int)((n_rows + Kernel::ROWS - 1) / Kernel::ROWS);
}

// COLUMNS weight rows of so many Blocks
template <class Kernel>
size_t group_bytes(int64_t n_blocks) {
    return n_blocks * sizeof(typename Kernel::Block) * Kernel::COLUMNS / Kernel::SIDE_BY_SIDE;
}

template <class Kernel>
Ahead ahead_in(int64_t n_blocks) {
    constexpr int64_t BLOCK = sizeof(typename Kernel::Block);
    constexpr int64_t AT_A_TIME = BLOCK * Kernel::COLUMNS / Kernel::SIDE_BY_SIDE;
    const int64_t n_groups = AHEAD / AT_A_TIME / n_blocks, rest = AHEAD / AT_A_TIME % n_blocks;
    const int64_t within = n_groups * group_bytes<Kernel>(n_blocks) + rest * BLOCK;
    return {within, within + (int64_t)group_bytes<Kernel>(n_blocks) - n_blocks * BLOCK,
            (int)(n_blocks - rest)};
}

// Blocks `from` to `to` of all rows: rounded as ggml rounds a row alone, and into their Units
template <class Kernel>
void pack_rows(decltype(abi::TypeTraits::from_float) round, const float * rows, size_t stride,
               int n_rows, typename Kernel::Unit * units, int n_units, int from, int to) {
    constexpr int AT_ONCE = 8;
    typename Kernel::Row blocks[AT_ONCE] = {};
    for (int row = 0; row < n_units * Kernel::ROWS; ++row) {
        const bool is_there = row < n_rows;
        if (!is_there) memset(blocks, 0, sizeof(blocks));
        for (int first = from; first < to; first += AT_ONCE) {
            const int n = std::min(AT_ONCE, to - first);
            if (is_there)
                round(rows + row * stride + first * Kernel::BLOCK, blocks, n * Kernel::BLOCK);
            for (int i = 0; i < n; ++i) {
                typename Kernel::Unit & unit =
                    units[(size_t)(first + i) * n_units + row / Kernel::ROWS];
                Kernel::pack(unit, row % Kernel::ROWS, blocks[i]);
            }
        }
    }
}

// Groups `from` to `to` of COLUMNS weight rows times all rows: out[row * stride + column]
template <class Kernel>
void multiply_groups(const char * weights, int n_blocks, const typename Kernel::Unit * units,
                     int n_units, int64_t from, int64_t to, float * out, size_t stride,
                     int n_rows) {
    const int64_t bytes = group_bytes<Kernel>(n_blocks);
    const Ahead ahead = ahead_in<Kernel>(n_blocks);
    const int64_t most =
        n_units <= PANEL ? to - from : std::max<int64_t>(1, WEIGHTS_AT_A_TIME / bytes);
    for (; from < to; from += most) {
        for (int first = 0; first < n_units; first += PANEL) {
            for (int64_t g = from; g < std::min(from + most, to); ++g) {
                multiply_group<Kernel>(weights + g * bytes, n_blocks, units, n_units, first,
                                       std::min(first + PANEL, n_units), ahead,
                                       out + g * Kernel::COLUMNS, stride, n_rows);
            }
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
