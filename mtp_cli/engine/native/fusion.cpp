// Rows of several layers fused into the one that a head reads:
//
//     out (M, N) = concat_i(rms_norm(rows_i) * norm_i) (M, L * N) times weights (N, L * N)
//                + rms_norm(final rows) * final norm
//
// with M rows of L layers of width N, and weights of a file's Q8_0. Where final rows are
// read, they stand behind the layers'. Knows nothing of files, drafts or Python.

#include "head_parts.h"

#include <memory>
#include <new>
#include <vector>

namespace fusion {

struct Shape {
    int32_t n_embd, n_layers, n_batch, n_threads;
    float rms_eps;
};

}  // namespace fusion

#ifdef MTP_VECTORS

namespace fusion {

using namespace head;

class Fusion {
public:
    // final_norm: null where no final row is read
    Fusion(const Shape & shape, const char * weights, const float * norm, const float * final_norm,
           const Functions & functions)
        : s(shape),
          f(functions),
          weights(functions, weights, s.n_embd * s.n_layers, s.n_embd),
          norm(norm, norm + s.n_embd * s.n_layers),
          final_norm(final_norm, final_norm ? final_norm + s.n_embd : nullptr),
          round(rounding_to(Kernel::ROW, f.type_traits)),
          width(s.n_embd * s.n_layers),
          threads(s.n_threads),
          n_threads(s.n_threads) {
        const size_t n_units = (size_t)n_blocks(width) * units_of<Kernel>(s.n_batch);
        for (Thread & thread : threads) {
            thread.rows.resize((size_t)s.n_batch * width);
            thread.units.reset(new Unit[n_units]);
        }
    }

    void fuse(const float * rows, int n, float * to) {
        given = rows, n_rows = n, out = to;
        f.parallel([](void * self) { ((Fusion *)self)->run(); }, this, n_threads, 0);
    }

    void use_threads(int n) { n_threads = std::clamp(n, 1, s.n_threads); }

private:
    struct Thread {
        std::vector<float> rows;
        std::unique_ptr<Unit[]> units;
    };

    // Every thread rounds the rows for itself: that takes less than to wait for others.
    void run() {
        const int thread = f.thread_num(), d = s.n_embd;
        Thread & own = threads[thread];
        for (int r = 0; r < n_rows; ++r)
            for (int l = 0; l < s.n_layers; ++l) {
                float * normed = &own.rows[(size_t)r * width + l * d];
                rms_norm(row(r) + l * d, norm.data() + l * d, d, s.rms_eps, normed);
            }
        Rows packed(round, own.units.get(), f.num_threads() == 1);
        packed.pack(own.rows.data(), width, n_rows);
        const Range columns = Range::of(d, Kernel::COLUMNS, thread, f.num_threads());
        packed.multiply(weights, columns, out, d);
        if (final_norm.empty()) return;
        for (int r = 0; r < n_rows; ++r)
            add_final(row(r) + width, columns, out + (size_t)r * d);
    }

    const float * row(int r) const {
        return given + (size_t)r * (width + (int)final_norm.size());
    }

    void add_final(const float * final, Range columns, float * to) const {
        const float scale = rms_scale(final, s.n_embd, s.rms_eps);
        for (int i = columns.from; i < columns.to; ++i) to[i] += final[i] * scale * final_norm[i];
    }

    const Shape s;
    const Functions f;
    const Matrix weights;
    const std::vector<float> norm, final_norm;
    const Rounding round;
    const int width;
    // Of the rows under way
    const float * given = nullptr;
    float * out = nullptr;
    int n_rows = 0;
    std::vector<Thread> threads;
    int n_threads;  // of the rows to come
};

}  // namespace fusion

// final_norm: null where no final row is read
extern "C" void * mtp_fusion_open(const fusion::Shape * shape, const char * weights,
                                  const float * norm, const float * final_norm,
                                  const head::Functions * functions) {
    return new (std::nothrow) fusion::Fusion(*shape, weights, norm, final_norm, *functions);
}
extern "C" void mtp_fusion_close(void * fusion) {
    spare::settle();
    delete (fusion::Fusion *)fusion;
}
// rows: (n, n_layers * n_embd), with final rows (n, (n_layers + 1) * n_embd); at most n_batch.
// out: (n, n_embd)
extern "C" void mtp_fusion_rows(void * fusion, const float * rows, int n, float * out) {
    ((fusion::Fusion *)fusion)->fuse(rows, n, out);
}
extern "C" void mtp_fusion_use_threads(void * fusion, int n) {
    ((fusion::Fusion *)fusion)->use_threads(n);
}

#else

extern "C" void * mtp_fusion_open(const fusion::Shape *, const char *, const float *, const float *,
                                  const head::Functions *) {
    return nullptr;
}
extern "C" void mtp_fusion_close(void *) {}
extern "C" void mtp_fusion_rows(void *, const float *, int, float *) {}
extern "C" void mtp_fusion_use_threads(void *, int) {}

#endif
