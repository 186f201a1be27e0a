// The spare thread, and the products that it shares; see spare.h.
//
// Of every chunk a state says who has it, together with the product's generation: whoever is late
// finds another generation, or that the chunk was taken from it, and leaves it alone.

#include "spare.h"
#include "vectors.h"

#if defined(MTP_VECTORS) && defined(__linux__)
#include "spare_cores.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <linux/futex.h>
#include <mutex>
#include <pthread.h>

namespace spare {
namespace {

enum State : uint64_t { FREE, FIRST, HELD, READY };  // HELD and READY by the spare thread

// Memory that grows, and whose content is not kept when it does
class Memory {
public:
    bool holds(size_t n_bytes) const { return n_bytes <= n_bytes_; }
    void * data() const { return data_; }
    void grow(size_t n_bytes) {
        free(data_);
        n_bytes_ = (n_bytes + 4095) / 4096 * 4096;
        data_ = aligned_alloc(64, n_bytes_);
    }

private:
    void * data_ = nullptr;
    size_t n_bytes_ = 0;
};

// The product that is shared now. The spare thread copies it while it may change, and looks
// afterwards whether it did (a seqlock: Boehm, "Can seqlocks get along with programming language
// memory models?", 2012).
class Shared {
public:
    // Called by whoever decodes, who has it alone
    uint64_t open(const Product & product) {
        const uint64_t next = (close() | 1) + 1;
        uint64_t words[N_WORDS];
        memcpy(words, &product, sizeof(product));
        for (int i = 0; i < N_WORDS; ++i) words_[i].store(words[i], std::memory_order_relaxed);
        for (int chunk = 0; chunk < product.n_chunks; ++chunk)
            states_[chunk].store(next << 2 | FREE, std::memory_order_relaxed);
        generation_.store(next);
        return next;
    }
    // No product is shared any more; what the generation is now
    uint64_t close() {
        const uint64_t closed = (generation_.load(std::memory_order_relaxed) | 1) + 2;
        generation_.store(closed);
        std::atomic_thread_fence(std::memory_order_release);
        return closed;
    }

    // Called by the spare thread
    bool copy(uint64_t generation, Product & product) const {
        if (generation_.load() != generation) return false;
        uint64_t words[N_WORDS];
        for (int i = 0; i < N_WORDS; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        memcpy(&product, words, sizeof(product));
        return generation_.load(std::memory_order_relaxed) == generation;
    }

    bool take(int chunk, uint64_t generation, State from, State to) {
        uint64_t expected = generation << 2 | from;
        return states_[chunk].compare_exchange_strong(expected, generation << 2 | to);
    }

    uint64_t generation() const { return generation_.load(); }
    static bool is_open(uint64_t generation) { return generation % 2 == 0; }

    // Half of the generation, which a thread can sleep on
    uint32_t * word() { return (uint32_t *)&generation_; }

private:
    static constexpr int N_WORDS = sizeof(Product) / sizeof(uint64_t);
    static_assert(sizeof(Product) % sizeof(uint64_t) == 0);

    alignas(64) std::atomic<uint64_t> generation_{1};
    std::atomic<uint64_t> words_[N_WORDS];
    alignas(64) std::atomic<uint64_t> states_[MOST_CHUNKS];
};

class Thread {
public:
    void begin(int niceness) {
        const std::lock_guard<std::mutex> lock(begins_and_ends_);
        if (n_begun_++ > 0) return;
        niceness_ = niceness;
        ends_.store(false);
        runs_.store(pthread_create(&thread_, nullptr, run, this) == 0);
    }
    void end() {
        const std::lock_guard<std::mutex> lock(begins_and_ends_);
        if (--n_begun_ > 0 || !runs_.load()) return;
        runs_.store(false);
        ends_.store(true);
        settle();
        pthread_join(thread_, nullptr);
    }
    void settle() {
        while (!take_turn()) sched_yield();
        settle_in_turn();
        end_turn();
    }

    bool is_there() const { return runs_.load(std::memory_order_relaxed); }
    bool take_turn() { return !has_turn_.test_and_set(std::memory_order_acquire); }
    void end_turn() { has_turn_.clear(std::memory_order_release); }

    void * units(size_t n_bytes) { return grown(units_, n_bytes); }

    void multiply(const Product & product, float * out, size_t stride) {
        float * found = (float *)grown(found_, sizeof(float) * product.n_out * product.n_rows);
        found_at_.store(found, std::memory_order_relaxed);
        cores_.note_first();
        const uint64_t generation = shared_.open(product);
        if (sleeps_.load()) wake();
        int end = 0;
        for (; end < product.n_chunks && shared_.take(end, generation, FREE, FIRST); ++end)
            product.multiply(product, end, out, stride);
        for (int chunk = product.n_chunks - 1; chunk >= end; --chunk) {
            if (shared_.take(chunk, generation, HELD, FIRST))
                product.multiply(product, chunk, out, stride);
            else
                fetch(product, chunk, found, out, stride);
        }
    }

    int64_t n_taken() const { return n_taken_.load(std::memory_order_relaxed); }

private:
    static constexpr int64_t LOOKS_AFTER_NS = 100000;  // a thread that waits does so longer
    static constexpr int64_t SLEEPS_AFTER_NS = 1000000;  // between products pass microseconds

