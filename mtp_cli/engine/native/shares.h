// How pieces of work are shared out among the threads of a decode.
//
// Each thread has a share of its own, of pieces that lie one after another, and takes them from
// front to back, so that what it asks for ahead of a piece is what it reads next. When it is done it
// helps others with theirs: a slower core holds them up for a piece at most, and one that is taken
// away for the piece that it was at. Knows nothing of products.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

class Shares {
public:
    // Of memory for them, wherever it begins
    static size_t bytes(int n_threads) { return sizeof(Share) * (n_threads + 1); }

    // Every thread makes one, of the same memory, and waits for the others before `each`.
    Shares(void * memory, int n_pieces, int thread, int n_threads)
        : shares_((Share *)(((uintptr_t)memory + sizeof(Share) - 1) / sizeof(Share) *
                            sizeof(Share))),
          n_pieces_(n_pieces),
          thread_(thread),
          n_threads_(n_threads) {
        shares_[thread].next.store(first_of(thread), std::memory_order_relaxed);
    }

    // run(piece), while there are any
    template <class Run>
    void each(Run run) const {
        for (int i = 0; i < n_threads_; ++i) {
            const int of = (thread_ + i) % n_threads_, end = first_of(of + 1);
            for (int piece = take(of); piece < end; piece = take(of)) run(piece);
        }
    }

private:
    struct alignas(64) Share {  // has a cache line to itself: others write to it when they help
        std::atomic<int32_t> next;
    };

    int first_of(int thread) const { return (int)((int64_t)n_pieces_ * thread / n_threads_); }
    int take(int of) const { return shares_[of].next.fetch_add(1, std::memory_order_relaxed); }

    Share * shares_;
    int n_pieces_, thread_, n_threads_;
};

}  // namespace
