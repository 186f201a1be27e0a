// The number formats that products are taken of, one row each.
//
// To add one, write its header and add a row (docs/add-a-format.md). Nothing else names a format:
// whoever wants to know them asks `mtp_formats`.
#pragma once

#include "bf16.h"
#include "f16.h"
#include "f32.h"
#include "iq4_nl.h"
#include "iq4_nlx8.h"
#include "iq4_xs.h"
#include "mxfp4.h"
#include "mxfp4x8.h"
#include "q2_k.h"
#include "q2_kx8.h"
#include "q3_k.h"
#include "q4_0.h"
#include "q4_0x8.h"
#include "q4_1.h"
#include "q4_k.h"
#include "q4_kx8.h"
#include "q5_0.h"
#include "q5_1.h"
#include "q5_k.h"
#include "q6_k.h"
#include "q8_0.h"

#include "../kernels/lane_dots.h"
#include "../kernels/many_floats.h"
#ifdef MTP_AVX512
#include "../kernels/many_dots.h"
#include "../kernels/many_side_by_side.h"
#include "../kernels/many_super_dots.h"
#endif

namespace {

// How a weight matrix lies in memory: as in the file, as ggml's buffer type "CPU_REPACK" has it, or
// as ours does (our_layout.h)
enum class Layout { PLAIN, REPACKED, OURS };

// How weights come to lie as ours
struct LayOut {
    bool (*can)(const abi::Tensor * weights);
    // All matrices of a tensor, one after another: `file` as in the file
    void (*run)(const abi::Tensor * weights, const void * file, void * to);
};
template <class Format>
constexpr LayOut LAY_OUT = {
    [](const abi::Tensor * w) { return w->ne[0] % 32 == 0 && w->ne[1] % LANES == 0; },
    [](const abi::Tensor * w, const void * file, void * to) {
        LaneDots<Format>::lay_out(file, w->ne[1] * w->ne[2], w->ne[0] / 32, to);
    }};

struct Format {
    abi::Type type;
    Layout layout;
    const char * name;  // ggml's, in small letters
    abi::TensorTraits * (*take)(const abi::Tensor * op);  // null: ggml's own kernel is to do it
    const LayOut * lay_out = nullptr;                     // for Layout::OURS
};

// An Operator is what a kernel is used for: Product of product.h, Experts of experts.h. Rows of one
// name stand together.
template <template <class Kernel> class Operator>
constexpr Format FORMATS[] = {
    {abi::Q2_K, Layout::PLAIN, "q2_k", Operator<SuperDots<Q2_K>>::take},
    {abi::Q2_K, Layout::REPACKED, "q2_k", Operator<SideBySideDots<Q2_Kx8>>::take},
    {abi::Q3_K, Layout::PLAIN, "q3_k", Operator<SuperDots<Q3_K>>::take},
    {abi::Q4_0, Layout::PLAIN, "q4_0", Operator<Dots<Q4_0>>::take},
    {abi::Q4_0, Layout::REPACKED, "q4_0", Operator<EightRowsDots<Q4_0x8>>::take},
    {abi::Q4_0, Layout::OURS, "q4_0", Operator<LaneDots<Q4_0>>::take, &LAY_OUT<Q4_0>},
    {abi::Q4_1, Layout::PLAIN, "q4_1", Operator<Dots<Q4_1>>::take},
    {abi::Q4_1, Layout::OURS, "q4_1", Operator<LaneDots<Q4_1>>::take, &LAY_OUT<Q4_1>},
    {abi::Q4_K, Layout::PLAIN, "q4_k", Operator<SuperDots<Q4_K>>::take},
    {abi::Q4_K, Layout::REPACKED, "q4_k", Operator<SideBySideDots<Q4_Kx8>>::take},
    {abi::Q5_0, Layout::PLAIN, "q5_0", Operator<Dots<Q5_0>>::take},
    {abi::Q5_0, Layout::OURS, "q5_0", Operator<LaneDots<Q5_0>>::take, &LAY_OUT<Q5_0>},
    {abi::Q5_1, Layout::PLAIN, "q5_1", Operator<Dots<Q5_1>>::take},
    {abi::Q5_1, Layout::OURS, "q5_1", Operator<LaneDots<Q5_1>>::take, &LAY_OUT<Q5_1>},
    {abi::Q5_K, Layout::PLAIN, "q5_k", Operator<SuperDots<Q5_K>>::take},
    {abi::Q6_K, Layout::PLAIN, "q6_k", Operator<SuperDots<Q6_K>>::take},
    {abi::Q8_0, Layout::PLAIN, "q8_0", Operator<Dots<Q8_0>>::take},
    {abi::Q8_0, Layout::OURS, "q8_0", Operator<LaneDots<Q8_0>>::take, &LAY_OUT<Q8_0>},
    {abi::IQ4_NL, Layout::PLAIN, "iq4_nl", Operator<PairDots<IQ4_NL>>::take},
    {abi::IQ4_NL, Layout::REPACKED, "iq4_nl", Operator<EightRowsDots<IQ4_NLx8>>::take},
    {abi::IQ4_XS, Layout::PLAIN, "iq4_xs", Operator<SuperDots<IQ4_XS>>::take},
    {abi::MXFP4, Layout::PLAIN, "mxfp4", Operator<PairDots<MXFP4>>::take},
    {abi::MXFP4, Layout::REPACKED, "mxfp4", Operator<EightRowsDots<MXFP4x8>>::take},
    {abi::BF16, Layout::PLAIN, "bf16", Operator<FloatDots<BF16>>::take},
    {abi::F16, Layout::PLAIN, "f16", Operator<FloatDots<F16>>::take},
    {abi::F32, Layout::PLAIN, "f32", Operator<FloatDots<F32>>::take},
};

}  // namespace
