// Passes over rows of logits: the best id with its share, what top-k, top-p, min-p and temperature
// leave, and how much of a drawn draft stands. `sampling/truncation.py` and `verify.py` say what
// each gives, and do the same with numpy, which takes several times as long.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#pragma GCC optimize("fp-contract=fast")  // no bit of these matters

namespace {

constexpr int LANES = 16;
constexpr int PER_PART = 32;  // logits of one lane in a block
constexpr int BLOCK = LANES * PER_PART;
constexpr int N_PARTS = 256;  // maxima among which the bound of the top k is looked for
constexpr int MOST = N_PARTS / 2;  // the largest top-k: _MOST in truncation.py

typedef float Floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));

Floats load(const float * x) {
    Floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

Floats larger(Floats a, Floats b) { return b > a ? b : a; }  // a where b is NaN

float largest(Floats v) {
    float most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

// The largest of each lane in a block.
Floats block_maxima(const float * x) {
    Floats a = load(x), b = load(x + LANES), c = load(x + 2 * LANES), d = load(x + 3 * LANES);
    for (int i = 4 * LANES; i < BLOCK; i += 4 * LANES) {
        a = larger(a, load(x + i));
        b = larger(b, load(x + i + LANES));
        c = larger(c, load(x + i + 2 * LANES));
        d = larger(d, load(x + i + 3 * LANES));
    }
    return larger(larger(a, b), larger(c, d));
}

// e^x for x <= 0, to 1e-5 of it, and at least 1e-38; NaN for NaN.
Floats exponential(Floats x) {
    const Floats least = Floats{} - 125.0f, shift = Floats{} + 12582912.0f;  // 1.5 * 2^23: rounds
    x *= 1.44269504f;
    x = x < least ? least : x;
    const Floats shifted = x + shift, f = x - (shifted - shift);  // 2^x = 2^n 2^f, |f| <= 1/2
    Floats p = f * 1.33335581e-3f + 9.61812911e-3f;  // ln(2)^k / k!
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + ((Ints)shifted << 23));  // n is in the low bits; 0 where NaN
}

struct Candidate {
    float logit;
    int32_t id;
    bool operator<(const Candidate & other) const {  // the likeliest first, then the smallest id
        return logit > other.logit || (logit == other.logit && id < other.id);
    }
};

// The k-th largest maximum of parts of a row: not above its k-th largest logit.
float bound_of(const std::vector<Floats> & maxima, int k) {
    constexpr int N = N_PARTS / LANES;
    const Floats lowest = Floats{} - INFINITY;
    Floats folded[N];
    for (int i = 0; i < N; i++) folded[i] = lowest;
    for (size_t i = 0; i < maxima.size(); i++) folded[i % N] = larger(folded[i % N], maxima[i]);
    float parts[N_PARTS];
    memcpy(parts, folded, sizeof parts);
    std::nth_element(parts, parts + k - 1, parts + N_PARTS, std::greater<float>());
    return parts[k - 1];
}

// As in `Truncation` of truncation.py
struct Truncation {
    double top_p, min_p, temperature;
    int32_t top_k;
};

// Of an id among n that increase
double prob_of(int32_t id, const int32_t * ids, const double * probs, int32_t n) {
    const int32_t i = std::lower_bound(ids, ids + n, id) - ids;
    return i < n && ids[i] == id ? probs[i] : 0;
}

// A distribution: ids, which increase, and their probabilities
struct Distribution {
    int32_t n = 0;
    int32_t ids[MOST];
    double probs[MOST];

    // The id in whose share of the sum a point of [0, 1) lies
    int32_t at(double point) const {
        double total = 0, sum = 0;
        for (int32_t i = 0; i < n; i++) total += probs[i];
        for (int32_t i = 0; i + 1 < n; i++)
            if ((sum += probs[i]) > point * total) return ids[i];
        return ids[n - 1];
    }
};

// The k likeliest of a row, in order; fewer where no more are finite, and none where they cannot be
// told from the rest.
std::vector<Candidate> top(const float * logits, int32_t n, int32_t k) {
    std::vector<Floats> maxima(n / BLOCK);
    for (size_t b = 0; b < maxima.size(); b++) maxima[b] = block_maxima(logits + b * BLOCK);
    const float bound = bound_of(maxima, k);
    std::vector<Candidate> found;
    if (bound != -INFINITY && !std::isfinite(bound)) return found;
    found.reserve(2 * MOST);
    const auto look = [&](int32_t id) {
        if (logits[id] >= bound && logits[id] != -INFINITY) found.push_back({logits[id], id});
    };
    for (size_t b = 0; b < maxima.size(); b++)
        for (int lane = 0; lane < LANES; lane++)
            if (maxima[b][lane] >= bound)
                for (int i = 0; i < PER_PART; i++) look(b * BLOCK + i * LANES + lane);
    for (int32_t id = maxima.size() * BLOCK; id < n; id++) look(id);
    std::sort(found.begin(), found.end());
    if (found.size() > static_cast<size_t>(k)) found.resize(k);
    return found;
}

// How many of the likeliest have the share p of all that were found.
int32_t fewest(const std::vector<Candidate> & found, double p) {
    double shares[MOST], total = 0, sum = 0;
    const int32_t n = found.size();
    for (int32_t i = 0; i < n; i++)
        total += shares[i] = std::exp((double)found[i].logit - found[0].logit);
    const double goal = p * total;
    for (int32_t i = 0; i < n; i++)
        if ((sum += shares[i]) >= goal) return i + 1;
    return n;
}

// Whether it could: other k than 1 to MOST, a short row, or one with NaN, is for
// others.
bool truncate(const float * logits, int32_t n, const Truncation & by, Distribution & out) {
    const int32_t k = by.top_k;
    if (k < 1 || k > MOST || n / BLOCK * LANES < 2 * k) return false;
    std::vector<Candidate> found = top(logits, n, k);
    if (found.empty()) return false;
    const double most = found[0].logit;
    if (!std::isfinite(most)) return false;
    if (by.top_p < 1) found.resize(fewest(found, by.top_p));
    if (by.min_p > 0) {
        const double least = std::log(by.min_p);
        while (found.size() > 1 && found.back().logit - most < least) found.pop_back();
    }
    std::sort(found.begin(), found.end(), [](auto & a, auto & b) { return a.id < b.id; });
    double total = 0;
    out.n = found.size();
    for (int32_t i = 0; i < out.n; i++) {
        out.ids[i] = found[i].id;
        total += out.probs[i] = std::exp((found[i].logit - most) / by.temperature);
    }
    for (int32_t i = 0; i < out.n; i++) out.probs[i] /= total;
    return true;
}

}  // namespace

