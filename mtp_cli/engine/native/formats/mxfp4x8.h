// MXFP4 as ggml repacks it, its block_mxfp4x8.
#pragma once

#include "../kernels/eight_rows.h"
#include "mxfp4_values.h"

namespace {

struct MXFP4x8 {
    struct Block {
        uint8_t e[8], qs[128];
    };
    static constexpr int OFFSET = 12, MOST_ROWS = MOST_ROWS_BESIDE_GEMM;
    static EightRows weights(const Block & block) {
        return {block.qs, raised(mxfp4_values(), OFFSET)};
    }
    static Floats scales(const Block & block) {
        return weight_scales(halves_of_powers(_mm_loadu_si64(block.e)));
    }
};

}  // namespace
