// BF16: the upper half of a single-precision number.
#pragma once

#include "../kernels/halves.h"

namespace {

#ifdef __AVX512BF16__
// As ggml does where the processor has it: dpbf16 adds the products of two neighbours to a lane. It
// rounds in its own way, so that no other instructions give its bits.
struct BF16 {
    using Wide = __m512bh;
    using Floats = HalfSums::Floats;
    static constexpr abi::Type ROW = abi::BF16;
    static constexpr int STEP = 2 * HalfSums::LANES;
    static constexpr int N_SUMS = HalfSums::N_BF16, COLUMNS = HalfSums::COLUMNS_BF16;
    static Wide widen(const uint16_t * x) { return (__m512bh)_mm512_loadu_si512(x); }
    static Floats add_products(Wide a, Wide b, Floats sum) { return _mm512_dpbf16_ps(sum, a, b); }
    static float sum(const Floats * x) { return HalfSums::sum_bf16(x); }
};
#else
using BF16 = InFloat32<abi::BF16, HalfSums::N_BF16, HalfSums::COLUMNS_BF16, HalfSums::widen_bf16,
                       HalfSums::sum_bf16>;
#endif

}  // namespace
