// The forward pass of a head as mtp-train makes them: one block like a target's layer, over a draft
// vocabulary. The arithmetic is that of llama.cpp's `mimo2` MTP graph (src/models/mimo2.cpp).
//
// A draft step of a small head takes llama.cpp as long for what goes on around the products as for
// the products: it builds a graph whenever the number of rows changes, and runs thirty operations
// one after another. Here a step is one parallel region with six barriers, and of all rows but the
// last only keys and values are kept. Knows nothing of files, drafts or Python.

#include "head_attention.h"
#include "head_parts.h"

#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace head {

struct Shape {
    int32_t n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab;
    int32_t n_ctx, n_batch, n_threads;
    float rms_eps, rope_base;
};

// Positions from the first one's on, n of them; keys and values (n, n_bytes / 2) in half precision
struct Cells {
    int32_t first_position, n, n_bytes;
    uint16_t *keys, *values;
};

// Matrices in Q8_0, an output's weights side by side; norms in float. All but the first are copied,
// and rounded.
struct Weights {
    const char *token_embd, *output, *eh_proj, *qkv, *attn_output, *ffn_gate, *ffn_up, *ffn_down;
    const float *enorm, *hnorm, *attn_norm, *ffn_norm, *head_norm;
};

}  // namespace head

#ifdef MTP_VECTORS

namespace head {

class Head {
public:
    Head(const Shape & shape, const Weights & weights, const Functions & functions)
        : s(shape),
          token_embd(weights.token_embd),
          eh_proj(functions, weights.eh_proj, 2 * s.n_embd, s.n_embd),
          qkv_proj(functions, weights.qkv, s.n_embd, (s.n_head + 2 * s.n_head_kv) * s.head_dim),
          attn_output(functions, weights.attn_output, s.n_head * s.head_dim, s.n_embd),
          ffn_gate(functions, weights.ffn_gate, s.n_embd, s.n_ff),
          ffn_up(functions, weights.ffn_up, s.n_embd, s.n_ff),
          ffn_down(functions, weights.ffn_down, s.n_ff, s.n_embd),
          output(functions, weights.output, s.n_embd, s.n_vocab),
          enorm(weights.enorm, weights.enorm + s.n_embd),
          hnorm(weights.hnorm, weights.hnorm + s.n_embd),
          attn_norm(weights.attn_norm, weights.attn_norm + s.n_embd),
          ffn_norm(weights.ffn_norm, weights.ffn_norm + s.n_embd),
          head_norm(weights.head_norm, weights.head_norm + s.n_embd),
          f(functions),
          round(rounding_to(Kernel::ROW, f.type_traits)),
          n_q(s.n_head * s.head_dim),
          n_kv(s.n_head_kv * s.head_dim),
          n_qkv(n_q + 2 * n_kv),
          rates(s.head_dim / 2),
          keys((size_t)s.n_ctx * n_kv),
          values(keys.size()),
          x((size_t)s.n_batch * s.n_embd),
          qkv((size_t)s.n_batch * n_qkv),
          attended(n_q),
          y(s.n_embd),
          gated(s.n_ff),
          hidden(s.n_embd),
          logits(whole_groups(s.n_vocab)),
          threads(s.n_threads),
          n_threads(s.n_threads) {
        for (int i = 0; i < s.head_dim / 2; ++i)
            rates[i] = std::pow(s.rope_base, -2.0f * i / s.head_dim);
        const int widest = std::max({2 * s.n_embd, s.n_ff, n_q});
        for (Thread & thread : threads) {
            thread.rows.resize(std::max(s.n_batch * 2 * s.n_embd, s.n_ff));
            thread.scores.resize(s.n_ctx + LANES);
            thread.turns.resize((size_t)s.n_batch * s.head_dim);
            thread.units.reset(new Unit[(size_t)n_blocks(widest) * units_of<Kernel>(s.n_batch)]);
        }
    }

    // Rows at `position` and after, behind the cells that are held; `rows` holds n of n_embd.
    void decode(const int32_t * ids, const float * rows, int n, int position) {
        take(ids, rows, n, position);
        f.parallel([](void * self) { ((Head *)self)->run(); }, this, n_threads, 0);
    }

    // The same rows' keys and values alone: the last one gives nothing.
    void keep(const int32_t * ids, const float * rows, int n, int position) {
        take(ids, rows, n, position);
        f.parallel([](void * self) { ((Head *)self)->run_keys(); }, this, n_threads, 0);
    }

