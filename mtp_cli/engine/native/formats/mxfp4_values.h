// What the sixteen nibbles of MXFP4 stand for, twice over: numbers of a sign, two bits of exponent
// and one of mantissa.
#pragma once

#include <immintrin.h>

namespace {

inline __m128i mxfp4_values() {
    return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}

}  // namespace
