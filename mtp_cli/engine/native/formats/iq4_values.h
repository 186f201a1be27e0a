// What the sixteen nibbles of IQ4_NL and IQ4_XS stand for.
#pragma once

#include <immintrin.h>

namespace {

inline __m128i iq4_values() {
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

}  // namespace
