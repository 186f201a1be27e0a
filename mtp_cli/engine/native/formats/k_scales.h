// The scales and minima of Q4_K and Q5_K: eight of six bits each, in twelve bytes. Of the first
// four of each the six bits lie together. Of the others, four lie in the last bytes, and two above
// those of the first ones.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

struct KScales {
    __m128i scales, mins;  // eight of 16 bits

    explicit KScales(const uint8_t packed[12]) {
        uint32_t x[3];
        memcpy(x, packed, sizeof(x));
        const auto eight = [&](uint32_t six, uint32_t four) {
            const uint32_t last = (four & 0x0f0f0f0f) | (six >> 2 & 0x30303030);
            return _mm_cvtepu8_epi16(
                _mm_cvtsi64_si128((int64_t)((uint64_t)last << 32 | (six & 0x3f3f3f3f))));
        };
        scales = eight(x[0], x[2]);
        mins = eight(x[1], x[2] >> 4);
    }
};

}  // namespace
