// Q3_K: 256 weights of a block are d * (scale - 32) * (q - 4), q of three bits, sixteen to a scale
// of six bits. Of every 128, the low two bits lie in 32 bytes, the lowest first. Of weight i the
// third is bit i / 32 of hmask[i % 32].
#pragma once

#include "../kernels/super_dots.h"

namespace {

struct Q3_K {
    struct Block {
        uint8_t hmask[32], qs[64], packed_scales[12];
        uint16_t d;
    };
    // Weights are signed and rows 128 too large, so that what that makes depends on weights alone.
    struct Weights {
        static constexpr Offset OFFSET = Offset::OF_WEIGHTS;
        Ints q[SUPER_VECTORS], scales[SUPER_VECTORS], offset;

        explicit Weights(const Block & block) {
            const __m256i sixteen = scales_of_block(block.packed_scales);
            Ints too_large = zero_ints();
#pragma GCC unroll 8
            for (int i = 0; i < SUPER_VECTORS; ++i) {
                const Ints low = super_pairs_of_bits(block.qs, i);
                q[i] = added_by_bits(low, block.hmask, i, false, -4);
                scales[i] = scales_by_16(sixteen, i);
                too_large = add_scaled(too_large, pairs_of(128, q[i]), scales[i]);
            }
            offset = negated(too_large);
        }
        Ints start(const SuperUnit &) const { return offset; }
        Ints pairs(const SuperUnit & unit, int i) const {
            return pairs_of((const uint8_t *)unit.qs + 256 / SUPER_VECTORS * i, q[i]);
        }
    };
    template <int P>
    using Mins = NoMins<P>;
    static int8_t packed(int8_t q) { return (int8_t)(q ^ 0x80); }

    // Four low bits of each in eight bytes, two above those in four
    static __m256i scales_of_block(const uint8_t packed[12]) {
        uint64_t low;
        uint32_t high;
        memcpy(&low, packed, 8);
        memcpy(&high, packed + 8, 4);
        const auto two = [&](int shift) { return (uint64_t)(high >> shift & 0x03030303) << 4; };
        const uint64_t first = (low & 0x0f0f0f0f0f0f0f0f) | two(0) | two(2) << 32;
        const uint64_t second = (low >> 4 & 0x0f0f0f0f0f0f0f0f) | two(4) | two(6) << 32;
        const __m128i sixteen = _mm_set_epi64x((int64_t)second, (int64_t)first);
        return _mm256_cvtepi8_epi16(_mm_sub_epi8(sixteen, _mm_set1_epi8(32)));
    }
};

}  // namespace
