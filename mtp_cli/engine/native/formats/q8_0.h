// Q8_0: 32 weights of a block are d * q, q a signed byte.
#pragma once

#include "../kernels/dots.h"
#include "rows.h"

namespace {

struct Q8_0 {
    struct Block {
        uint16_t d;
        int8_t qs[32];
    };
    using Row = RowQ8_0;
    static constexpr abi::Type ROW = abi::Q8_0;
    static constexpr int OFFSET = HAS_UNSIGNED_DOT ? 128 : 0, HIGH = 1;
    static constexpr bool IS_SIGNED = !HAS_UNSIGNED_DOT;
    static constexpr int MOST_ROWS = MOST_ROWS_BESIDE_GEMM;
    static Ints weights(const Block & a, const Block & b) { return offset_bytes(a.qs, b.qs); }
};

}  // namespace
