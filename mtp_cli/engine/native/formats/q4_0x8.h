// Q4_0 as ggml repacks it, its block_q4_0x8. Nibbles are signed here: ggml has flipped their top
// bit, which takes the 8 off. Flipped again, they are 8 too large.
#pragma once

#include "../kernels/eight_rows.h"

namespace {

struct Q4_0x8 {
    struct Block {
        uint16_t d[8];
        uint8_t qs[128];
    };
    static constexpr int OFFSET = 8, MOST_ROWS = MOST_ROWS_BESIDE_GEMM;
    static EightRows weights(const Block & block) { return EightRows(block.qs, 0x88); }
    static Floats scales(const Block & block) { return weight_scales(eight_halves(block.d)); }
};

}  // namespace
