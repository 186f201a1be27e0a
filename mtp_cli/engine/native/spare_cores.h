// Which core the decode's thread has, and which the spare one: not the same. Linux alone.
//
// The scheduler moves programs from core to core. Where another program has come to the core of the
// decode's thread, so that it waits there, the spare thread has a core of its own: they swap.
#pragma once

#include <atomic>
#include <cstdint>
#include <immintrin.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace spare {

inline int64_t nanoseconds(clockid_t clock = CLOCK_MONOTONIC) {
    timespec t = {};
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

inline int thread_id() {
    static thread_local const int id = (int)syscall(SYS_gettid);
    return id;
}

class Cores {
public:
    // Called by the decode's thread
    void note_first() {
        first_core_.store(sched_getcpu(), std::memory_order_relaxed);
        first_id_.store(thread_id(), std::memory_order_relaxed);
    }

    // The others are called by the spare thread.
    static void lower_priority(int niceness) {
        setpriority(PRIO_PROCESS, thread_id(), getpriority(PRIO_PROCESS, 0) + niceness);
    }

    void keep_off_first() const {
        const int core = sched_getcpu();
        if (core != first_core_.load(std::memory_order_relaxed)) return;
        cpu_set_t all;
        if (may_run_on(first_id_.load(std::memory_order_relaxed), all)) leave(core, all);
    }

    // To be called while nothing comes of the decode's thread; whether it waited
    bool give_core_to_waiting_first() {
        const int core = sched_getcpu(), first = first_id_.load(std::memory_order_relaxed);
        cpu_set_t all, here;
        if (core == first_core_.load() || !stands_still(first)) return false;
        if (!may_run_on(first, all) || !CPU_ISSET(core, &all)) return false;
        CPU_ZERO(&here);
        CPU_SET(core, &here);
        sched_setaffinity(first, sizeof(here), &here);  // moves it, which is all that is wanted
        sched_setaffinity(first, sizeof(all), &all);
        first_core_.store(core);
        leave(core, all);
        return true;
    }

private:
    static constexpr int64_t STANDS_STILL_NS = 20000;

    // A thread's own time, by its id, as the kernel numbers clocks
    static clockid_t clock_of(int thread) { return (clockid_t)(~(unsigned)thread << 3 | 6); }

    static bool stands_still(int thread) {
        const int64_t before = nanoseconds(clock_of(thread)), start = nanoseconds();
        while (nanoseconds() - start < STANDS_STILL_NS) _mm_pause();
        return nanoseconds(clock_of(thread)) == before;
    }

    static bool may_run_on(int thread, cpu_set_t & cores) {
        return sched_getaffinity(thread, sizeof(cores), &cores) == 0;
    }

    static void leave(int core, cpu_set_t cores) {
        CPU_CLR(core, &cores);
        if (CPU_COUNT(&cores) > 0) sched_setaffinity(0, sizeof(cores), &cores);
    }

    std::atomic<int> first_core_{-1}, first_id_{0};
};

}  // namespace spare
