// F16: IEEE half precision.
#pragma once

#include "../kernels/float_dots.h"

namespace {

using F16 = InFloat32<abi::F16, uint16_t, FloatSums::N_F16, FloatSums::COLUMNS_F16,
                      FloatSums::AT_ONCE_HALVES, FloatSums::widen_f16, FloatSums::sum_f16>;

}  // namespace
