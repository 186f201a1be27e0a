// A product whose chunks a spare thread may take, of weights and rows as kernels have them.
#pragma once

#include "spare.h"
#include "tiles.h"

namespace {

template <class Kernel>
void multiply_chunk(const spare::Product & product, int chunk, float * out, size_t stride) {
    multiply_part<Kernel>(product.weights, product.n_blocks, product.n_out,
                          (const typename Kernel::Unit *)product.units, product.n_units, chunk,
                          product.n_chunks, out, stride, product.n_rows);
}

}  // namespace
