// Q4_1: 32 weights of a block are d * q + m, q of four bits in the order of Q4_0's.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

#include <climits>

namespace {

struct Q4_1 {
    struct Block {
        uint16_t d, m;
        uint8_t qs[16];
    };
    using Row = RowQ8_1;
    static constexpr abi::Type ROW = abi::Q8_1;
    static constexpr int OFFSET = 0, HIGH = HIGH_NIBBLE;
    static constexpr bool IS_SIGNED = false;
    static constexpr int MOST_ROWS = INT_MAX;  // ggml has no kernel for many rows
    static Ints weights(const Block & block) { return nibbles(block.qs); }
};

}  // namespace
