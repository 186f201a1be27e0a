// One block of a cache's cells for the queries that read them: scores, their weights, the values
// times those. Every query's arithmetic is its own, in one order whatever is computed beside it.
//
// Keys stand with the same number of all cells side by side (`keys`: (Dk, BLOCK)), so that a lane
// is a cell's score, values as in the cache (`values`: (BLOCK, Dv)); both are floats.
#pragma once

#include "cells.h"

#include <limits>
#include <type_traits>

namespace attention {

constexpr int BLOCK = 32;
constexpr int N = BLOCK / LANES;
constexpr float NONE = -std::numeric_limits<float>::infinity();

inline int64_t padded(int64_t width) { return (width + LANES - 1) / LANES * LANES; }

// Where a head's cells lie
struct Cells {
    const char * first;
    size_t stride;
    int64_t width;
    const char * at(int64_t c) const { return first + c * stride; }
};

// A block that is read next, which the hardware does not foresee: it is asked for a line at a time,
// spread over what is computed meanwhile.
class Ahead {
public:
    Ahead(const Cells & cells, int64_t first, int n, int64_t row_bytes)
        : row(cells.at(first)), stride(cells.stride), row_bytes(row_bytes), left(n) {}
    void line() {
        if (left == 0) return;
        _mm_prefetch(row + at, _MM_HINT_T0);
        at += 64;
        if (at < row_bytes) return;
        row += stride;
        at = 0;
        --left;
    }

private:
    const char * row;
    int64_t stride, row_bytes, at = 0;
    int left;
};

inline void copy(const char * from, int64_t n_bytes, char * to) {
    constexpr int64_t STEP = sizeof(Floats);
    if (n_bytes < STEP) return (void)memcpy(to, from, n_bytes);
    const auto step = [&](int64_t i) { store((float *)(to + i), load((const float *)(from + i))); };
    for (int64_t i = 0; i + STEP <= n_bytes; i += STEP) step(i);
    step(n_bytes - STEP);
}

// Keys first to first + n - 1, and zeros for the rest of a block. They are taken as they lie, one
// after another, as the hardware likes to fetch them, and only then side by side, so many bytes
// apart: where a compiler knows how many, it needs no register for each key's address.
template <class Format, bool IS_WHOLE, class Stride>
void widen_keys(const Cells & x, int64_t first, int n, float * out, char * taken, Stride stride) {
    const int64_t n_bytes = x.width / Format::LENGTH * sizeof(typename Format::Block);
    for (int c = 0; c < n; ++c) copy(x.at(first + c), n_bytes, taken + c * stride);
    for (int start = 0; start < BLOCK; start += LANES) {
        for (int64_t i = 0; i < x.width; i += LANES) {
            const auto read = [&](int c) {
                return cells::read<Format, IS_WHOLE>(taken + c * stride, i, x.width);
            };
            Floats numbers[LANES];
            if (start + LANES <= n) {
#pragma GCC unroll 16
                for (int l = 0; l < LANES; ++l) numbers[l] = read(start + l);
            } else {
                for (int l = 0; l < LANES; ++l)
                    numbers[l] = start + l < n ? read(start + l) : zeros();
            }
            transpose(numbers);
#pragma GCC unroll 16
            for (int l = 0; l < LANES; ++l) store(out + (i + l) * BLOCK + start, numbers[l]);
        }
    }
}

template <class Format>
void widen_keys(const Cells & x, int64_t first, int n, float * out, char * taken) {
    const int64_t stride = (cells::row_bytes(Format::TYPE, x.width) + 63) / 64 * 64;
    const auto widen = [&](auto is_whole, auto stride) {
        widen_keys<Format, is_whole>(x, first, n, out, taken, stride);
    };
    const auto is_whole = std::true_type();
    if (x.width % LANES != 0) return widen(std::false_type(), stride);
    if (stride == 128) return widen(is_whole, std::integral_constant<int64_t, 128>());
    if (stride == 256) return widen(is_whole, std::integral_constant<int64_t, 256>());
    widen(is_whole, stride);
}

template <class Format>
void widen_values(const Cells & x, int64_t first, int n, float * out) {
    const int64_t width = padded(x.width);
    for (int c = 0; c < BLOCK; ++c, out += width) {
        constexpr int STEP = std::max(Format::LENGTH, LANES);  // a block's scale is read once
        for (int64_t i = 0; i < width; i += STEP) {
#pragma GCC unroll 4
            for (int j = 0; j < STEP; j += LANES)
                store(out + i + j,
                      c < n ? cells::read<Format>(x.at(first + c), i + j, x.width) : zeros());
        }
    }
}

// Calls `run` with the number of queries of each of as few and as equal parts as there can be, a
// compile-time constant of up to MOST_QUERIES, and with the part's first query
template <int MOST = MOST_QUERIES, class Run>
void with_count(int n, const Run & run) {
    if constexpr (MOST > 1)
        if (n < MOST) return with_count<MOST - 1>(n, run);
    run(std::integral_constant<int, MOST>());
}
template <class Run>
void in_parts(int64_t n_queries, const Run & run) {
    const int64_t n_parts = (n_queries + MOST_QUERIES - 1) / MOST_QUERIES;
    for (int64_t part = 0; part < n_parts; ++part) {
        const int64_t first = n_queries * part / n_parts, end = n_queries * (part + 1) / n_parts;
        with_count((int)(end - first), [&](auto n) { run(first, n); });
    }
}

// P queries (P, Dk) times keys (Dk, BLOCK): a key is loaded once for P queries. What some numbers
// give is added up apart, which rounds less than one long sum.
template <int P>
void score(const float * const * queries, const float * keys, int64_t dk, float scale, float * out,
           Ahead & ahead) {
    constexpr int64_t APART = 16;
    Floats totals[P][N];
    for (int p = 0; p < P; ++p)
        for (int j = 0; j < N; ++j) totals[p][j] = zeros();
    for (int64_t start = 0; start < dk; start += APART) {
        Floats sums[P][N];
        for (int p = 0; p < P; ++p)
            for (int j = 0; j < N; ++j) sums[p][j] = zeros();
        const int64_t end = std::min(start + APART, dk);
        for (int64_t i = start; i < end; ++i, keys += BLOCK) {
            ahead.line();
            Floats x[P];
            for (int p = 0; p < P; ++p) x[p] = all(queries[p][i]);
#pragma GCC unroll 4
            for (int j = 0; j < N; ++j) {
                const Floats key = load(keys + j * LANES);
#pragma GCC unroll 6
                for (int p = 0; p < P; ++p) sums[p][j] = multiply_add(x[p], key, sums[p][j]);
            }
        }
        for (int p = 0; p < P; ++p)
            for (int j = 0; j < N; ++j) totals[p][j] = add(totals[p][j], sums[p][j]);
    }
    for (int p = 0; p < P; ++p)
        for (int j = 0; j < N; ++j)
            store(out + p * BLOCK + j * LANES, multiply(totals[p][j], all(scale)));
}

inline Floats tanh_of(Floats x) {
    const Floats size = maximum(x, subtract(zeros(), x));
    const Floats part = ::exp_of(multiply(size, all(-2)));
    return with_sign_of(x, divide(subtract(all(1), part), add(all(1), part)));
}
inline void cap(float * scores, float softcap) {
    for (int c = 0; c < BLOCK; c += LANES)
        store(scores + c, multiply(all(softcap), tanh_of(load(scores + c))));
}

// What a row does not see has no weight; the mask holds n numbers, of which ALiBi has more to say.
inline void hide(float * scores, const uint16_t * mask, int n, float slope) {
    uint16_t last[BLOCK];
    if (mask && n < BLOCK) {
        memset(last, 0, sizeof(last));
        memcpy(last, mask, n * sizeof(uint16_t));
        mask = last;
    }
    if (mask) {
        for (int c = 0; c < BLOCK; c += LANES)
            store(scores + c, multiply_add(all(slope), widen_f16(mask + c), load(scores + c)));
    }
    for (int c = n; c < BLOCK; ++c) scores[c] = NONE;
}

inline float exp_of(float x) { return first_lane(::exp_of(all(x))); }

// Scores into weights relative to the largest so far; what the weights before are to be multiplied
// by
inline float weigh(float * scores, float * sums, float & largest) {
    Floats most = load(scores);
    for (int c = LANES; c < BLOCK; c += LANES) most = maximum(most, load(scores + c));
    const float before = largest;
    largest = std::max(before, max_lanes(most));
    const float base = largest == NONE ? 0 : largest;
    const float factor = before == base ? 1 : exp_of(before - base);
    Floats sum = multiply(load(sums), all(factor));
    for (int c = 0; c < BLOCK; c += LANES) {
        const Floats weights = ::exp_of(subtract(load(scores + c), all(base)));
        store(scores + c, weights);
        sum = add(sum, weights);
    }
    store(sums, sum);
    return factor;
}

// A block's values as `widen_values` leaves them, and in the cache, where to widen them anew for
// each part of few queries takes less than to put them down
struct WideValues {
    const float * first;
    int64_t width;
    Floats read(int c, int64_t i) const { return load(first + c * width + i); }
};
template <class Format>
struct CachedValues {
    Cells cells;
    int64_t first;
    Floats read(int c, int64_t i) const {
        return cells::read<Format, true>(cells.at(first + c), i, cells.width);
    }
};

// P queries' weighted values, (P, BLOCK) times (BLOCK, Dv), added to those before. Some vectors of
// Dv at a time have room in registers for all P: a value is loaded once for P queries.
template <int P, int N_VECTORS, class Values>
void add_vectors(const Values & values, int64_t first, const float * weights,
                 const float * factors, float * out, int64_t stride, Ahead & ahead) {
    out += first;
    Floats sums[P][N_VECTORS];
    for (int p = 0; p < P; ++p)
        for (int j = 0; j < N_VECTORS; ++j)
            sums[p][j] = multiply(load(out + p * stride + j * LANES), all(factors[p]));
    for (int c = 0; c < BLOCK; ++c) {
        ahead.line();
        ahead.line();
        Floats x[P];
        for (int p = 0; p < P; ++p) x[p] = all(weights[p * BLOCK + c]);
#pragma GCC unroll 4
        for (int j = 0; j < N_VECTORS; ++j) {
            const Floats value = values.read(c, first + j * LANES);
#pragma GCC unroll 6
            for (int p = 0; p < P; ++p) sums[p][j] = multiply_add(x[p], value, sums[p][j]);
        }
    }
    for (int p = 0; p < P; ++p)
        for (int j = 0; j < N_VECTORS; ++j) store(out + p * stride + j * LANES, sums[p][j]);
}
template <int P, class Values>
void add_values(const Values & values, int64_t dv, const float * weights, const float * factors,
                float * out, int64_t stride, Ahead & ahead) {
    int64_t i = 0;
    for (; i + 4 * LANES <= dv; i += 4 * LANES)
        add_vectors<P, 4>(values, i, weights, factors, out, stride, ahead);
    if (i + 2 * LANES <= dv) {
        add_vectors<P, 2>(values, i, weights, factors, out, stride, ahead);
        i += 2 * LANES;
    }
    if (i < dv) add_vectors<P, 1>(values, i, weights, factors, out, stride, ahead);
}

}  // namespace attention
