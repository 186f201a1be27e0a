// IQ4_NL as ggml repacks it, its block_iq4_nlx8.
#pragma once

#include "../kernels/eight_rows.h"
#include "iq4_values.h"

namespace {

struct IQ4_NLx8 {
    struct Block {
        uint16_t d[8];
        uint8_t qs[128];
    };
    static constexpr int OFFSET = HAS_UNSIGNED_DOT ? 128 : 0;
    static constexpr int MOST_ROWS = MOST_ROWS_BESIDE_GEMM;
    static EightWideRows weights(const Block & block) {
        return {block.qs, raised(iq4_values(), OFFSET)};
    }
    static Floats scales(const Block & block) { return weight_scales(eight_halves(block.d)); }
};

}  // namespace
