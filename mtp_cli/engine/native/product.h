// ggml's operator MUL_MAT: a weight matrix times rows, shared out among the threads of a decode.
// Knows nothing of formats.
#pragma once

#include "ggml_abi.h"
#include "many_rows.h"
#include "rounding.h"
#include "shares.h"
#include "spare_product.h"
#include "tiles.h"

#include <type_traits>

namespace {

abi::Ggml ggml;  // the functions of ggml that are called; `mtp_install` fills it in

template <class Kernel>
size_t row_bytes(const abi::Tensor * weights) {
    return group_bytes<Kernel>(weights->ne[0] / Kernel::BLOCK) / Kernel::COLUMNS;
}

// Whether a matrix, or each of several, can be cut into groups
template <class Kernel>
bool has_groups(const abi::Tensor * weights) {
    const bool is_whole =
        weights->ne[0] % Kernel::BLOCK == 0 && weights->ne[1] % Kernel::SIDE_BY_SIDE == 0;
    const bool is_dense = weights->nb[1] == row_bytes<Kernel>(weights);
    return is_whole && is_dense && weights->ne[1] >= Kernel::COLUMNS;
}

// Of weights, that a thread takes at a time, or less where that makes too few pieces. To take one
// costs 20 ns.
constexpr int64_t PIECE_BYTES = 8192;
constexpr int64_t PIECES_OF_A_THREAD = 4;

// Into how many pieces a product's weights are cut
template <class Kernel>
int n_pieces(const abi::Tensor * weights, int n_threads) {
    if (n_threads == 1) return 1;
    const int64_t n_groups = weights->ne[1] / Kernel::COLUMNS;
    const int64_t n_bytes = n_groups * group_bytes<Kernel>(weights->ne[0] / Kernel::BLOCK);
    return (int)std::min(n_groups,
                         std::max(n_bytes / PIECE_BYTES, PIECES_OF_A_THREAD * n_threads));
}

template <class T>
T * aligned(void * memory) {
    const uintptr_t unaligned = (uintptr_t)memory + alignof(T) - 1;
    return (T *)(unaligned - unaligned % alignof(T));
}

// Rows of one matrix or of several, which are multiplied by the same weights; their result lies
// densely.
struct AllRows {
    const abi::Tensor * rows;

