// Attention over a cache of keys and values, of a draft's few rows or of a prompt's many:
//
//     out (M, H, Dv) = softmax(scale * q (M, H, Dk) k (N, G, Dk) + mask (M, N)) v (N, G, Dv)
//
// for M rows and N cells, where H / G heads read the same keys and values; of one sequence, or of
// several that have caches of their own, each with as many rows and cells.
//
// ggml takes a draft's rows one head, row and cell after another and adds the values up in half
// precision; from 512 cells on it splits a single row's cells among the threads there are, so that
// a row's bits depend on its company and on the machine. Here a key or value is widened once for
// all rows and heads that read it, everything is added up in single precision, and how cells are
// grouped depends on nothing but their number: a row has the same bits with any rows beside it and
// any threads. They are not ggml's, which rounds more: of a quantized cache's queries, too.
//
// Few rows share out the groups of cells among the threads; of many, or of many sequences, each
// thread takes some rows with all their cells.
//
// Online softmax over groups of cells, merged at the end (Rabe and Staats 2021, arXiv:2112.05682;
// Dao et al. 2023, "Flash-Decoding").
#pragma once

#include "attention_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace attention {

constexpr int FEW_ROWS = 63;  // more are taken in tiles
// What few rows may keep of all groups, in floats (16 MiB): with 128 heads it would be hundreds
constexpr int64_t MOST_KEPT = 4 << 20;
constexpr int64_t TILE_QUERIES = 96;  // so few that their results stay in the second cache
constexpr size_t ALIGNED = 64;

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
          n_sequences(q->ne[3]),
          per_key(n_heads / n_kv_heads),
          groups(n_groups(n_cells)),
          n_queries(n_rows * per_key) {
        memcpy(&scale, op->op_params, sizeof(float));
        memcpy(&max_bias, op->op_params + 1, sizeof(float));
        memcpy(&softcap, op->op_params + 2, sizeof(float));
        if (softcap != 0) scale /= softcap;
    }

    static bool takes(const abi::Tensor * op) {
        const abi::Tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
        const bool has_types = q->type == abi::F32 && op->type == abi::F32 && is_read(k) &&
                               is_read(v) && (!mask || mask->type == abi::F16);
        const int64_t n = q->ne[3];
        const bool is_each = k->ne[3] == n && v->ne[3] == n &&
                             (!mask || (mask->ne[2] == 1 && mask->ne[3] == n));
        return has_types && is_each && q->nb[0] == sizeof(float) && k->ne[2] == v->ne[2] &&
               q->ne[2] % k->ne[2] == 0;
    }

    size_t work_bytes(int n_threads) const {
        const int64_t size = is_few() ? n_threads * scratch_size() + kept_size()
                                      : n_threads * tile(0).tile_size();
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
    // Whether its numbers can be widened, and lie one after another
    static bool is_read(const abi::Tensor * x) {
        return cells::with_format(x->type, [x](auto format) {
            return x->nb[0] == sizeof(*(typename decltype(format)::Block *)nullptr);
        });
    }

    bool is_few() const {
        return n_sequences == 1 && n_rows <= FEW_ROWS && kept_size() <= MOST_KEPT;
    }

    void compute_few(const abi::ComputeParams * params, const abi::Ggml & ggml, float * work) {
        const int ith = params->ith, nth = params->nth;
        float * kept = work + nth * scratch_size();
        const int64_t size = n_queries * result_size();
        for (int64_t unit = ith; unit < groups * n_kv_heads; unit += nth)
            attend(unit / n_kv_heads, unit % n_kv_heads, kept + unit * size,
                   work + ith * scratch_size());
        ggml.barrier(params->threadpool);
        const int64_t n_outputs = n_heads * n_rows;
        for (int64_t i = n_outputs * ith / nth; i < n_outputs * (ith + 1) / nth; ++i) {
            const int64_t kv_head = i / n_queries, query = i % n_queries;
            float * found = kept + kv_head * size + query * result_size();
            for (int64_t group = 1; group < groups; ++group)
                merge(found, found + group * n_kv_heads * size);
            finish(kv_head, query, found);
        }
    }

    void compute_many(const abi::ComputeParams * params, const abi::Ggml & ggml, float * work) {
        if (params->ith == 0) ggml.chunk_set(params->threadpool, params->nth);
        ggml.barrier(params->threadpool);
        const int64_t n_tiles = (n_rows + tile_rows() - 1) / tile_rows();
        const int64_t n_units = n_sequences * n_tiles * n_kv_heads;
        float * scratch = work + params->ith * tile(0).tile_size();
        for (int64_t unit = params->ith; unit < n_units;
             unit = ggml.chunk_add(params->threadpool, 1)) {
            // The last ones first: they see most.
            const int64_t index = (n_units - 1 - unit) / n_kv_heads;
            tile(index % n_tiles * tile_rows(), index / n_tiles)
                .attend_all(unit % n_kv_heads, scratch);
        }
    }

    int64_t tile_rows() const {
        return std::min<int64_t>(std::max<int64_t>(TILE_QUERIES / per_key, 1), FEW_ROWS);
    }
    Attention tile(int64_t first, int64_t of_sequence = 0) const {
        Attention rows = *this;
        rows.sequence = of_sequence;
        rows.first_row = first;
        rows.n_rows = std::min(tile_rows(), n_rows - first);
        rows.n_queries = rows.n_rows * per_key;
        return rows;
    }
    void attend_all(int64_t kv_head, float * scratch) const {
        float * found = scratch + scratch_size();
        float * more = found + n_queries * result_size();
        for (int64_t group = 0; group < groups; ++group) {
            attend(group, kv_head, group == 0 ? found : more, scratch);
            for (int64_t i = 0; i < n_queries * result_size() && group > 0; i += result_size())
                merge(found + i, more + i);
        }
        for (int64_t i = 0; i < n_queries; ++i) finish(kv_head, i, found + i * result_size());
    }

    // What some cells give a query: weighted values, their weights' sum, the largest score, which
    // the weights are relative to
    int64_t result_size() const { return padded(dv) + LANES; }
    float & sum_of(float * found) const { return found[padded(dv)]; }
    float & largest_of(float * found) const { return found[padded(dv) + 1]; }
    // Of all groups, and of two of them
    int64_t kept_size() const { return groups * n_kv_heads * n_queries * result_size(); }
    int64_t tile_size() const { return scratch_size() + 2 * n_queries * result_size(); }
    // Of a thread: a block of keys or values, for each query its weights, their sums so far, what
    // the values so far are to be multiplied by and its slope, and a block of keys as they lie in
    // the cache
    int64_t wide_size() const { return BLOCK * padded(std::max(dk, dv)); }
    int64_t taken_size() const { return BLOCK * ((cells::row_bytes(k->type, dk) + 63) / 64 * 16); }
    int64_t scratch_size() const {
        return wide_size() + n_queries * (BLOCK + 2 * LANES) + taken_size();
    }

    int64_t row_of(int64_t query) const { return first_row + query / per_key; }
    int64_t head_of(int64_t kv_head, int64_t query) const {
        return kv_head * per_key + query % per_key;
    }
    const float * query_at(int64_t kv_head, int64_t query) const {
        return (const float *)((const char *)q->data + row_of(query) * q->nb[1] +
                               head_of(kv_head, query) * q->nb[2] + sequence * q->nb[3]);
    }
    const uint16_t * mask_of(int64_t row) const {
        return (const uint16_t *)((const char *)mask->data + row * mask->nb[1] +
                                  sequence * mask->nb[3]);
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

    Cells cells_of(const abi::Tensor * x, int64_t kv_head) const {
        const char * first = (const char *)x->data + kv_head * x->nb[2] + sequence * x->nb[3];
        return {first, x->nb[1], x->ne[0]};
    }

    // A block of cells that is to be read
    Ahead ahead_of(const abi::Tensor * x, int64_t kv_head, int64_t first) const {
        const int n = (int)std::max<int64_t>(std::min<int64_t>(n_cells - first, BLOCK), 0);
        return {cells_of(x, kv_head), first, n, cells::row_bytes(x->type, x->ne[0])};
    }
    // A block of cells in single precision
    void read_keys(int64_t kv_head, int64_t first, int n, float * out, char * taken) const {
        cells::with_format(k->type, [&](auto format) {
            widen_keys<decltype(format)>(cells_of(k, kv_head), first, n, out, taken);
            return true;
        });
    }
    // use(values): a block of values, from the cache where few queries read it, else from `wide`
    template <class Use>
    void with_values(int64_t kv_head, int64_t first, int n, float * wide, const Use & use) const {
        const Cells values = cells_of(v, kv_head);
        const bool are_few = n_queries <= 2 * MOST_QUERIES;
        if (n == BLOCK && are_few && dv % LANES == 0 && v->type == abi::F16)
            return use(CachedValues<cells::F16>{values, first});
        cells::with_format(v->type, [&](auto format) {
            widen_values<decltype(format)>(values, first, n, wide);
            return true;
        });
        use(WideValues{wide, padded(dv)});
    }

    // The cells of one group for all queries that read this head's keys
    void attend(int64_t group, int64_t kv_head, float * found, float * scratch) const {
        float * wide = scratch;
        float * weights = wide + wide_size();
        float * sums = weights + n_queries * BLOCK;
        float *factors = sums + n_queries * LANES, *slopes = factors + n_queries;
        char * taken = (char *)(factors + n_queries * LANES);
        for (int64_t i = 0; i < n_queries; ++i) {
            memset(found + i * result_size(), 0, sizeof(float) * padded(dv));
            largest_of(found + i * result_size()) = NONE;
            store(sums + i * LANES, zeros());
            slopes[i] = slope(head_of(kv_head, i));
        }
        const int64_t end = std::min(n_cells, group_start(group + 1));
        for (int64_t first = group_start(group); first < end; first += BLOCK) {
            const int n = (int)std::min<int64_t>(BLOCK, end - first);
            if (is_masked(first, n)) continue;
            read_keys(kv_head, first, n, wide, taken);
            score_all(kv_head, first, wide, weights);
            for (int64_t i = 0; i < n_queries; ++i) {
                if (softcap != 0) cap(weights + i * BLOCK, softcap);
                const uint16_t * seen = mask ? mask_of(row_of(i)) + first : nullptr;
                hide(weights + i * BLOCK, seen, n, slopes[i]);
                factors[i] = weigh(weights + i * BLOCK, sums + i * LANES,
                                   largest_of(found + i * result_size()));
            }
            Ahead ahead = ahead_of(k, kv_head, first + BLOCK);
            with_values(kv_head, first, n, wide, [&](const auto & values) {
                in_parts(n_queries, [&](int64_t i, auto n_at_once) {
                    add_values<n_at_once>(values, padded(dv), weights + i * BLOCK, factors + i,
                                          found + i * result_size(), result_size(), ahead);
                });
            });
        }
        for (int64_t i = 0; i < n_queries; ++i)
            sum_of(found + i * result_size()) = sum_lanes(load(sums + i * LANES));
    }

    void score_all(int64_t kv_head, int64_t first, const float * keys, float * scores) const {
        Ahead ahead = ahead_of(v, kv_head, first);
        in_parts(n_queries, [&](int64_t i, auto n_at_once) {
            const float * queries[n_at_once];
            for (int p = 0; p < n_at_once; ++p) queries[p] = query_at(kv_head, i + p);
            score<n_at_once>(queries, keys, dk, scale, scores + i * BLOCK, ahead);
        });
    }

    // What more cells gave a query, added to what those before gave it
    void merge(float * found, float * more) const {
        const float most = std::max(largest_of(found), largest_of(more));
        if (largest_of(more) == NONE) return;
        const float before = exp_of(largest_of(found) - most);
        const float after = exp_of(largest_of(more) - most);
        for (int64_t i = 0; i < dv; i += LANES)
            store(found + i, multiply_add(all(after), load(more + i),
                                          multiply(all(before), load(found + i))));
        sum_of(found) = std::fma(after, sum_of(more), before * sum_of(found));
        largest_of(found) = most;
    }

    // A query's output: what all its cells gave it, and a sink
    void finish(int64_t kv_head, int64_t query, float * found) const {
        const int64_t row = row_of(query), head = head_of(kv_head, query);
        float factor = 1, sum = sum_of(found);
        if (sinks) {
            const float sink = ((const float *)sinks->data)[head];
            const float most = std::max(largest_of(found), sink);
            factor = exp_of(largest_of(found) - most);
            sum = factor * sum + exp_of(sink - most);
        }
        const Floats share = all(sum == 0 ? 0 : factor / sum);
        for (int64_t i = 0; i < dv; i += LANES)
            store(found + i, multiply(load(found + i), share));
        memcpy((char *)op->data + (row * n_heads + head) * op->nb[1] + sequence * op->nb[3], found,
               sizeof(float) * dv);
    }

    const abi::Tensor *op, *q, *k, *v, *mask, *sinks;
    int64_t dk, dv, n_cells, n_rows, n_heads, n_kv_heads, n_sequences, per_key, groups, n_queries;
    int64_t first_row = 0, sequence = 0;
    float scale, max_bias, softcap;
};

}  // namespace attention
