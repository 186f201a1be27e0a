// F32: IEEE single precision, as routers of mixtures and other small projections are.
#pragma once

#include "../kernels/float_dots.h"

namespace {

using F32 = InFloat32<abi::F32, float, FloatSums::N_F32, FloatSums::COLUMNS_F32,
                      FloatSums::AT_ONCE_F32, FloatSums::load_f32, FloatSums::sum_f32>;

}  // namespace
