// Attention over half-precision keys and values, of a draft's few rows or of a prompt's many:
//
//     out (M, H, Dv) = softmax(scale * q (M, H, Dk) k (N, G, Dk) + mask (M, N)) v (N, G, Dv)
//
// for M rows and N cells, where H / G heads read the same keys and values.
//
// ggml takes a draft's rows one head, row and cell after another and adds the values up in half
// precision; from 512 cells on it splits a single row's cells among the threads there are, so that
// a row's bits depend on its company and on the machine. Here a key or value is widened once for
// all rows and heads that read it, everything is added up in single precision, and how cells are
// grouped depends on nothing but their number: a row has the same bits with any rows beside it and
// any threads. They are not ggml's, which rounds more.
//
// Few rows share out the groups of cells among the threads; of many each thread takes some rows
// with all their cells.
//
// Online softmax over groups of cells, merged at the end (Rabe and Staats 2021, arXiv:2112.05682;
// Dao et al. 2023, "Flash-Decoding").
#pragma once

#include "ggml_abi.h"
#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace attention {

constexpr int FEW_ROWS = 63;  // more are taken in tiles
constexpr int TILE = 16;
constexpr int BLOCK = 32;  // cells that are widened at a time
constexpr size_t ALIGNED = 64;
constexpr float NONE = -std::numeric_limits<float>::infinity();

// Groups of cells grow with the context: enough of them for every thread, few to merge.
inline int64_t group_start(int64_t group) {
    int64_t start = 0, size = 64;
    for (; group > 0; --group) {
        if (start == 8 * size && size < 4096) size *= 8;
        start += size;
    }
    return start;
}
inline int64_t n_groups(int64_t n_cells) {
    int64_t n = 0;
    while (group_start(n) < n_cells) ++n;
    return n;
}

// Of all rows, or of a tile of them. A query is a row in one head. Those that read the same keys
// are numbered row by row.
class Attention {
public:
    explicit Attention(const abi::Tensor * op)
        : op(op),
          q(op->src[0]),
          k(op->src[1]),
          v(op->src[2]),
          mask(op->src[3]),
          sinks(op->src[4]),
          dk(k->ne[0]),
          dv(v->ne[0]),
          n_cells(k->ne[1]),
          n_rows(q->ne[1]),
          n_heads(q->ne[2]),
          n_kv_heads(k->ne[2]),
          per_key(n_heads / n_kv_heads),
          groups(n_groups(n_cells)),
          n_queries(n_rows * per_key),
          n_heads_kept(n_kv_heads) {
        memcpy(&scale, op->op_params, sizeof(float));
        memcpy(&max_bias, op->op_params + 1, sizeof(float));
        memcpy(&softcap, op->op_params + 2, sizeof(float));
        if (softcap != 0) scale /= softcap;
    }

    static bool takes(const abi::Tensor * op) {
        const abi::Tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
        const bool has_types = q->type == abi::F32 && k->type == abi::F16 && v->type == abi::F16 &&
                               op->type == abi::F32 && (!mask || mask->type == abi::F16);
        const bool is_one = q->ne[3] == 1 && k->ne[3] == 1 && v->ne[3] == 1 &&
                            (!mask || (mask->ne[2] == 1 && mask->ne[3] == 1));
        const bool is_dense = q->nb[0] == 4 && k->nb[0] == 2 && v->nb[0] == 2;
        return has_types && is_one && is_dense && k->ne[0] % LANES == 0 && v->ne[0] % LANES == 0 &&
               k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0;
    }

    size_t work_bytes(int n_threads) const {
        const int64_t size = is_few() ? n_threads * scratch_size() + partials_size()
                                      : n_threads * of_rows(0).tile_size();
        return ALIGNED + sizeof(float) * size;
    }

    void compute(const abi::ComputeParams * params, const abi::Ggml & ggml) {
        float * work = (float *)(((uintptr_t)params->wdata + ALIGNED - 1) / ALIGNED * ALIGNED);
        if (is_few())
            compute_few(params, ggml, work);
        else
            compute_many(params, ggml, work);
    }

private:
    bool is_few() const { return n_rows <= FEW_ROWS; }

    void compute_few(const abi::ComputeParams * params, const abi::Ggml & ggml, float * work) {
        const int ith = params->ith, nth = params->nth;
        partials = work + nth * scratch_size();
        for (int64_t unit = ith; unit < groups * n_kv_heads; unit += nth)
            attend(unit / n_kv_heads, unit % n_kv_heads, work + ith * scratch_size());
        ggml.barrier(params->threadpool);
        const int64_t n_outputs = n_heads * n_rows;
        for (int64_t i = n_outputs * ith / nth; i < n_outputs * (ith + 1) / nth; ++i)
            merge(i / n_queries, i % n_queries);
    }

