// MXFP4: 32 weights of a block are 2 to the e - 128 times value[q], q of four bits, as in IQ4_NL.
// Where ggml has repacked them, they are mxfp4x8.h's.
#pragma once

#include "../kernels/pair_dots.h"
#include "mxfp4_values.h"

namespace {

struct MXFP4 {
    struct Block {
        uint8_t e, qs[16];
    };
    static constexpr int OFFSET = HAS_UNSIGNED_DOT ? 128 : 0;
    static __m128i table() { return raised(mxfp4_values(), OFFSET); }
    static __m256 scales(const Block * const blocks[8]) {
        uint64_t eight = 0;
        for (int i = 0; i < 8; ++i) eight |= (uint64_t)blocks[i]->e << 8 * i;
        return halves_of_powers(_mm_cvtsi64_si128((int64_t)eight));
    }
};

}  // namespace
