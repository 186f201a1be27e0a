// F16: IEEE half precision.
#pragma once

#include "../kernels/halves.h"

namespace {

using F16 = InFloat32<abi::F16, HalfSums::N_F16, HalfSums::COLUMNS_F16, HalfSums::widen_f16,
                      HalfSums::sum_f16>;

}  // namespace
