// Attention of one query over all cells that a compiled head holds.
#pragma once

#include "vectors.h"

#ifdef MTP_VECTORS
#include <algorithm>
#include <cmath>

namespace head {

// Of one head: n keys and values in half precision, so many numbers apart
struct HeadCells {
    const uint16_t *keys, *values;
    int n, stride;
};

// Some vectors of all values, each as often as its weight
template <int N_VECTORS>
void add_values(const HeadCells & cells, int first, const float * weights, Floats share,
                float * out) {
    const uint16_t * value = cells.values + first;
    Floats sums[N_VECTORS];
    std::fill_n(sums, N_VECTORS, zeros());
    for (int c = 0; c < cells.n; ++c, value += cells.stride)
        for (int j = 0; j < N_VECTORS; ++j)
            sums[j] = multiply_add(all(weights[c]), widen_f16(value + j * LANES), sums[j]);
    for (int j = 0; j < N_VECTORS; ++j)
        store(out + first + j * LANES, multiply(sums[j], share));
}

// Scores of a vector of cells at a time: of each a product of vectors, and then the lanes of all
inline void score(const float * query, int dim, const HeadCells & cells, float * scores) {
    const Floats scale = all(1 / std::sqrt((float)dim));
    for (int first = 0; first < cells.n; first += LANES) {
        const int n = std::min(LANES, cells.n - first);
        Floats products[LANES];
        for (int c = 0; c < LANES; ++c) {
            products[c] = zeros();
            if (c >= n) continue;
            const uint16_t * key = cells.keys + (size_t)(first + c) * cells.stride;
            for (int i = 0; i < dim; i += LANES)
                products[c] = multiply_add(load(query + i), widen_f16(key + i), products[c]);
        }
        store(scores + first, multiply(scale, sums_of_each(products)));
        for (int c = n; c < LANES; ++c) scores[first + c] = -INFINITY;
    }
}

// out, query: (dim,), a multiple of LANES. scores: room for one of each cell, and a vector more
inline void attend(const float * query, int dim, const HeadCells & cells, float * scores,
                   float * out) {
    score(query, dim, cells, scores);
    Floats most = all(-INFINITY);
    for (int c = 0; c < cells.n; c += LANES) most = maximum(most, load(scores + c));
    const Floats base = all(max_lanes(most));
    Floats sums = zeros();
    for (int c = 0; c < cells.n; c += LANES) {
        const Floats weights = exp_of(subtract(load(scores + c), base));
        store(scores + c, weights);
        sums = add(sums, weights);
    }
    const Floats share = all(1 / sum_lanes(sums));
    int i = 0;
    for (; i + 4 * LANES <= dim; i += 4 * LANES) add_values<4>(cells, i, scores, share, out);
    for (; i < dim; i += LANES) add_values<1>(cells, i, scores, share, out);
}

}  // namespace head

#endif
