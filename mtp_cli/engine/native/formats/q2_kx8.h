// Q2_K as ggml repacks it, its block_q2_Kx8. Scales and minima lie in pairs of a weight row, for
// two times sixteen weights.
#pragma once

#include "../kernels/side_by_side.h"

namespace {

struct Q2_Kx8 {
    struct Block {
        uint16_t d[8], dmin[8];
        uint8_t scales[128], qs[512];
    };
    static constexpr int N_SCALES = 16, BITS = 3;
    static int place(int eight) { return 256 * (eight / 16) + 64 * (eight % 4); }
    static int shift(int eight) { return eight / 4 % 4 * 2; }

    struct Scales {
        __m128i first, second;
        __m256i mins;
        Scales(const Block & block, int i) {
            const __m128i both = _mm_loadu_si128((const __m128i *)(block.scales + 16 * i));
            const __m128i scales = _mm_and_si128(both, _mm_set1_epi8(15));
            first = _mm_and_si128(scales, _mm_set1_epi16(255));
            second = _mm_srli_epi16(scales, 8);
            mins = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(both, 4), _mm_set1_epi8(15)));
        }
    };
    template <int P>
    static void add(const Block & block, const SuperUnit * units, BlockSums<P> & sums) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {  // 32 weights: two bits each of 32 bytes
            const Scales two(block, i);
            const uint8_t * qs = block.qs + place(4 * i);
            sums.add(SideBySide::Bytes<2>(qs, shift(4 * i), BITS), two.first, units, 32 * i);
            sums.add(SideBySide::Bytes<2>(qs + 128, shift(4 * i), BITS), two.second, units,
                     32 * i + 16);
            sums.add_mins(two.mins, units, &SuperUnit::sums, 2 * i);
        }
    }
};

}  // namespace