// The id of the largest of n logits; `total` becomes the sum of e^(logit - largest), which is no
// number where a logit is none, or the largest is infinite. One pass: what was summed up in the
// light of a smaller one is scaled down.
extern "C" int32_t mtp_best(const float * logits, int32_t n, double * total) {
    float most = -FLT_MAX;
    int32_t start = 0;
    double sum = 0;
    const auto raise = [&](float to, int32_t i) {
        if (to > most) sum *= std::exp(most - to), most = to, start = i;
    };
    int32_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        raise(largest(block_maxima(logits + i)), i);
        Floats part = {};
        for (int j = 0; j < BLOCK; j += LANES) part += exponential(load(logits + i + j) - most);
        for (int lane = 0; lane < LANES; lane++) sum += part[lane];
    }
    for (; i < n; i++) {
        raise(logits[i], i);
        sum += std::exp(logits[i] - most);
    }
    *total = most > -FLT_MAX ? sum : NAN;
    const int32_t last = std::min(n, start + BLOCK) - 1;
    while (start < last && logits[start] != most) start++;
    return start;
}

// Up to MOST candidates by increasing id, and their probabilities; how many. 0 where `truncate`
// could not.
extern "C" int32_t mtp_truncate(const float * logits, int32_t n, const Truncation * by,
                                int32_t * ids, double * probs) {
    Distribution found;
    if (!truncate(logits, n, *by, found)) return 0;
    memcpy(ids, found.ids, found.n * sizeof *ids);
    memcpy(probs, found.probs, found.n * sizeof *probs);
    return found.n;
}

