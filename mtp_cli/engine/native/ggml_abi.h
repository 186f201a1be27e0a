// What of ggml's binary interface the kernels need, as llama-cpp-python 0.3.36 has it.
//
// The package is built where ggml's headers are not (they come with the wheel of llama.cpp, which
// pip builds apart), and some of these are in no installed header at all. A test compiles this file
// beside ggml.h and compares every offset it can; `our_kernels.py` compares sizes when it loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace abi {

// ggml.h: enum ggml_type, the formats of weights and of what rows are rounded to
enum Type : int {
    F32 = 0, F16 = 1, BF16 = 30,
    Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q8_1 = 9,
    Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, Q8_K = 15,
    IQ2_XXS = 16, IQ2_XS = 17, IQ2_S = 22, IQ3_XXS = 18, IQ3_S = 21, IQ1_S = 19, IQ1_M = 29,
    IQ4_NL = 20, IQ4_XS = 23,
    TQ1_0 = 34, TQ2_0 = 35, MXFP4 = 39, NVFP4 = 40, Q1_0 = 41, Q2_0 = 42,
    I32 = 26,
};
constexpr int OP_NONE = 0, OP_MUL_MAT = 29, OP_MUL_MAT_ID = 30, OP_FLASH_ATTN_EXT = 74;
constexpr int TENSOR_FLAG_INPUT = 1;

struct Buffer;

// ggml.h: struct ggml_tensor
struct Tensor {
    int type;
    Buffer * buffer;
    int64_t ne[4];
    size_t nb[4];
    int op;
    int32_t op_params[16];
    int32_t flags;
    Tensor * src[10];
    Tensor * view_src;
    size_t view_offs;
    void * data;
    char name[64];
    void * extra;
    char padding[8];
};

// ggml-cpu-impl.h: struct ggml_compute_params
struct ComputeParams {
    int ith, nth;
    size_t wsize;
    void * wdata;
    void * threadpool;
    bool use_ref;
};

// ggml-cpu.h: struct ggml_type_traits_cpu
struct TypeTraits {
    void (*from_float)(const float * x, void * y, int64_t n);
    void * vec_dot;
    Type vec_dot_type;
    int64_t nrows;
};

// ggml-backend-impl.h: struct ggml_backend_buffer_type, and ggml_backend_buffer
struct BufferType {
    const char * (*name)(BufferType * type);
    Buffer * (*allocate)(BufferType * type, size_t size);
    size_t (*alignment)(BufferType * type);
    void * sizes[2];  // null: any, and a tensor's own
    bool (*is_host)(BufferType * type);
    void * device;
    void * context;
};
struct Buffer {
    void * first_callbacks[4];
    void (*set_tensor)(Buffer * buffer, Tensor * tensor, const void * data, size_t offset,
                       size_t size);
    void * get_tensor;
    void * set_tensor_2d;
    void * get_tensor_2d;
    void * copy_tensor;
    void * last_callbacks[2];
    BufferType * type;
    void * context;
    size_t size;
    int usage;
};

// ggml-cpu/traits.h: ggml::cpu::tensor_traits and extra_buffer_type, by the order of their slots
struct TensorTraits {
    virtual ~TensorTraits() = default;
    virtual bool work_size(int n_threads, const Tensor * op, size_t & size) = 0;
    virtual bool compute_forward(ComputeParams * params, Tensor * op) = 0;
};

struct ExtraBufferType {
    virtual ~ExtraBufferType() = default;
    virtual bool supports_op(void * device, const Tensor * op) = 0;
    virtual TensorTraits * get_tensor_traits(const Tensor * op) = 0;
};

// What of llama.cpp's libraries is called, and its CPU device; our_kernels.py fills it in, in this
// order.
struct Ggml {
    const TypeTraits * (*type_traits)(int type);
    void (*barrier)(void * threadpool);
    void (*chunk_set)(void * threadpool, int value);
    int (*chunk_add)(void * threadpool, int value);
    const char * (*buffer_name)(Buffer * buffer);
    std::vector<BufferType *> & (*extra_buffer_types)();
    BufferType * (*cpu_buffer_type)();
    Buffer * (*allocate)(BufferType * type, size_t size);
    void * cpu_device;
};

}  // namespace abi