    void drop_from(int position) {
        n_cells = std::min(n_cells, std::max(0, position - first_position));
    }

    void drop_before(int position) {
        const int n = std::min(n_cells, std::max(0, position - first_position));
        for (std::vector<uint16_t> * cells : {&keys, &values}) {
            uint16_t * to = cells->data();
            memmove(to, to + (size_t)n * n_kv, (size_t)(n_cells - n) * n_kv * sizeof(*to));
        }
        n_cells -= n, first_position += n;
    }

    Cells cells() {
        return {first_position, n_cells, (int)(n_kv * sizeof(keys[0])), keys.data(),
                values.data()};
    }
    void hold(int position, int n) { first_position = position, n_cells = n; }

    void use_threads(int n) { n_threads = std::clamp(n, 1, s.n_threads); }

    // n ids behind the head's own, those from `first` on by new rows of the output, the others' rows
    // stay. Embeddings others keep; without them they are not read.
    void adopt(const char * embeddings, const char * outputs, int first, int n) {
        more_embd = embeddings, n_more = n;
        output.append(outputs, s.n_vocab + first, n - first);
        logits.resize(std::max(logits.size(), (size_t)whole_groups(output.n_out())));
    }

    int room() const { return s.n_ctx - n_cells; }
    bool knows(const int32_t * ids, int n) const {
        const int n_ids = s.n_vocab + (more_embd ? n_more : 0);
        return std::all_of(ids, ids + n, [n_ids](int32_t id) { return 0 <= id && id < n_ids; });
    }
    bool ends_before(int position) const {
        return n_cells == 0 || position == first_position + n_cells;
    }
    const float * last_logits() const { return logits.data(); }
    const float * last_hidden() const { return hidden.data(); }

private:
    struct Thread {
        std::vector<float> rows, scores, turns;
        std::unique_ptr<Unit[]> units;
    };

    // Every thread rounds rows for itself: that takes less than to wait for others.
    struct Worker {
        Thread & own;
        int thread, n_threads;
        Rows packed;

        Range range(int n, int at_a_time) const {
            return Range::of(n, at_a_time, thread, n_threads);
        }
    };

    void take(const int32_t * ids, const float * rows, int n, int position) {
        if (n_cells == 0) first_position = position;
        tokens = ids, given = rows, n_rows = n, first = n_cells;
        n_cells += n;
    }

    Worker worker() {
        Thread & own = threads[f.thread_num()];
        const int n = f.num_threads();
        return {own, f.thread_num(), n, {round, own.units.get(), n == 1}};
    }

    void run_keys() {
        Worker worker = this->worker();
        read(worker);
        f.barrier();
        place(worker, s.n_head);
    }

    void run() {
        Worker worker = this->worker();
        read(worker);
        f.barrier();
        place(worker, 0);
        f.barrier();
        for (Range heads = worker.range(s.n_head, 1); heads.from < heads.to; ++heads.from)
            attend(heads.from, worker.own.scores.data());
        f.barrier();
        add_attention(worker);
        f.barrier();
        gate(worker);
        f.barrier();
        add_ffn(worker);
        f.barrier();
        score(worker);
    }

    // x: tokens and given rows, normed side by side, projected
    void read(Worker & worker) {
        const int d = s.n_embd;
        float * rows = worker.own.rows.data();
        for (int r = 0; r < n_rows; ++r) {
            float * row = rows + (size_t)r * 2 * d;
            embed(tokens[r], row);
            norm(row, enorm, row);
            norm(given + (size_t)r * d, hnorm, row + d);
        }
        worker.packed.pack(rows, 2 * d, n_rows);
        worker.packed.multiply(eh_proj, worker.range(d, Kernel::COLUMNS), x.data(), d);
    }

    // Queries, keys and values, from one head on; whole heads are one thread's, so that it can turn
    // and store them.
    void place(Worker & worker, int from) {
        const int d = s.n_embd;
        float * rows = worker.own.rows.data();
        for (int r = 0; r < n_rows; ++r) norm(&x[(size_t)r * d], attn_norm, rows + (size_t)r * d);
        worker.packed.pack(rows, d, n_rows);
        Range columns = worker.range(n_qkv - from * s.head_dim, s.head_dim);
        columns = {columns.from + from * s.head_dim, columns.to + from * s.head_dim};
        worker.packed.multiply(qkv_proj, columns, qkv.data(), n_qkv);
        turn(worker.own.turns.data());
        for (int c = columns.from; c < columns.to; c += s.head_dim)
            place(c / s.head_dim, worker.own.turns.data());
    }

