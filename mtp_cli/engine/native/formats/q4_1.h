// Q4_1: 32 weights of a block are d * q + m, q of four bits. Weight i is the low half of byte i,
// weight 16 + i the high half.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

#include <climits>

namespace {

struct Q4_1 {
    struct Block {  // as in a file
        uint16_t d, m;
        uint8_t qs[16];
    };
    using Row = RowQ8_1;  // what ggml rounds a row to
    static constexpr abi::Type ROW = abi::Q8_1;
    static constexpr int OFFSET = 0;          // q is unsigned as it is
    static constexpr int HIGH = HIGH_NIBBLE;  // high halves are not always shifted down
    static constexpr bool IS_SIGNED = false;
    static constexpr int MOST_ROWS = INT_MAX;  // ggml has no kernel for many rows
    static Ints weights(const Block & a, const Block & b) { return nibbles(a.qs, b.qs); }
};

}  // namespace