    void compute_many(const abi::ComputeParams * params, const abi::Ggml & ggml, float * work) {
        if (params->ith == 0) ggml.chunk_set(params->threadpool, params->nth);
        ggml.barrier(params->threadpool);
        const int64_t n_units = (n_rows + TILE - 1) / TILE * n_kv_heads;
        float * scratch = work + params->ith * of_rows(0).tile_size();
        for (int64_t unit = params->ith; unit < n_units;
             unit = ggml.chunk_add(params->threadpool, 1)) {
            // The last ones first: they see most.
            const int64_t tile = (n_units - 1 - unit) / n_kv_heads, kv_head = unit % n_kv_heads;
            Attention rows = of_rows(tile * TILE);
            rows.partials = scratch + rows.scratch_size();
            for (int64_t group = 0; group < groups; ++group) rows.attend(group, kv_head, scratch);
            for (int64_t i = 0; i < rows.n_queries; ++i) rows.merge(kv_head, i);
        }
    }

    // A tile, whose partial results are kept of one head's keys at a time
    Attention of_rows(int64_t first) const {
        Attention tile = *this;
        tile.first_row = first;
        tile.n_rows = std::min<int64_t>(TILE, n_rows - first);
        tile.n_queries = tile.n_rows * per_key;
        tile.n_heads_kept = 1;
        return tile;
    }

    // What one group of cells gives a query: dv weighted values, their weights' sum, the largest
    // score, which the weights are relative to
    int64_t partial_size() const { return dv + LANES; }
    float * partial(int64_t group, int64_t kv_head, int64_t query) const {
        const int64_t head = kv_head % n_heads_kept;
        return partials + ((group * n_heads_kept + head) * n_queries + query) * partial_size();
    }
    int64_t partials_size() const { return groups * n_heads_kept * n_queries * partial_size(); }
    int64_t tile_size() const { return scratch_size() + partials_size(); }
    // Of a thread: a block of keys or values, and for each query its weights, their sums so far,
    // and what the values so far are to be multiplied by
    int64_t scratch_size() const {
        return BLOCK * std::max(dk, dv) + n_queries * (BLOCK + 2 * LANES);
    }

    int64_t row_of(int64_t query) const { return first_row + query / per_key; }
    int64_t head_of(int64_t kv_head, int64_t query) const {
        return kv_head * per_key + query % per_key;
    }
    const uint16_t * mask_of(int64_t row) const {
        return (const uint16_t *)((const char *)mask->data + row * mask->nb[1]);
    }
    // ALiBi (Press et al. 2021): what a head multiplies the mask by
    float slope(int64_t head) const {
        if (max_bias <= 0) return 1;
        const int64_t n = (int64_t)1 << (int)std::floor(std::log2((double)n_heads));
        return head < n ? std::pow(2.0f, -max_bias / n * (head + 1))
                        : std::pow(2.0f, -max_bias / 2 / n * (2 * (head - n) + 1));
    }

    bool is_masked(int64_t first, int n) const {
        if (!mask) return false;
        for (int64_t row = first_row; row < first_row + n_rows; ++row) {
            const uint16_t * x = mask_of(row) + first;
            if (std::any_of(x, x + n, [](uint16_t m) { return m != 0xfc00; })) return false;
        }
        return true;
    }

    static const char * cells(const abi::Tensor * x, int64_t kv_head, int64_t first) {
        return (const char *)x->data + first * x->nb[1] + kv_head * x->nb[2];
    }

    // Where a cell of a block of keys begins, and how far apart its vectors lie: the same vectors
    // of LANES cells stand side by side.
    int64_t key_at(int c) const { return c / LANES * LANES * dk + c % LANES * LANES; }
    static constexpr int64_t KEY_STEP = LANES * LANES;

