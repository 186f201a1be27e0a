// What a head and the fusion of its rows have in common.
#pragma once

#include "ggml_abi.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

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
#include "formats/q8_0.h"

namespace head {

using Kernel = Dots<Q8_0>;
using Unit = Kernel::Unit;

inline int n_blocks(int n) { return n / Kernel::BLOCK; }

inline float dot(const float * a, const float * b, int n) {
    Floats sum = zeros();
    for (int i = 0; i < n; i += LANES) sum = multiply_add(load(a + i), load(b + i), sum);
    return sum_lanes(sum);
}

inline void rms_norm(const float * in, const float * weight, int n, float eps, float * out) {
    const float scale = 1 / std::sqrt(dot(in, in, n) / n + eps);
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

// Units for so many rows of n_in, packed with what rounds them
inline void pack_units(decltype(abi::TypeTraits::from_float) round, const float * rows, int n_in, int n,
                       Unit * units) {
    pack_rows<Kernel>(round, rows, n_in, n, n_blocks(n_in), units, 0, n_blocks(n_in));
}

// Packed rows of n_in times these columns of a matrix
inline void multiply_columns(const char * matrix, int n_in, const Unit * units, int n, Range columns,
                             float * out, int stride) {
    multiply_groups<Kernel>(matrix, n_blocks(n_in), units, units_of<Kernel>(n),
                            columns.from / Kernel::COLUMNS, columns.to / Kernel::COLUMNS, out,
                            stride, n);
}

}  // namespace head

#endif
