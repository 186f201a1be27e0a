// Q4_K as in a file: 256 weights of a block are d * scale * q - dmin * min, q of four bits, 32 to a
// scale and a minimum. Of every 64, qs has 32 low nibbles, then 32 high ones.
#pragma once

#include "../kernels/super_dots.h"
#include "k_scales.h"

namespace {

struct Q4_K {
    struct Block {
        uint16_t d, dmin;
        uint8_t packed_scales[12], qs[128];
    };
    struct Weights : UnsignedWeights {
        explicit Weights(const Block & block) {
            const __m128i eight = KScales(block.packed_scales).scales;
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                q[i] = super_nibbles(block.qs, i);
                scales[i] = scales_by_32(eight, i);
            }
        }
    };
    template <int P>
    using Mins = FourMins<Q4_K, P, false>;
    static __m128i mins(const Block & block) { return KScales(block.packed_scales).mins; }
    static int8_t packed(int8_t q) { return q; }
};

}  // namespace
