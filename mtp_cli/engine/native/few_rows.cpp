// Products of weights with few rows, at little more than the cost of one.
//
// ggml multiplies a weight matrix by one row with kernels that read each weight once, and by a
// handful of rows, as verifying a draft does, with ones that unpack it anew for every row or round
// otherwise. With these (formats/) a row comes out the same to the bit whatever stands beside it,
// and the same as ggml's.
//
// Installed in front of ggml's CPU backend as an "extra buffer type", the way ggml's own repacked
// kernels take their products; attention (attention.h) comes in with them. Knows nothing of models,
// drafts or Python.

#include "ggml_abi.h"

#include <cstring>

#if defined(__x86_64__)
#include "vectors.h"
#endif

#ifdef MTP_VECTORS
#include "attention.h"
#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/q4_0.h"
#include "formats/q4_0x8.h"
#include "formats/q4_1.h"
#include "formats/q8_0.h"

#ifdef __AVX512FP16__
#define MTP_F16 ""  // ggml adds up in half precision there
#else
#define MTP_F16 ",f16"
#endif

namespace {

abi::Ggml ggml;
bool takes_products = true, takes_attention = true;

template <class Kernel>
size_t row_bytes(const abi::Tensor * weights) {
    return group_bytes<Kernel>(weights->ne[0] / Kernel::BLOCK) / Kernel::COLUMNS;
}

template <class Kernel>
size_t packed_size(const abi::Tensor * op) {
    using Unit = typename Kernel::Unit;
    return alignof(Unit) +
           sizeof(Unit) * (op->src[0]->ne[0] / Kernel::BLOCK) * units_of<Kernel>(op->src[1]->ne[1]);
}

template <class Kernel>
void multiply_matrix(abi::ComputeParams * params, abi::Tensor * op) {
    using Unit = typename Kernel::Unit;
    const abi::Tensor *weights = op->src[0], *rows = op->src[1];
    const int n_blocks = (int)(weights->ne[0] / Kernel::BLOCK), n_rows = (int)rows->ne[1];
    const int n = units_of<Kernel>(n_rows), ith = params->ith, nth = params->nth;
    const uintptr_t unaligned = (uintptr_t)params->wdata + alignof(Unit) - 1;
    Unit * units = (Unit *)(unaligned - unaligned % alignof(Unit));

    pack_rows<Kernel>(ggml.type_traits(Kernel::ROW)->from_float, (const float *)rows->data,
                      rows->nb[1] / sizeof(float), n_rows, units, n, n_blocks * ith / nth,
                      n_blocks * (ith + 1) / nth);
    if (ith == 0) ggml.chunk_set(params->threadpool, nth);
    ggml.barrier(params->threadpool);

    // Two chunks a thread, so that one that is held up leaves some to the others. Each chunk ends
    // with weights that were fetched for nothing, so that more of them cost more.
    const int64_t n_chunks = nth == 1 ? 1 : 2 * nth;
    for (int64_t chunk = ith; chunk < n_chunks; chunk = ggml.chunk_add(params->threadpool, 1)) {
        multiply_part<Kernel>((const char *)weights->data, n_blocks, weights->ne[1], units, n,
                              chunk, n_chunks, (float *)op->data, op->nb[1] / sizeof(float),
                              n_rows);
    }
}

template <class Kernel>
class Product final : public abi::TensorTraits {
public:
    bool work_size(int, const abi::Tensor * op, size_t & size) override {
        size = packed_size<Kernel>(op);
        return true;
    }
    bool compute_forward(abi::ComputeParams * params, abi::Tensor * op) override {
        multiply_matrix<Kernel>(params, op);
        return true;
    }
    static abi::TensorTraits * take(const abi::Tensor * op) {
        static Product product;
        const abi::Tensor * weights = op->src[0];
        const bool is_whole =
            weights->ne[0] % Kernel::BLOCK == 0 && weights->ne[1] % Kernel::SIDE_BY_SIDE == 0;
        const bool has_group = weights->ne[1] >= Kernel::COLUMNS;
        const bool is_dense = weights->nb[1] == row_bytes<Kernel>(weights);
        return is_whole && has_group && is_dense && op->src[1]->ne[1] <= Kernel::MOST_ROWS
                   ? &product
                   : nullptr;
    }
};

bool is_matrix(const abi::Tensor * x) { return x->ne[2] == 1 && x->ne[3] == 1; }

class FewRowsAttention final : public abi::TensorTraits {
public:
    bool work_size(int n_threads, const abi::Tensor * op, size_t & size) override {
        size = attention::Attention(op).work_bytes(n_threads);
        return true;
    }
    bool compute_forward(abi::ComputeParams * params, abi::Tensor * op) override {
        attention::Attention(op).compute(params, ggml);
        return true;
    }
    static abi::TensorTraits * take(const abi::Tensor * op) {
        static FewRowsAttention traits;
        return attention::Attention::takes(op) ? &traits : nullptr;
    }
};

class FewRows final : public abi::ExtraBufferType {
public:
    bool supports_op(void *, const abi::Tensor *) override { return false; }  // holds no weights