    // A block of cells in single precision, zeros where there are no more. The hardware does not
    // foresee what is read next: the cells of `next`.
    template <class Place>
    void widen(const abi::Tensor * x, int64_t kv_head, int64_t first, int n, float * out,
               Place place, int64_t step, const abi::Tensor * next, int64_t next_first) const {
        const char * cell = cells(x, kv_head, first);
        const char * ahead = cells(next, kv_head, std::min(next_first, n_cells - n));
        const int64_t n_vectors = x->ne[0] / LANES;
        for (int c = 0; c < n; ++c, cell += x->nb[1], ahead += next->nb[1]) {
            for (int64_t i = 0; i < next->ne[0]; i += 32) _mm_prefetch(ahead + 2 * i, _MM_HINT_T0);
            for (int64_t i = 0; i < n_vectors; ++i)
                store(out + place(c) + i * step, widen_f16((const uint16_t *)cell + i * LANES));
        }
        for (int c = n; c < BLOCK; ++c)
            for (int64_t i = 0; i < n_vectors; ++i) store(out + place(c) + i * step, zeros());
    }
    void widen_keys(int64_t kv_head, int64_t first, int n, float * out) const {
        widen(k, kv_head, first, n, out, [this](int c) { return key_at(c); }, KEY_STEP, v, first);
    }
    void widen_values(int64_t kv_head, int64_t first, int n, float * out) const {
        widen(v, kv_head, first, n, out, [this](int c) { return c * dv; }, LANES, k, first + BLOCK);
    }

    // The cells of one group for all queries that read this head's keys
    void attend(int64_t group, int64_t kv_head, float * scratch) const {
        float * wide = scratch;
        float * weights = wide + BLOCK * std::max(dk, dv);
        float * sums = weights + n_queries * BLOCK;
        float * factors = sums + n_queries * LANES;
        for (int64_t i = 0; i < n_queries; ++i) {
            float * found = partial(group, kv_head, i);
            memset(found, 0, sizeof(float) * dv);
            found[dv + 1] = NONE;
            store(sums + i * LANES, zeros());
        }
        const int64_t end = std::min(n_cells, group_start(group + 1));
        for (int64_t first = group_start(group); first < end; first += BLOCK) {
            const int n = (int)std::min<int64_t>(BLOCK, end - first);
            if (is_masked(first, n)) continue;
            widen_keys(kv_head, first, n, wide);
            for (int64_t i = 0; i < n_queries; ++i) {
                float & largest = partial(group, kv_head, i)[dv + 1];
                score(kv_head, i, first, n, wide, weights + i * BLOCK);
                factors[i] = weigh(weights + i * BLOCK, sums + i * LANES, largest);
            }
            widen_values(kv_head, first, n, wide);
            float * found = partial(group, kv_head, 0);
            for (int64_t i = 0; i < n_queries;) {
                const int64_t left = n_queries - i;
                const auto run = [&](auto add_values, int n_at_once) {
                    add_values(wide, dv, weights + i * BLOCK, factors + i,
                               found + i * partial_size(), partial_size());
                    i += n_at_once;
                };
                if (left >= 4)
                    run(values<4>, 4);
                else if (left >= 2)
                    run(values<2>, 2);
                else
                    run(values<1>, 1);
            }
        }
        for (int64_t i = 0; i < n_queries; ++i)
            partial(group, kv_head, i)[dv] = sum_lanes(load(sums + i * LANES));
    }

    // A query's scores of a block of keys: (Dk,) times (BLOCK, Dk). LANES cells have their sums in
    // registers at a time; their vectors stand side by side, so that keys are read front to back,
    // and only then are lanes added up, all of them in a few shuffles.
    void score(int64_t kv_head, int64_t query, int64_t first, int n, const float * keys,
               float * out) const {
        const int64_t row = row_of(query), head = head_of(kv_head, query);
        const float * x = (const float *)((const char *)q->data + row * q->nb[1] + head * q->nb[2]);
        for (int c = 0; c < BLOCK; c += LANES) {
            Floats sums[LANES];
            for (int l = 0; l < LANES; ++l) sums[l] = zeros();
            const float * side_by_side = keys + key_at(c);
            for (int64_t i = 0; i < dk; i += LANES, side_by_side += KEY_STEP) {
                const Floats part = load(x + i);
#pragma GCC unroll 16
                for (int l = 0; l < LANES; ++l)
                    sums[l] = multiply_add(part, load(side_by_side + l * LANES), sums[l]);
            }
            store(out + c, multiply(sums_of_each(sums), all(scale)));
        }
        if (softcap != 0) {
            for (int c = 0; c < BLOCK; ++c) out[c] = softcap * std::tanh(out[c]);
        }
        if (mask && n == BLOCK) {
            const uint16_t * m = mask_of(row) + first;
            const Floats times = all(slope(head));
            for (int c = 0; c < BLOCK; c += LANES)
                store(out + c, multiply_add(times, widen_f16(m + c), load(out + c)));
        } else if (mask) {
            const uint16_t * m = mask_of(row) + first;
            for (int c = 0; c < n; ++c) out[c] = std::fma(slope(head), _cvtsh_ss(m[c]), out[c]);
        }
        for (int c = n; c < BLOCK; ++c) out[c] = NONE;
    }

