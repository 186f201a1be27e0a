// Q5_K: 256 weights of a block are d * scale * q - dmin * min, q of five bits, 32 to a scale and a
// minimum. Of every 64, the low four bits are the low and the high nibbles of qs; of weight i the
// fifth is bit i / 32 of qh[i % 32].
#pragma once

#include "../kernels/super_dots.h"
#include "k_scales.h"

namespace {

struct Q5_K {
    struct Block {
        uint16_t d, dmin;
        uint8_t packed_scales[12], qh[32], qs[128];
    };
    struct Weights : UnsignedWeights {
        explicit Weights(const Block & block) {
            const __m128i eight = KScales(block.packed_scales).scales;
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                q[i] = added_by_bits(super_nibbles(block.qs, i), block.qh, i, true, 16);
                scales[i] = scales_by_32(eight, i);
            }
        }
    };
    template <int P>
    using Mins = FourMins<Q5_K, P, true>;
    static __m128i mins(const Block & block) { return KScales(block.packed_scales).mins; }
    static int8_t packed(int8_t q) { return q; }
};

}  // namespace
