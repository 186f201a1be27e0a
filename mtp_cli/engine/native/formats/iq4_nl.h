// IQ4_NL: 32 weights of a block are d * value[q], q of four bits; weight i is the low half of byte
// i, weight 16 + i the high half. Where ggml has repacked them, they are iq4_nlx8.h's.
#pragma once

#include "../kernels/pair_dots.h"
#include "iq4_values.h"

namespace {

struct IQ4_NL {
    struct Block {
        uint16_t d;
        uint8_t qs[16];
    };
    static constexpr int OFFSET = HAS_UNSIGNED_DOT ? 128 : 0;
    static __m128i table() { return raised(iq4_values(), OFFSET); }
    static __m256 scales(const Block * const blocks[8]) {
        alignas(16) uint16_t eight[8];
        for (int i = 0; i < 8; ++i) eight[i] = blocks[i]->d;
        return eight_halves(eight);
    }
};

}  // namespace
