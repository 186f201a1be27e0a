// Q6_K: 256 weights of a block are d * scale * (q - 32), q of six bits, sixteen to a scale of eight
// bits. Of every 128, the low four bits are ql's low and high nibbles, the upper two are in qh.
#pragma once

#include "../kernels/super_dots.h"

namespace {

struct Q6_K {
    struct Block {
        uint8_t ql[128], qh[64];
        int8_t packed_scales[16];
        uint16_t d;
    };
    struct Weights : UnsignedWeights {
        static constexpr Offset OFFSET = Offset::OF_SUMS;
        __m256i offset;  // for the row's sums of sixteen, two to a lane, as ggml takes it back

        explicit Weights(const Block & block) {
            const __m256i sixteen =
                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)block.packed_scales));
            offset = _mm256_mullo_epi16(sixteen, _mm256_set1_epi16(-32));
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                q[i] = super_sixes(block.ql, block.qh, i);
                scales[i] = scales_by_16(sixteen, i);
            }
        }
        Ints start(const SuperUnit & unit) const {
            const __m256i sums = _mm256_loadu_si256((const __m256i *)unit.sums);
            return eight_lanes(_mm256_madd_epi16(sums, offset));
        }
    };
    template <int P>
    using Mins = NoMins<P>;
    static int8_t packed(int8_t q) { return q; }
};

}  // namespace