// The candidate at a point of [0, 1); -1 where `truncate` could not.
extern "C" int32_t mtp_token_at(const float * logits, int32_t n, const Truncation * by,
                                double point) {
    Distribution found;
    return truncate(logits, n, *by, found) ? found.at(point) : -1;
}

// Block verification: how many ids of the draft stand, and the id that follows them. -1 where
// `truncate` could not.
//   rows    the target's, n_draft + 1 of n logits
//   n_ids   of the distribution that each drafted id was drawn from; 0: it was no draw
//   ids, probs   of all these distributions, one after another
//   points  n_draft + 1 of [0, 1)
extern "C" int32_t mtp_verify_block(const float * const * rows, int32_t n, const Truncation * by,
                                    const int32_t * draft, int32_t n_draft, const int32_t * n_ids,
                                    const int32_t * ids, const double * probs,
                                    const double * points, int32_t * next) {
    Distribution p, last;
    if (!truncate(rows[0], n, *by, p)) return -1;
    last = p;
    int32_t accepted = 0;
    double kept = 1;
    for (int32_t i = 0; i < n_draft; i++) {
        // A distribution's ids increase, and so do p's.
        const int32_t alone = draft[i], n_drawn = n_ids[i] ? n_ids[i] : 1;
        const double one = 1;
        const int32_t * q_ids = n_ids[i] ? ids : &alone;
        const double * q_probs = n_ids[i] ? probs : &one;
        double excess[MOST], surplus = 0;
        for (int32_t a = 0, b = 0; a < p.n; a++) {
            while (b < n_drawn && q_ids[b] < p.ids[a]) b++;
            const double q = b < n_drawn && q_ids[b] == p.ids[a] ? q_probs[b] : 0;
            surplus += excess[a] = std::max(0.0, kept * p.probs[a] - q);
        }
        if (i == 0 || *points++ * (surplus + 1 - kept) < surplus) {
            accepted = i, last = p;
            if (surplus > 1e-12) memcpy(last.probs, excess, p.n * sizeof *excess);
        }
        const double target = prob_of(alone, p.ids, p.probs, p.n);
        kept = std::min(kept * target / prob_of(alone, q_ids, q_probs, n_drawn), 1.0);
        if (kept == 0) break;
        if (!truncate(rows[i + 1], n, *by, p)) return -1;
        ids += n_ids[i], probs += n_ids[i];
    }
    if (n_draft > 0 && *points++ < kept) accepted = n_draft, last = p;
    *next = last.at(*points);
    return accepted;
}

// Makes every one of n logits whose bit in `allowed` is not set -infinity; the bit of logit i is the
// i-th, or that of `ids[i]` where there are ids.
extern "C" void mtp_restrict(float * logits, int32_t n, const uint32_t * allowed,
                             const int32_t * ids) {
    const auto restrict_to = [&](int32_t i, int32_t bit) {
        if (!(allowed[bit / 32] >> (bit % 32) & 1)) logits[i] = -INFINITY;
    };
    if (ids) {
        for (int32_t i = 0; i < n; i++) restrict_to(i, ids[i]);
        return;
    }
    int32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const uint32_t word = allowed[i / 32];
        if (word == 0) std::fill(logits + i, logits + i + 32, -INFINITY);
        else if (word != UINT32_MAX)
            for (int32_t j = i; j < i + 32; j++) restrict_to(j, j);
    }
    for (; i < n; i++) restrict_to(i, i);
}
