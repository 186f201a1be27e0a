// Q2_K as in a file: 256 weights of a block are d * scale * q - dmin * min, q of two bits, sixteen
// to a scale and a minimum of four bits each. Of every 128, 32 bytes have four each, the lowest
// first.
#pragma once

#include "../kernels/super_dots.h"

namespace {

struct Q2_K {
    struct Block {
        uint8_t packed_scales[16], qs[64];
        uint16_t d, dmin;
    };
    struct Weights : UnsignedWeights {
        explicit Weights(const Block & block) {
            const __m256i sixteen = nibbles_of(block, 0);
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                q[i] = super_pairs_of_bits(block.qs, i);
                scales[i] = scales_by_16(sixteen, i);
            }
        }
    };
    template <int P>
    using Mins = LaneMins<Q2_K, P>;
    static __m256i mins(const Block & block) { return nibbles_of(block, 4); }
    static int8_t packed(int8_t q) { return q; }

    static __m256i nibbles_of(const Block & block, int shift) {
        const __m128i both = _mm_loadu_si128((const __m128i *)block.packed_scales);
        return _mm256_cvtepu8_epi16(
            _mm_and_si128(_mm_srli_epi16(both, shift), _mm_set1_epi8(15)));
    }
};

}  // namespace