    // Scores into weights relative to the largest so far; what the weights before are to be
    // multiplied by
    static float weigh(float * scores, float * sums, float & largest) {
        Floats most = load(scores);
        for (int c = LANES; c < BLOCK; c += LANES) most = maximum(most, load(scores + c));
        const float before = largest;
        largest = std::max(before, max_lanes(most));
        const float base = largest == NONE ? 0 : largest;
        const float factor = before == base ? 1 : exp_of(before - base);
        Floats sum = multiply(load(sums), all(factor));
        for (int c = 0; c < BLOCK; c += LANES) {
            const Floats weights = exp_of(subtract(load(scores + c), all(base)));
            store(scores + c, weights);
            sum = add(sum, weights);
        }
        store(sums, sum);
        return factor;
    }

    // P queries' weighted values, (P, BLOCK) times (BLOCK, Dv), added to those before. Some vectors
    // of Dv at a time have room in registers for all P: a value is loaded once for P queries.
    template <int P>
    static void values(const float * wide, int64_t dv, const float * weights, const float * factors,
                       float * out, int64_t stride) {
        constexpr int AT_ONCE = LANES == 16 ? 4 : 2;
        const auto run = [&](int64_t i, auto n_vectors) {
            constexpr int N = decltype(n_vectors)::value;
            Floats sums[P][N];
            for (int p = 0; p < P; ++p) {
                for (int j = 0; j < N; ++j)
                    sums[p][j] = multiply(load(out + p * stride + i + j * LANES), all(factors[p]));
            }
            for (int c = 0; c < BLOCK; ++c) {
                Floats x[N];
                for (int j = 0; j < N; ++j) x[j] = load(wide + c * dv + i + j * LANES);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const Floats weight = all(weights[p * BLOCK + c]);
#pragma GCC unroll 4
                    for (int j = 0; j < N; ++j) sums[p][j] = multiply_add(weight, x[j], sums[p][j]);
                }
            }
            for (int p = 0; p < P; ++p) {
                for (int j = 0; j < N; ++j) store(out + p * stride + i + j * LANES, sums[p][j]);
            }
        };
        int64_t i = 0;
        for (; i + AT_ONCE * LANES <= dv; i += AT_ONCE * LANES)
            run(i, std::integral_constant<int, AT_ONCE>());
        for (; i < dv; i += LANES) run(i, std::integral_constant<int, 1>());
    }

    // What all groups gave one query, into the output
    void merge(int64_t kv_head, int64_t query) const {
        const int64_t row = row_of(query), head = head_of(kv_head, query);
        float * out = (float *)((char *)op->data + (row * n_heads + head) * op->nb[1]);
        const float * sink = sinks ? (const float *)sinks->data + head : nullptr;
        float largest = sink ? *sink : NONE;
        for (int64_t g = 0; g < groups; ++g)
            largest = std::max(largest, partial(g, kv_head, query)[dv + 1]);
        float sum = sink ? exp_of(*sink - largest) : 0;
        memset(out, 0, sizeof(float) * dv);
        for (int64_t g = 0; g < groups; ++g) {
            const float * found = partial(g, kv_head, query);
            if (found[dv + 1] == NONE) continue;
            const float factor = exp_of(found[dv + 1] - largest);
            sum += factor * found[dv];
            for (int64_t i = 0; i < dv; i += LANES)
                store(out + i, multiply_add(all(factor), load(found + i), load(out + i)));
        }
        const Floats share = all(sum == 0 ? 0 : 1 / sum);
        for (int64_t i = 0; i < dv; i += LANES) store(out + i, multiply(load(out + i), share));
    }

    static float exp_of(float x) { return first_lane(::exp_of(all(x))); }
    static Floats exp_of(Floats x) { return ::exp_of(x); }

    const abi::Tensor *op, *q, *k, *v, *mask, *sinks;
    int64_t dk, dv, n_cells, n_rows, n_heads, n_kv_heads, per_key, groups, n_queries, n_heads_kept;
    int64_t first_row = 0;
    float scale, max_bias, softcap;
    float * partials = nullptr;
};

}  // namespace attention
