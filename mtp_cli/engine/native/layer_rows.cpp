// The rows that layers hand on, copied while llama.cpp's scheduler computes them.
//
// The scheduler asks about every tensor of a graph, a thousand a decode, which is why the answer is
// compiled. Knows nothing of models or of what the rows are for.

#include "ggml_abi.h"

#include <cstring>

namespace {

// names:    (n, 64) characters, those of the tensors wanted
// rows:     (n, capacity, width) floats, a tensor's rows one after another
// n_filled: (n,) rows there are of each
struct Wanted {
    int32_t n, capacity, width;
    const char (*names)[64];
    float * rows;
    int32_t * n_filled;
    void (*read)(const abi::Tensor * from, void * to, size_t offset, size_t n_bytes);
};

int place_of(const abi::Tensor * x, const Wanted & wanted) {
    for (int i = 0; i < wanted.n; ++i)
        if (!strcmp(x->name, wanted.names[i])) return i;
    return -1;
}

}  // namespace

// ggml_backend_sched_eval_callback: whether a tensor is wanted, and once it is computed, its rows.
// One of another shape is left out: whoever counts the rows finds that they are missing.
extern "C" bool mtp_layer_rows(const abi::Tensor * x, bool is_question, void * data) {
    const Wanted & wanted = *(const Wanted *)data;
    const int place = place_of(x, wanted);
    if (is_question || place < 0) return place >= 0;
    int32_t & n_filled = wanted.n_filled[place];
    const bool is_matrix = x->type == abi::F32 && x->ne[0] == wanted.width && x->ne[2] == 1 &&
                           x->ne[3] == 1 && x->nb[1] == sizeof(float) * x->ne[0];
    if (!is_matrix || x->ne[1] > wanted.capacity - n_filled) return true;
    float * to = wanted.rows + ((size_t)place * wanted.capacity + n_filled) * wanted.width;
    wanted.read(x, to, 0, sizeof(float) * x->ne[0] * x->ne[1]);
    n_filled += (int32_t)x->ne[1];
    return true;
}
