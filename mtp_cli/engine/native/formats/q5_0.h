// Q5_0: 32 weights of a block are d * (q - 16), q of five bits: four as in Q4_0, and of weight i
// the fifth is bit i of qh.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

#include <climits>

namespace {

struct Q5_0 {
    struct Block {
        uint16_t d;
        uint8_t qh[4], qs[16];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int OFFSET = 16, HIGH = 1;
    static constexpr bool IS_SIGNED = false;
    static constexpr int MOST_ROWS = INT_MAX;
    static Ints weights(const Block & a, const Block & b) {
        return with_fifth_bits(shifted_nibbles(a.qs, b.qs), a.qh, b.qh);
    }
};

}  // namespace
