// Q5_1: 32 weights of a block are d * q + m, q of five bits as in Q5_0.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

#include <climits>

namespace {

struct Q5_1 {
    struct Block {
        uint16_t d, m;
        uint8_t qh[4], qs[16];
    };
    using Row = RowQ8_1;
    static constexpr abi::Type ROW = abi::Q8_1;
    static constexpr int OFFSET = 0, HIGH = 1;
    static constexpr bool IS_SIGNED = false;
    static constexpr int MOST_ROWS = INT_MAX;
    static Ints weights(const Block & a, const Block & b) {
        return with_fifth_bits(shifted_nibbles(a.qs, b.qs), a.qh, b.qh);
    }
};

}  // namespace
