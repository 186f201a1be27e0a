// What a head and the fusion of its rows have in common.
#pragma once

#include "ggml_abi.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace head {

// Of ggml and of the OpenMP runtime it uses, whose threads are the ones that wait for work
struct Functions {
    const abi::TypeTraits * (*type_traits)(int type);
    void (*parallel)(void (*run)(void *), void * data, unsigned n_threads, unsigned flags);
    void (*barrier)();
    int (*thread_num)();
    int (*num_threads)();
};

}  // namespace head

#if defined(__x86_64__)
#include "vectors.h"
#endif

#ifdef MTP_VECTORS
#include "formats/q5_1.h"
#include "formats/q8_0.h"
#include "kernels/lane_dots.h"
#include "rounding.h"
#include "spare_product.h"

namespace head {

// A step reads every weight for a row or a few, so that bytes decide: five bits take 0.75 of the time
// of eight, and drafts are as good. With four they are worse.
using Kernel = LaneDots<Q5_1, RowQ8_0>;
using Rounding = decltype(abi::TypeTraits::from_float);
using Unit = Kernel::Unit;

inline int n_blocks(int n) { return n / Kernel::BLOCK; }
inline int whole_groups(int n) { return (n + LANES - 1) / LANES * LANES; }

// n weights of a file
inline void widen(const Q8_0::Block * blocks, int n, float * out) {
    for (int b = 0; b < n / 32; ++b)
        for (int i = 0; i < 32; ++i) *out++ = _cvtsh_ss(blocks[b].d) * blocks[b].qs[i];
}

// A matrix of a file's Q8_0, rounded to Q5_1 and laid out for the kernel; filled up with weight rows
// of zeros to a whole group
class Matrix {
public:
    Matrix(const Functions & functions, const char * file, int n_in, int n_out)
        : round_(functions.type_traits(abi::Q5_1)->from_float), n_blocks_(n_blocks(n_in)) {
        append(file, 0, n_out);
    }

    // n weight rows, as in a file, as the first-th and after; there are none behind them then
    void append(const char * file, int first, int n) {
        n_out_ = first + n;
        groups_.resize((size_t)whole_groups(n_out_) / LANES * n_blocks_);
        const auto * blocks = (const Q8_0::Block *)file;
        std::vector<float> weights((size_t)n_blocks_ * Kernel::BLOCK);
        std::vector<Q5_1::Block> rounded(n_blocks_);
        for (int row = first; row < n_out_; ++row, blocks += n_blocks_) {
            widen(blocks, (int)weights.size(), weights.data());
            round_(weights.data(), rounded.data(), (int64_t)weights.size());
            for (int b = 0; b < n_blocks_; ++b)
                Kernel::lay_out(rounded[b], row % LANES,
                                groups_[(size_t)row / LANES * n_blocks_ + b]);
        }
    }

    int n_out() const { return n_out_; }
    const char * from(int column) const {
        return (const char *)&groups_[(size_t)column / LANES * n_blocks_];
    }

private:
    Rounding round_;
    int n_blocks_, n_out_ = 0;
    std::vector<Kernel::Block> groups_;
};

inline float dot(const float * a, const float * b, int n) {
    Floats sum = zeros();
    for (int i = 0; i < n; i += LANES) sum = multiply_add(load(a + i), load(b + i), sum);
    return sum_lanes(sum);
}

inline float rms_scale(const float * in, int n, float eps) {
    return 1 / std::sqrt(dot(in, in, n) / n + eps);
}
inline void rms_norm(const float * in, const float * weight, int n, float eps, float * out) {
    const float scale = rms_scale(in, n, eps);
    for (int i = 0; i < n; ++i) out[i] = in[i] * scale * weight[i];
}

// What is one thread's: of n columns, taken so many at a time, the ones from `from` to `to`
struct Range {
    int from, to;

    static Range of(int n, int at_a_time, int thread, int n_threads) {
        const int64_t n_parts = n / at_a_time;
        return {(int)(n_parts * thread / n_threads) * at_a_time,
                (int)(n_parts * (thread + 1) / n_threads) * at_a_time};
    }
};

// The rows that a thread multiplies next, in Units. One that is alone may have a spare one's help.
class Rows {
public:
    // own: room for the most rows that come, of the longest
    Rows(Rounding round, Unit * own, bool is_alone)
        : round_(round), own_(own), turn_(is_alone) {}

    void pack(const float * rows, int n_in, int n) {
        n_blocks_ = n_blocks(n_in), n_rows_ = n, n_units_ = units_of<Kernel>(n);
        units_ = turn_ ? (Unit *)turn_.units(sizeof(Unit) * n_blocks_ * n_units_) : own_;
        pack_rows<Kernel>(round_, [=](int row) { return rows + (size_t)row * n_in; }, n, n_blocks_,
                          units_, 0, n_blocks_);
    }

    // The rows packed last, times these columns of a matrix, whole groups
    void multiply(const Matrix & matrix, Range columns, float * out, int stride) {
        const int64_t n = columns.to - columns.from, bytes = group_bytes<Kernel>(n_blocks_);
        if (n == 0) return;
        const spare::Product product = {
            multiply_chunk<Kernel>, matrix.from(columns.from), units_, n,
            Kernel::COLUMNS, n_blocks_, n_units_, n_rows_,
            turn_ ? std::max(1, spare::n_chunks(n / Kernel::COLUMNS * bytes)) : 1};
        out += columns.from;
        if (product.n_chunks > 1)
            turn_.multiply(product, out, stride);
        else
            multiply_chunk<Kernel>(product, 0, out, stride);
    }

private:
    const Rounding round_;
    Unit * const own_;
    spare::Turn turn_;
    Unit * units_ = nullptr;
    int n_blocks_ = 0, n_rows_ = 0, n_units_ = 0;
};

}  // namespace head

#endif
