// Q4_K as ggml repacks it, its block_q4_Kx8. Scales and minima of eight weight rows lie together.
#pragma once

#include "../kernels/side_by_side.h"
#include "k_scales.h"

namespace {

struct Q4_Kx8 {
    struct Block {
        uint16_t d[8], dmin[8];
        uint8_t scales[96], qs[1024];
    };
    template <int P>
    static void add(const Block & block, const SuperUnit * units, BlockSums<P> & sums) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {  // 64 weights, 32 of them low nibbles
            const KScales first(block.scales + 24 * i), second(block.scales + 24 * i + 12);
            const uint8_t * qs = block.qs + 256 * i;
            sums.add(SideBySide::Bytes<4>(qs, 0, 15), first.scales, units, 64 * i);
            sums.add(SideBySide::Bytes<4>(qs, 4, 15), second.scales, units, 64 * i + 32);
            const __m128i low = _mm_unpacklo_epi16(first.mins, second.mins);
            const __m128i high = _mm_unpackhi_epi16(first.mins, second.mins);
            sums.add_mins(_mm256_set_m128i(high, low), units, &SuperUnit::sums_of_32, 2 * i);
        }
    }
};

}  // namespace