    abi::TensorTraits * get_tensor_traits(const abi::Tensor * op) override {
        if (op->op == abi::OP_MUL_MAT && takes_products) return product_traits(op);
        if (op->op == abi::OP_FLASH_ATTN_EXT && takes_attention) return FewRowsAttention::take(op);
        return nullptr;
    }

private:
    static abi::TensorTraits * product_traits(const abi::Tensor * op) {
        if (op->op_params[1]) return nullptr;  // a hint: ggml knows more of these weights
        const abi::Tensor *weights = op->src[0], *rows = op->src[1];
        if (rows->type != abi::F32 || op->type != abi::F32 || rows->nb[0] != sizeof(float))
            return nullptr;
        if (!is_matrix(weights) || !is_matrix(rows) || weights->view_src) return nullptr;
        if (weights->extra) {  // in a layout of their own
            const bool is_x8 = weights->type == abi::Q4_0 && weights->buffer &&
                               !strcmp(ggml.buffer_name(weights->buffer), "CPU_REPACK");
            return is_x8 ? Product<Q4_0x8>::take(op) : nullptr;
        }
        switch (weights->type) {
            case abi::Q8_0:
                return Product<Dots<Q8_0>>::take(op);
            case abi::Q4_0:
                return Product<Dots<Q4_0>>::take(op);
            case abi::Q4_1:
                return Product<Dots<Q4_1>>::take(op);
            case abi::BF16:
                return Product<Halves<BF16>>::take(op);
#ifndef __AVX512FP16__
            case abi::F16:
                return Product<Halves<F16>>::take(op);
#endif
            default:
                return nullptr;
        }
    }
};

}  // namespace

// Put these kernels in front of ggml's. Once, before any model is loaded.
extern "C" void mtp_install(const abi::Ggml * functions) {
    static FewRows few_rows;
    static abi::BufferType buffer_type = {
        {}, nullptr, static_cast<abi::ExtraBufferType *>(&few_rows)};
    ggml = *functions;
    auto & types = ggml.extra_buffer_types();
    types.insert(types.begin(), &buffer_type);
}

// What to take and what to leave to ggml; no decode may be under way.
extern "C" void mtp_enable(bool products, bool attention) {
    takes_products = products;
    takes_attention = attention;
}

extern "C" const char * mtp_vectors() { return MTP_VECTORS; }

extern "C" const char * mtp_formats() { return "q4_0,q4_1,q8_0,bf16" MTP_F16; }

#else

extern "C" void mtp_install(const abi::Ggml *) {}
extern "C" void mtp_enable(bool, bool) {}
extern "C" const char * mtp_vectors() { return nullptr; }
extern "C" const char * mtp_formats() { return ""; }

#endif

extern "C" size_t mtp_tensor_bytes() { return sizeof(abi::Tensor); }

// Which sources this was built from, as `compiled.py` tells them apart
extern "C" const char * mtp_sources() { return MTP_SOURCES; }
