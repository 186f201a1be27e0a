// What a cache of keys or values holds, by number format: LANES numbers of a cell as floats.
//
// A format is a block's struct and `read`, which gives numbers i to i + LANES - 1 of a row of
// blocks. Every format that llama.cpp has for caches is here but F32, which it turns to F16.
#pragma once

#include "formats/iq4_values.h"
#include "ggml_abi.h"
#include "vectors.h"

#ifdef MTP_AVX512
#include "attention_avx512.h"
#else
#include "attention_avx2.h"
#endif

#include <algorithm>
#include <cstring>

namespace cells {

struct F16 {
    using Block = uint16_t;
    static constexpr abi::Type TYPE = abi::F16;
    static constexpr int LENGTH = 1;
    static Floats read(const Block * row, int64_t i) { return widen_f16(row + i); }
};

struct BF16 {
    using Block = uint16_t;
    static constexpr abi::Type TYPE = abi::BF16;
    static constexpr int LENGTH = 1;
    static Floats read(const Block * row, int64_t i) { return widen_bf16(row + i); }
};

inline Floats scaled(uint16_t d, __m128i numbers) {
    return multiply(all(_cvtsh_ss(d)), widen_bytes(numbers));
}

struct Q8_0 {
    struct Block {
        uint16_t d;
        int8_t qs[32];
    };
    static constexpr abi::Type TYPE = abi::Q8_0;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        return scaled(block.d, some_bytes(block.qs + i % 32));
    }
};

// Numbers i to i + LANES - 1 of 32 of four bits: the low nibbles of 16 bytes, then the high ones
inline __m128i nibbles_from(const uint8_t * qs, int64_t i) {
    const __m128i packed = some_bytes(qs + i % 16);
    return _mm_and_si128(i % 32 < 16 ? packed : _mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
}
// The same with a fifth bit of each
inline __m128i fives_from(const uint8_t * qs, const uint8_t * qh, int64_t i) {
    uint32_t bits;
    memcpy(&bits, qh, 4);
    const __m128i each = _mm_set1_epi64x((int64_t)0x8040201008040201);
    const __m128i byte_of_each = _mm_set_epi64x(0x0101010101010101, 0);
    const __m128i spread = _mm_shuffle_epi8(_mm_set1_epi16((short)(bits >> i % 32)), byte_of_each);
    const __m128i is_set = _mm_cmpeq_epi8(_mm_and_si128(spread, each), each);
    return _mm_or_si128(nibbles_from(qs, i), _mm_and_si128(is_set, _mm_set1_epi8(16)));
}

struct Q4_0 {
    struct Block {
        uint16_t d;
        uint8_t qs[16];
    };
    static constexpr abi::Type TYPE = abi::Q4_0;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        return scaled(block.d, _mm_sub_epi8(nibbles_from(block.qs, i), _mm_set1_epi8(8)));
    }
};

struct Q4_1 {
    struct Block {
        uint16_t d, m;
        uint8_t qs[16];
    };
    static constexpr abi::Type TYPE = abi::Q4_1;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        return add(scaled(block.d, nibbles_from(block.qs, i)), all(_cvtsh_ss(block.m)));
    }
};

struct Q5_0 {
    struct Block {
        uint16_t d;
        uint8_t qh[4], qs[16];
    };
    static constexpr abi::Type TYPE = abi::Q5_0;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        const __m128i numbers = fives_from(block.qs, block.qh, i);
        return scaled(block.d, _mm_sub_epi8(numbers, _mm_set1_epi8(16)));
    }
};

struct Q5_1 {
    struct Block {
        uint16_t d, m;
        uint8_t qh[4], qs[16];
    };
    static constexpr abi::Type TYPE = abi::Q5_1;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        return add(scaled(block.d, fives_from(block.qs, block.qh, i)), all(_cvtsh_ss(block.m)));
    }
};

struct IQ4_NL {
    using Block = Q4_0::Block;
    static constexpr abi::Type TYPE = abi::IQ4_NL;
    static constexpr int LENGTH = 32;
    static Floats read(const Block * row, int64_t i) {
        const Block & block = row[i / 32];
        return scaled(block.d, _mm_shuffle_epi8(iq4_values(), nibbles_from(block.qs, i)));
    }
};

// As many as there are of `width`, and zeros after them. IS_WHOLE: it is a multiple of LANES
template <class Format, bool IS_WHOLE = false>
Floats read(const char * cell, int64_t i, int64_t width) {
    const auto * row = (const typename Format::Block *)cell;
    if constexpr (Format::LENGTH == 1 && !IS_WHOLE) {
        if (i + LANES > width) {
            typename Format::Block last[LANES] = {};
            memcpy(last, row + i, (width - i) * sizeof(*row));
            return Format::read(last, 0);
        }
    }
    return Format::read(row, i);
}

// Calls `run` with the format of a tensor; whether there is one
template <class Run>
bool with_format(int type, Run run) {
    const auto is = [&](auto format) { return type == format.TYPE && (run(format), true); };
    return is(F16()) || is(Q8_0()) || is(BF16()) || is(Q4_0()) || is(Q4_1()) || is(Q5_0()) ||
           is(Q5_1()) || is(IQ4_NL());
}

inline int64_t row_bytes(int type, int64_t width) {
    int64_t n = 0;
    with_format(type, [&](auto format) {
        n = width / format.LENGTH * sizeof(typename decltype(format)::Block);
        return true;
    });
    return n;
}

}  // namespace cells