    int64_t count() const { return rows->ne[1] * rows->ne[2] * rows->ne[3]; }
    const float * operator()(int64_t row) const {
        const int64_t matrix = row / rows->ne[1], third = matrix / rows->ne[2];
        return (const float *)((const char *)rows->data + row % rows->ne[1] * rows->nb[1] +
                               matrix % rows->ne[2] * rows->nb[2] + third * rows->nb[3]);
    }
};

inline auto rounding_to(abi::Type type) { return rounding_to(type, ggml.type_traits); }

template <class Kernel>
size_t packed_size(const abi::Tensor * op) {
    using Unit = typename Kernel::Unit;
    const int64_t n_blocks = op->src[0]->ne[0] / Kernel::BLOCK;
    return alignof(Unit) +
           sizeof(Unit) * n_blocks * units_of<Kernel>(AllRows{op->src[1]}.count());
}

// Whether they stay when the decode is over, and longer: no result of another operator, no input
inline bool are_lasting(const abi::Tensor * weights) {
    return weights->op == abi::OP_NONE && !(weights->flags & abi::TENSOR_FLAG_INPUT);
}

// By one thread, and a spare one's help; false where there is none, or too little to do
template <class Kernel>
bool multiply_with_spare(abi::Tensor * op) {
    using Unit = typename Kernel::Unit;
    const abi::Tensor * weights = op->src[0];
    const AllRows rows = {op->src[1]};
    const int n_chunks = spare::n_chunks(weights->ne[1] * (int64_t)weights->nb[1]);
    const int n_blocks = (int)(weights->ne[0] / Kernel::BLOCK), n_rows = (int)rows.count();
    if (n_chunks < 2 || n_rows > MOST_OF_FEW_ROWS || !are_lasting(weights)) return false;
    spare::Turn turn(true);
    if (!turn) return false;
    const int n_units = units_of<Kernel>(n_rows);
    static_assert(alignof(Unit) <= 64);
    Unit * units = (Unit *)turn.units(sizeof(Unit) * n_blocks * n_units);
    pack_rows<Kernel>(rounding_to(Kernel::ROW), rows, n_rows, n_blocks, units, 0, n_blocks);
    turn.multiply({multiply_chunk<Kernel>, (const char *)weights->data, units, weights->ne[1],
                   Kernel::COLUMNS, n_blocks, n_units, n_rows, n_chunks},
                  (float *)op->data, op->nb[1] / sizeof(float));
    return true;
}

template <class Kernel>
void multiply_matrix(abi::ComputeParams * params, abi::Tensor * op) {
    using Unit = typename Kernel::Unit;
    const abi::Tensor * weights = op->src[0];
    const AllRows rows = {op->src[1]};
    const int n_blocks = (int)(weights->ne[0] / Kernel::BLOCK), n_rows = (int)rows.count();
    const int n = units_of<Kernel>(n_rows), ith = params->ith, nth = params->nth;
    const int n_pieces = ::n_pieces<Kernel>(weights, nth);
    const Shares shares(params->wdata, n_pieces, ith, nth);
    Unit * units = aligned<Unit>((char *)params->wdata + Shares::bytes(nth));

    pack_rows<Kernel>(rounding_to(Kernel::ROW), rows, n_rows, n_blocks, units,
                      n_blocks * ith / nth, n_blocks * (ith + 1) / nth);
    ggml.barrier(params->threadpool);

    shares.each([&](int piece) {
        multiply_part<Kernel>((const char *)weights->data, n_blocks, weights->ne[1], units, n,
                              piece, n_pieces, (float *)op->data, op->nb[1] / sizeof(float),
                              n_rows);
    });
}

// A product with many rows. In memory the threads' shares come first, then one's work behind
// another's, and the Units behind them all.
template <class Kernel>
class ManyProduct final : public abi::TensorTraits {
public:
    bool work_size(int n_threads, const abi::Tensor * op, size_t & size) override {
        const int64_t n_blocks = op->src[0]->ne[0] / Kernel::BLOCK;
        const int64_t n_rows = ManyRows<Kernel>::padded(AllRows{op->src[1]}.count());
        size = Shares::bytes(n_threads) + alignof(Work) + sizeof(Work) * n_threads +
               sizeof(typename Kernel::Unit) * n_blocks * n_rows;
        return true;
    }
    bool compute_forward(abi::ComputeParams * params, abi::Tensor * op) override {
        const abi::Tensor * weights = op->src[0];
        const AllRows rows = {op->src[1]};
        const int n_blocks = (int)(weights->ne[0] / Kernel::BLOCK);
        const int ith = params->ith, nth = params->nth;
        const int n_pieces = ::n_pieces<Kernel>(weights, nth);
        const Shares shares(params->wdata, n_pieces, ith, nth);
        Work * work = aligned<Work>((char *)params->wdata + Shares::bytes(nth));
        const ManyRows<Kernel> packed = {(typename Kernel::Unit *)(work + nth), (int)rows.count(),
                                         n_blocks};
        packed.pack(rounding_to(Kernel::ROW), rows, n_blocks * ith / nth,
                    n_blocks * (ith + 1) / nth);
        ggml.barrier(params->threadpool);

        shares.each([&](int piece) {
            multiply_part((const char *)weights->data, weights->ne[1], packed, work[ith], piece,
                          n_pieces, (float *)op->data, op->nb[1] / sizeof(float));
        });
        return true;
    }
    static abi::TensorTraits * take(const abi::Tensor * op) {
        static ManyProduct product;
        return has_groups<Kernel>(op->src[0]) ? &product : nullptr;
    }

private:
    using Work = ManyWork<Kernel>;
};

template <class Kernel>
class Product final : public abi::TensorTraits {
public:
    bool work_size(int n_threads, const abi::Tensor * op, size_t & size) override {
        size = Shares::bytes(n_threads) + packed_size<Kernel>(op);
        return true;
    }
    bool compute_forward(abi::ComputeParams * params, abi::Tensor * op) override {
        if (params->nth > 1 || !multiply_with_spare<Kernel>(op))
            multiply_matrix<Kernel>(params, op);
        return true;
    }
    static abi::TensorTraits * take(const abi::Tensor * op) {
        static Product product;
        using Many = typename ForManyRows<Kernel>::Kernel;
        const int64_t n_rows = AllRows{op->src[1]}.count();
        if constexpr (!std::is_void_v<Many>) {
            abi::TensorTraits * many = ManyProduct<Many>::take(op);
            if (many && n_rows > std::min(Kernel::MOST_ROWS, MOST_OF_FEW_ROWS)) return many;
        }
        return has_groups<Kernel>(op->src[0]) && n_rows <= Kernel::MOST_ROWS ? &product : nullptr;
    }
};

}  // namespace