    // y: the last row's attention, on top of its x
    void add_attention(Worker & worker) {
        const Range columns = worker.range(s.n_embd, Kernel::COLUMNS);
        const float * last = &x[(size_t)(n_rows - 1) * s.n_embd];
        worker.packed.pack(attended.data(), n_q, 1);
        worker.packed.multiply(attn_output, columns, y.data(), s.n_embd);
        for (int i = columns.from; i < columns.to; ++i) y[i] += last[i];
    }

    void gate(Worker & worker) {
        const Range columns = worker.range(s.n_ff, Kernel::COLUMNS);
        float * up = worker.own.rows.data();
        norm(y.data(), ffn_norm, up);
        worker.packed.pack(up, s.n_embd, 1);
        worker.packed.multiply(ffn_gate, columns, gated.data(), s.n_ff);
        worker.packed.multiply(ffn_up, columns, up, s.n_ff);
        for (int i = columns.from; i < columns.to; i += LANES)
            store(&gated[i], multiply(silu(load(&gated[i])), load(up + i)));
    }

    // hidden: the row before the head norm
    void add_ffn(Worker & worker) {
        const Range columns = worker.range(s.n_embd, Kernel::COLUMNS);
        worker.packed.pack(gated.data(), s.n_ff, 1);
        worker.packed.multiply(ffn_down, columns, hidden.data(), s.n_embd);
        for (int i = columns.from; i < columns.to; ++i) hidden[i] += y[i];
    }

    void score(Worker & worker) {
        float * row = worker.own.rows.data();
        norm(hidden.data(), head_norm, row);
        worker.packed.pack(row, s.n_embd, 1);
        const Range columns = worker.range(whole_groups(output.n_out()), Kernel::COLUMNS);
        worker.packed.multiply(output, columns, logits.data(), (int)logits.size());
    }

    // x / (1 + e^-x), with exponents up to 0 alone: others may be infinite
    static Floats silu(Floats x) {
        const Floats minus = subtract(zeros(), x);
        const Floats above = exp_of(subtract(zeros(), maximum(minus, zeros())));
        const Floats below = exp_of(subtract(zeros(), maximum(x, minus)));
        return divide(multiply(x, above), add(all(1), below));
    }

    void embed(int32_t token, float * out) const {
        const bool is_own = token < s.n_vocab;
        const auto * blocks = (const Q8_0::Block *)(is_own ? token_embd : more_embd) +
                              (size_t)(is_own ? token : token - s.n_vocab) * n_blocks(s.n_embd);
        widen(blocks, s.n_embd, out);
    }

    void norm(const float * in, const std::vector<float> & weight, float * out) const {
        rms_norm(in, weight.data(), s.n_embd, s.rms_eps, out);
    }

    // A head of every row: queries are turned where they are, keys and values go into their cells.
    void place(int h, const float * turns) {
        const int dim = s.head_dim;
        for (int r = 0; r < n_rows; ++r, turns += dim) {
            float * row = &qkv[(size_t)r * n_qkv + h * dim];
            if (h < s.n_head + s.n_head_kv) rotate(row, turns);
            if (h < s.n_head) continue;
            const int kv = h - s.n_head;
            std::vector<uint16_t> & cells = kv < s.n_head_kv ? keys : values;
            uint16_t * cell = &cells[(size_t)(first + r) * n_kv + kv % s.n_head_kv * dim];
            for (int i = 0; i < dim; ++i) cell[i] = _cvtss_sh(row[i], 0);
        }
    }

    // For each row the cosines of its turns, and the sines
    void turn(float * turns) const {
        const int half = s.head_dim / 2;
        for (int r = 0; r < n_rows; ++r, turns += 2 * half)
            for (int i = 0; i < half; ++i) {
                const float angle = (first_position + first + r) * rates[i];
                turns[i] = std::cos(angle), turns[i + half] = std::sin(angle);
            }
    }

    // RoPE, the first half of a head against the second (neox)
    void rotate(float * row, const float * turns) const {
        const int half = s.head_dim / 2;
        for (int i = 0; i < half; ++i) {
            const float c = turns[i], t = turns[i + half];
            const float left = row[i], right = row[i + half];
            row[i] = left * c - right * t;
            row[i + half] = right * c + left * t;
        }
    }