    // With memory that it may read or write, nothing is done before it has left it alone.
    void * grown(Memory & memory, size_t n_bytes) {
        if (!memory.holds(n_bytes)) {
            settle_in_turn();
            memory.grow(n_bytes);
        }
        return memory.data();
    }
    void settle_in_turn() {
        shared_.close();
        wake();
        while (works_.load()) sched_yield();
    }

    void fetch(const Product & product, int chunk, const float * found, float * out,
               size_t stride) {
        const int64_t from = product.first_column(chunk), to = product.first_column(chunk + 1);
        for (int row = 0; row < product.n_rows; ++row)
            memcpy(out + row * stride + from, found + row * product.n_out + from,
                   sizeof(float) * (to - from));
        n_taken_.fetch_add(1, std::memory_order_relaxed);
    }

    static void * run(void * self) {
        ((Thread *)self)->work();
        return nullptr;
    }

    void work() {
        Cores::lower_priority(niceness_);
        uint64_t seen = 0;
        int64_t worked_ns = nanoseconds(), looked_ns = worked_ns;
        bool has_given = true;  // its core, since the last product
        while (!ends_.load()) {
            const uint64_t generation = shared_.generation();
            cores_.keep_off_first();
            if (generation != seen && Shared::is_open(generation)) {
                help(seen = generation);
                worked_ns = looked_ns = nanoseconds();
                has_given = false;
                continue;
            }
            for (int i = 0; i < 20; ++i) _mm_pause();
            const int64_t now_ns = nanoseconds();
            if (now_ns - worked_ns > SLEEPS_AFTER_NS) {
                sleep(generation);
                worked_ns = looked_ns = nanoseconds();
            } else if (now_ns - looked_ns > LOOKS_AFTER_NS && !has_given) {
                has_given = cores_.give_core_to_waiting_first();
                looked_ns = nanoseconds();
            }
        }
    }

    void help(uint64_t generation) {
        Product product;
        works_.store(true);
        if (shared_.copy(generation, product)) take_chunks(product, generation);
        works_.store(false);
    }
    void take_chunks(const Product & product, uint64_t generation) {
        float * found = found_at_.load(std::memory_order_relaxed);
        for (int chunk = product.n_chunks - 1; chunk >= 0; --chunk) {
            if (!shared_.take(chunk, generation, FREE, HELD)) return;
            product.multiply(product, chunk, found, product.n_out);
            if (!shared_.take(chunk, generation, HELD, READY)) return;
            cores_.keep_off_first();
        }
    }

    void sleep(uint64_t generation) {
        sleeps_.store(true);
        if (shared_.generation() == generation && !ends_.load())
            syscall(SYS_futex, shared_.word(), FUTEX_WAIT_PRIVATE, (uint32_t)generation, nullptr);
        sleeps_.store(false);
    }
    void wake() { syscall(SYS_futex, shared_.word(), FUTEX_WAKE_PRIVATE, 1); }

    Shared shared_;
    Cores cores_;
    Memory units_, found_;
    std::atomic<float *> found_at_{nullptr};
    std::atomic<bool> runs_{false}, ends_{false}, works_{false}, sleeps_{false};
    std::atomic<int64_t> n_taken_{0};
    std::atomic_flag has_turn_ = ATOMIC_FLAG_INIT;
    std::mutex begins_and_ends_;
    int n_begun_ = 0, niceness_ = 0;
    pthread_t thread_ = {};
};

// Never destroyed: a process may exit while it runs.
Thread & thread() {
    static Thread & only = *new Thread;
    return only;
}

thread_local bool helps_this_thread = false;

}  // namespace

Turn::Turn(bool is_wanted)
    : has_thread_(is_wanted && helps_this_thread && thread().is_there() && thread().take_turn()) {}
Turn::~Turn() {
    if (has_thread_) thread().end_turn();
}
void * Turn::units(size_t n_bytes) { return thread().units(n_bytes); }
void Turn::multiply(const Product & product, float * out, size_t stride) {
    thread().multiply(product, out, stride);
}

void begin(int niceness) { thread().begin(niceness); }
void end() { thread().end(); }
void offer(bool helps) { helps_this_thread = helps; }
void settle() { thread().settle(); }
int64_t n_taken() { return thread().n_taken(); }

}  // namespace spare

#else

namespace spare {

Turn::Turn(bool) : has_thread_(false) {}
Turn::~Turn() {}
void * Turn::units(size_t) { return nullptr; }
void Turn::multiply(const Product &, float *, size_t) {}
void begin(int) {}
void end() {}
void offer(bool) {}
void settle() {}
int64_t n_taken() { return 0; }

}  // namespace spare

#endif

extern "C" void mtp_spare_begin(int niceness) { spare::begin(niceness); }
extern "C" void mtp_spare_end() { spare::end(); }
extern "C" void mtp_spare_offer(bool helps) { spare::offer(helps); }
extern "C" void mtp_spare_settle() { spare::settle(); }
extern "C" int64_t mtp_spare_taken() { return spare::n_taken(); }
