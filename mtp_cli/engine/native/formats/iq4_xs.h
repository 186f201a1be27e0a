// IQ4_XS: 256 weights of a block are d * (scale - 32) * value[q], q of four bits, 32 to a scale of
// six bits. Of every 32, qs has 16 low nibbles, then 16 high ones.
#pragma once

#include "../kernels/super_dots.h"
#include "../many_rows.h"
#include "iq4_values.h"

namespace {

struct IQ4_XS {
    struct Block {
        uint16_t d, scales_high;
        uint8_t scales_low[4], qs[128];
    };
    struct Weights {
        Ints q[SUPER_VECTORS], scales[SUPER_VECTORS];

        explicit Weights(const Block & block) {
            const __m128i eight = scales_of_block(block);
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                q[i] = super_looked_up(block.qs, i, iq4_values());
                scales[i] = scales_by_32(eight, i);
            }
        }
        Ints start(const SuperUnit &) const { return zero_ints(); }
        Ints pairs(const SuperUnit & unit, int i) const {
            return signed_pairs_of(q[i], unit.qs + 256 / SUPER_VECTORS * i);
        }
    };
    template <int P>
    using Mins = NoMins<P>;
    static int8_t packed(int8_t q) { return q; }

    // Of eight, four low bits each in a nibble, two high ones side by side
    static __m128i scales_of_block(const Block & block) {
        uint32_t low;
        memcpy(&low, block.scales_low, 4);
        alignas(16) int16_t six[8];
        for (int i = 0; i < 8; ++i)
            six[i] = (int16_t)((low >> 4 * i & 15) | (block.scales_high >> 2 * i & 3) << 4);
        return _mm_sub_epi16(_mm_load_si128((const __m128i *)six), _mm_set1_epi16(32));
    }
};

// Sums of four products of such bytes need more than 16 bits: ggml is faster with many rows.
template <>
struct ForManyRows<SuperDots<IQ4_XS>> {
    using Kernel = void;
};

}  // namespace
