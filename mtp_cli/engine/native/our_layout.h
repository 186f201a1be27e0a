// Weights that are laid out for our kernels when a model is loaded (kernels/lane_dots.h), as ggml's
// buffer type "CPU_REPACK" does it for ggml's: a tensor in a buffer of this type lies so, and takes
// as many bytes as in the file.
//
// Where a matrix is no whole number of groups, or an operator is none of ours, llama.cpp is told
// that it cannot lie here, and looks for another buffer type. Knows nothing of decodes.
#pragma once

#include "formats/table.h"
#include "product.h"

#include <cstdio>
#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace our_layout {

// How a tensor can lie so; null where it cannot
inline const LayOut * lay_out_of(const abi::Tensor * weights) {
    for (const Format & format : FORMATS<Product>)
        if (format.type == weights->type && format.layout == Layout::OURS)
            return format.lay_out->can(weights) ? format.lay_out : nullptr;
    return nullptr;
}

inline thread_local bool is_wanted = true;  // for the models that a thread loads from now on

inline bool is_in_host_memory(const abi::Tensor * x) {
    const abi::BufferType * type = x->buffer ? x->buffer->type : nullptr;
    return !type || (type->is_host && type->is_host(x->buffer->type));
}

inline const char * name(abi::BufferType *) { return "CPU_MTP"; }

inline bool is_ours(const abi::Tensor * weights) {
    return weights->buffer && weights->buffer->type && weights->buffer->type->name == name;
}

// Whether a tensor that lies so, or may come to lie so, can be multiplied by such rows
inline bool can_lie_so(const abi::Tensor * weights, const abi::Tensor * rows) {
    const bool is_loaded = weights->data != nullptr;
    return is_ours(weights) && (is_loaded || is_wanted) && lay_out_of(weights) &&
           is_in_host_memory(rows);
}

inline size_t alignment(abi::BufferType *) { return 64; }

// Of whole tensors, as llama.cpp's loader sets them; ggml's own layout asserts the same
inline void set_tensor(abi::Buffer *, abi::Tensor * tensor, const void * data, size_t offset,
                       size_t size) {
    const size_t whole = tensor->nb[3] * tensor->ne[3];
    if (offset != 0 || size != whole) {
        fprintf(stderr, "mtp-cli: a part of %s was set, which is laid out whole\n", tensor->name);
        abort();
    }
    lay_out_of(tensor)->run(tensor, data, tensor->data);
}

// Pages of 2 MB instead of 4 KB, where the system gives them to who asks. A decode reads every page,
// and waits until it is known where it lies.
inline void ask_for_huge_pages(void * memory, size_t size) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t PAGE = 4096;
    const uintptr_t first = ((uintptr_t)memory + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = ((uintptr_t)memory + size) / PAGE * PAGE;
    if (first < end) madvise((void *)first, end - first, MADV_HUGEPAGE);
#endif
}

// In memory of the CPU's
inline abi::Buffer * allocate(abi::BufferType * type, size_t size) {
    abi::Buffer * buffer = ggml.allocate(ggml.cpu_buffer_type(), size);
    if (!buffer) return nullptr;
    ask_for_huge_pages(buffer->context, size);
    buffer->type = type;
    buffer->set_tensor = set_tensor;
    buffer->get_tensor = buffer->set_tensor_2d = buffer->get_tensor_2d = buffer->copy_tensor =
        nullptr;
    return buffer;
}

}  // namespace our_layout
