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
    static constexpr int N_SCALES = 8, BITS = 15;
    static int place(int eight) { return 256 * (eight / 8) + 64 * (eight % 4); }
    static int shift(int eight) { return eight / 4 % 2 * 4; }

    struct Scales {
        __m128i first, second;
        __m256i mins;
        Scales(const Block & block, int i) {
            const KScales a(block.scales + 24 * i), b(block.scales + 24 * i + 12);
            first = a.scales;
            second = b.scales;
            mins = _mm256_set_m128i(_mm_unpackhi_epi16(a.mins, b.mins),
                                    _mm_unpacklo_epi16(a.mins, b.mins));
        }
    };
    template <int P>
    static void add(const Block & block, const SuperUnit * units, BlockSums<P> & sums) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {  // 64 weights, 32 of them low nibbles
            const Scales two(block, i);
            const uint8_t * qs = block.qs + 256 * i;
            sums.add(SideBySide::Bytes<4>(qs, 0, BITS), two.first, units, 64 * i);
            sums.add(SideBySide::Bytes<4>(qs, 4, BITS), two.second, units, 64 * i + 32);
            sums.add_mins(two.mins, units, &SuperUnit::sums_of_32, 2 * i);
        }
    }
};

}  // namespace
