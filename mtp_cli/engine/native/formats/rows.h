// Blocks of a row in the number formats that ggml rounds rows to before it multiplies them.
#pragma once

#include <cstdint>

namespace {

struct RowQ8_0 {
    uint16_t d;
    int8_t qs[32];
};

struct RowQ8_1 {
    uint16_t d, s;  // s = d * the sum of qs: what a weight's minimum is multiplied by
    int8_t qs[32];
};

struct RowQ8_K {
    float d;
    int8_t qs[256];
    int16_t sums[16];  // of sixteen qs each
};

}  // namespace
