// The vector operations the kernels are written in, under the same names for every vector width:
// AVX-512 with VNNI, or AVX2. MTP_VECTORS is the width's name, and undefined where there is none.
//
// A vector of eight-bit sums holds PER_VECTOR weight rows, eight lanes each, as ggml's kernels for
// one row do: lane i adds up bytes 4i to 4i + 3 of every block. Knows nothing of formats.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && defined(__AVX512VNNI__)
#include "vectors_avx512.h"
#define MTP_AVX512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "vectors_avx2.h"
#endif

#ifdef MTP_VECTORS
// e to the x for x up to 0; exactly 1 at 0, and 0 where a float would be denormal
inline Floats exp_of(Floats x) {
    constexpr float LEAST = -87;
    const Floats safe = maximum(x, all(LEAST));
    const Floats n = nearest(multiply(safe, all(1.44269504f)));
    // ln 2 in two parts, the first of few bits, so that what is taken off is exact
    const Floats rest =
        multiply_add(n, all(2.12194440e-4f), multiply_add(n, all(-0.693359375f), safe));
    constexpr float TAYLOR[] = {1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1, 1};
    Floats sum = all(1 / 5040.0f);
    for (float coefficient : TAYLOR) sum = multiply_add(sum, rest, all(coefficient));
    return zero_below(x, LEAST, times_power(sum, n));
}
#endif
