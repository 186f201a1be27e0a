// Q4_0: 32 weights of a block are d * (q - 8), q of four bits; weight i is the low half of byte i,
// weight 16 + i the high half. Where ggml has repacked them, they are q4_0x8.h's.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

namespace {

struct Q4_0 {
    struct Block {
        uint16_t d;
        uint8_t qs[16];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int OFFSET = 8, HIGH = HIGH_NIBBLE;
    static constexpr bool IS_SIGNED = false;
    static constexpr int MOST_ROWS = MOST_ROWS_BESIDE_GEMM;
    static Ints weights(const Block & a, const Block & b) { return nibbles(a.qs, b.qs); }
};

}  // namespace
