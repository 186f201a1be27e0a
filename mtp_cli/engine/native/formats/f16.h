// F16: IEEE half precision.
#pragma once

#include "../kernels/halves.h"

namespace {

using F16 = InFloat32<abi::F16, N_SUMS_F16, COLUMNS_F16, widen_f16, sum_f16>;

}  // namespace