    // The last row's attention in one head: it sees every cell.
    void attend(int h, float * scores) {
        const int dim = s.head_dim, kv = h / (s.n_head / s.n_head_kv) * dim;
        head::attend(&qkv[(size_t)(n_rows - 1) * n_qkv + h * dim], dim,
                     {&keys[kv], &values[kv], n_cells, n_kv}, scores, &attended[(size_t)h * dim]);
    }

    const Shape s;
    const char * const token_embd;
    const Matrix eh_proj, qkv_proj, attn_output, ffn_gate, ffn_up, ffn_down;
    Matrix output;  // and the rows of ids that are adopted
    const std::vector<float> enorm, hnorm, attn_norm, ffn_norm, head_norm;
    const Functions f;
    const Rounding round;
    const int n_q, n_kv, n_qkv;
    std::vector<float> rates;
    std::vector<uint16_t> keys, values;  // (n_ctx, n_kv) in half precision
    int n_cells = 0, first_position = 0;
    const char * more_embd = nullptr;  // of the ids that are adopted
    int n_more = 0;
    // Of the decode under way
    const int32_t * tokens = nullptr;
    const float * given = nullptr;
    int n_rows = 0, first = 0;
    std::vector<float> x, qkv, attended, y, gated, hidden, logits;
    std::vector<Thread> threads;
    int n_threads;  // of the decodes to come
};

}  // namespace head

extern "C" void * mtp_head_open(const head::Shape * shape, const head::Weights * weights,
                                const head::Functions * functions) {
    return new (std::nothrow) head::Head(*shape, *weights, *functions);
}
// Its weights may go then.
extern "C" void mtp_head_close(void * head) {
    spare::settle();
    delete (head::Head *)head;
}

// 1 where the rows find no room, 2 where `position` does not follow the last cell held or a token
// is outside the vocabulary; else 0. `keys_alone`: nothing is given out.
extern "C" int mtp_head_decode(void * head, const int32_t * tokens, const float * hidden,
                               int n_rows, int position, bool keys_alone) {
    head::Head & h = *(head::Head *)head;
    if (n_rows > h.room()) return 1;
    if (!h.ends_before(position) || !h.knows(tokens, n_rows)) return 2;
    if (keys_alone)
        h.keep(tokens, hidden, n_rows, position);
    else
        h.decode(tokens, hidden, n_rows, position);
    return 0;
}
extern "C" void mtp_head_use_threads(void * head, int n) { ((head::Head *)head)->use_threads(n); }
// From the next decode on, n ids behind its own, of which those before `first` are known: `outputs`
// has the others'. `embeddings` has all and stays where it is; it is null for a head that is not to
// read them.
extern "C" void mtp_head_adopt(void * head, const char * embeddings, const char * outputs, int first,
                               int n) {
    spare::settle();
    ((head::Head *)head)->adopt(embeddings, outputs, first, n);
}
extern "C" void mtp_head_drop_from(void * head, int position) {
    ((head::Head *)head)->drop_from(position);
}
extern "C" void mtp_head_drop_before(void * head, int position) {
    ((head::Head *)head)->drop_before(position);
}
// Where its cells lie; and that the first n of them are held, whose keys and values were put there
extern "C" void mtp_head_cells(void * head, head::Cells * cells) {
    *cells = ((head::Head *)head)->cells();
}
extern "C" void mtp_head_hold(void * head, int first_position, int n) {
    ((head::Head *)head)->hold(first_position, n);
}
extern "C" const float * mtp_head_logits(void * head) {
    return ((head::Head *)head)->last_logits();
}
extern "C" const float * mtp_head_hidden(void * head) {
    return ((head::Head *)head)->last_hidden();
}

#else

extern "C" void * mtp_head_open(const head::Shape *, const head::Weights *,
                                const head::Functions *) {
    return nullptr;
}
extern "C" void mtp_head_close(void *) {}
extern "C" int mtp_head_decode(void *, const int32_t *, const float *, int, int, bool) {
    return 1;
}
extern "C" void mtp_head_use_threads(void *, int) {}
extern "C" void mtp_head_adopt(void *, const char *, const char *, int, int) {}
extern "C" void mtp_head_drop_from(void *, int) {}
extern "C" void mtp_head_drop_before(void *, int) {}
extern "C" void mtp_head_cells(void *, head::Cells *) {}
extern "C" void mtp_head_hold(void *, int, int) {}
extern "C" const float * mtp_head_logits(void *) { return nullptr; }
extern "C" const float * mtp_head_hidden(void *) { return nullptr; }

#endif
