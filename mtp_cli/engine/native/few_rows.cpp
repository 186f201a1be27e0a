// Products of weights with few rows, at little more than the cost of one.
//
// ggml multiplies a weight matrix by one row with kernels that read each weight once, and by a
// handful of rows, as verifying a draft does, with ones that unpack it anew for every row or round
// otherwise. With these (formats/) a row comes out the same to the bit whatever stands beside it,
// and the same as ggml's.
//
// Installed in front of ggml's CPU backend as an "extra buffer type", the way ggml's own repacked
// kernels take their products; attention (attention.h) comes in with them. Weights of some formats
// are laid out in a buffer of that type (our_layout.h), and a row has bits of its own then. Of a
// mixture's experts (experts.h) each is read once for the rows that chose it. Knows nothing of
// models, drafts or Python.

#include "ggml_abi.h"
#include "vectors.h"

#ifdef MTP_VECTORS
#include "attention.h"
#include "experts.h"
#include "formats/table.h"
#include "our_layout.h"
#include "product.h"

#include <cstring>
#include <string>

namespace {

bool takes_products = true, takes_attention = true;

bool is_matrix(const abi::Tensor * x) { return x->ne[2] == 1 && x->ne[3] == 1; }

bool are_matrices(const abi::Tensor * x) {  // one after another
    return x->ne[3] == 1 && x->nb[2] == x->nb[1] * x->ne[1];
}

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
    // Asked of operators on weights that lie as ours, before they are loaded and after
    bool supports_op(void *, const abi::Tensor * op) override {
        const bool is_product = op->op == abi::OP_MUL_MAT || op->op == abi::OP_MUL_MAT_ID;
        return is_product && our_layout::can_lie_so(op->src[0], op->src[1]) &&
               get_tensor_traits(op);
    }

    abi::TensorTraits * get_tensor_traits(const abi::Tensor * op) override {
        const bool takes = takes_products || (op->src[0] && our_layout::is_ours(op->src[0]));
        if (op->op == abi::OP_MUL_MAT && takes) return product_traits(op);
        if (op->op == abi::OP_MUL_MAT_ID && takes) return experts_traits(op);
        if (op->op == abi::OP_FLASH_ATTN_EXT && takes_attention) return FewRowsAttention::take(op);
        return nullptr;
    }

private:
    static abi::TensorTraits * product_traits(const abi::Tensor * op) {
        if (op->op_params[1]) return nullptr;  // a hint: ggml knows more of these weights
        if (!is_matrix(op->src[0])) return nullptr;
        return traits<Product>(op);
    }

    static abi::TensorTraits * experts_traits(const abi::Tensor * op) {
        const abi::Tensor * ids = op->src[2];
        if (!are_matrices(op->src[0]) || op->src[1]->ne[3] != 1) return nullptr;
        if (ids->type != abi::I32 || !is_matrix(ids)) return nullptr;
        return traits<Experts>(op);
    }

    template <template <class Kernel> class Operator>
    static abi::TensorTraits * traits(const abi::Tensor * op) {
        const abi::Tensor *weights = op->src[0], *rows = op->src[1];
        if (rows->type != abi::F32 || op->type != abi::F32 || rows->nb[0] != sizeof(float))
            return nullptr;
        if (weights->view_src || (weights->extra && !is_repacked(weights))) return nullptr;
        const Layout layout = our_layout::is_ours(weights) ? Layout::OURS
                              : weights->extra             ? Layout::REPACKED
                                                           : Layout::PLAIN;
        for (const Format & format : FORMATS<Operator>)
            if (format.type == weights->type && format.layout == layout) return format.take(op);
        return nullptr;
    }

    static bool is_repacked(const abi::Tensor * weights) {
        return weights->buffer && !strcmp(ggml.buffer_name(weights->buffer), "CPU_REPACK");
    }
};

std::string names_of_formats() {
    std::string names, last;
    for (const Format & format : FORMATS<Product>) {
        if (format.name == last) continue;
        last = format.name;
        names += (names.empty() ? "" : ",") + last;
    }
    return names;
}

}  // namespace

// Put these kernels in front of ggml's. Once, before any model is loaded.
extern "C" void mtp_install(const abi::Ggml * functions) {
    static FewRows few_rows;
    static abi::BufferType buffer_type = {
        our_layout::name, our_layout::allocate, our_layout::alignment, {}, nullptr, nullptr,
        static_cast<abi::ExtraBufferType *>(&few_rows)};
    ggml = *functions;
    buffer_type.device = ggml.cpu_device;
    auto & types = ggml.extra_buffer_types();
    types.insert(types.begin(), &buffer_type);
}

// What to take and what to leave to ggml, but for weights that are laid out: ggml cannot read them.
// No decode may be under way.
extern "C" void mtp_enable(bool products, bool attention) {
    takes_products = products;
    takes_attention = attention;
}

// Whether weights of models that this thread loads from now on may be laid out for these kernels
extern "C" void mtp_lay_out(bool is_wanted) { our_layout::is_wanted = is_wanted; }

extern "C" const char * mtp_vectors() { return MTP_VECTORS; }

// The table's names, with commas between
extern "C" const char * mtp_formats() {
    static const std::string names = names_of_formats();
    return names.c_str();
}

#else

extern "C" void mtp_install(const abi::Ggml *) {}
extern "C" void mtp_enable(bool, bool) {}
extern "C" void mtp_lay_out(bool) {}
extern "C" const char * mtp_vectors() { return nullptr; }
extern "C" const char * mtp_formats() { return ""; }

#endif

extern "C" size_t mtp_tensor_bytes() { return sizeof(abi::Tensor); }

// Which sources this was built from, as `compiled.py` tells them apart
extern "C" const char * mtp_sources() { return MTP_SOURCES; }
