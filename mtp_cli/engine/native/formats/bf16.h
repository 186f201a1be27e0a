// BF16: the upper half of a single-precision number.
#pragma once

#include "../kernels/float_dots.h"

namespace {

#ifdef __AVX512BF16__
// As ggml does where the processor has it: dpbf16 adds the products of two neighbours to a lane. It
// rounds in its own way, so that no other instructions give its bits.
struct BF16 {
    using Number = uint16_t;
    using Wide = __m512bh;
    using Floats = FloatSums::Floats;
    static constexpr abi::Type ROW = abi::BF16;
    static constexpr int STEP = 2 * FloatSums::LANES;
    static constexpr int N_SUMS = FloatSums::N_BF16, COLUMNS = FloatSums::COLUMNS_BF16;
    static constexpr int AT_ONCE = FloatSums::AT_ONCE_HALVES, MOST_ROWS = MOST_OF_FEW_HALVES;
    static Wide widen(const uint16_t * x) { return (__m512bh)_mm512_loadu_si512(x); }
    static Floats add_products(Wide a, Wide b, Floats sum) { return _mm512_dpbf16_ps(sum, a, b); }
    static float sum(const Floats * x) { return FloatSums::sum_bf16(x); }
};
#else
using BF16 = InFloat32<abi::BF16, uint16_t, FloatSums::N_BF16, FloatSums::COLUMNS_BF16,
                       FloatSums::AT_ONCE_HALVES, FloatSums::widen_bf16, FloatSums::sum_bf16>;
#endif

}  // namespace
