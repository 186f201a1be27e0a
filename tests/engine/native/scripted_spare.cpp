// Products that a spare thread shares as slowly as a test wants it to, compiled beside spare.cpp.

#include "spare.h"
#include "spare_cores.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace {

enum Spare : int { AT_ONCE, AT_RANDOM, LATE, NEVER };

thread_local bool is_first = false;  // the thread of the decode
std::atomic<int> spare_is{AT_ONCE}, n_entered{0}, n_inside{0};
std::atomic<bool> is_let_go{false};

void hold_up() {
    thread_local std::minstd_rand random(1);
    if (spare_is == AT_RANDOM) usleep(random() % 200);
    if (spare_is == LATE) usleep(3000);
    while (spare_is == NEVER && !is_let_go) sched_yield();
}

float number(const spare::Product & product, int row, int64_t column) {
    return ((const float *)product.weights)[column] * ((const float *)product.units)[row];
}

void multiply(const spare::Product & product, int chunk, float * out, size_t stride) {
    if (is_first) {
        while (n_entered == 0) sched_yield();  // or it might come to none
    } else {
        ++n_inside;
        ++n_entered;
        hold_up();
    }
    for (int row = 0; row < product.n_rows; ++row)
        for (int64_t i = product.first_column(chunk); i < product.first_column(chunk + 1); ++i)
            out[row * stride + i] = number(product, row, i);
    if (!is_first) --n_inside;
}

std::vector<std::vector<float>> & kept = *new std::vector<std::vector<float>>;  // weights

// How many numbers of the n-th product are wrong
int wrong_in(int n) {
    const int64_t n_out = 8 * (3 + n % 50) + n % 8;
    const int n_rows = 1 + n % 5, n_chunks = 2 + n % 9;
    const size_t stride = n_out + 3;
    std::vector<float> weights(n_out), out(stride * n_rows, -1.0f);
    for (int64_t i = 0; i < n_out; ++i) weights[i] = (float)(i + n);
    {
        spare::Turn turn(true);
        if (!turn) return -1;
        float * units = (float *)turn.units(sizeof(float) * n_rows);
        for (int row = 0; row < n_rows; ++row) units[row] = (float)(1 + row + n);
        turn.multiply({multiply, (const char *)weights.data(), units, n_out, 8, 1, n_rows, n_rows,
                       n_chunks}, out.data(), stride);
    }
    int n_wrong = 0;
    for (int row = 0; row < n_rows; ++row)
        for (int64_t i = 0; i < n_out; ++i)
            n_wrong += out[row * stride + i] != (float)(i + n) * (float)(1 + row + n);
    kept.push_back(std::move(weights));
    if (spare_is != NEVER && n % 5 == 4) {  // else it may still read them
        spare::settle();
        n_wrong += n_inside;
        kept.clear();
    }
    return n_wrong;
}

}  // namespace

// How many numbers of n products are wrong, or were still to come when `settle` had returned;
// below zero where there is no spare thread
extern "C" int scripted(int spare, int n_products) {
    is_first = true;
    spare_is = spare;
    n_entered = 0;
    is_let_go = false;
    int n_wrong = 0;
    for (int n = 0; n < n_products; ++n) n_wrong += wrong_in(n);
    is_let_go = true;
    return n_wrong;
}

extern "C" int scripted_entered() { return n_entered; }

// A first thread that stands still, and this one on another core: whether that is given away, the
// first keeps all cores that it had, and this one may have all others
extern "C" bool scripted_gives_its_core() {
    spare::Cores cores;
    std::atomic<int> id{0}, core{-1};
    std::atomic<bool> ends{false};
    std::thread first([&] {
        cores.note_first();
        core = sched_getcpu();
        id = spare::thread_id();
        while (!ends) usleep(200000);
    });
    while (id == 0) usleep(1000);
    cpu_set_t all, others, now, of_first;
    sched_getaffinity(0, sizeof(all), &all);
    others = all;
    CPU_CLR(core, &others);
    sched_setaffinity(0, sizeof(others), &others);
    bool is_given = false;
    for (int tries = 0; tries < 100 && !is_given; ++tries)
        is_given = cores.give_core_to_waiting_first();
    sched_getaffinity(0, sizeof(now), &now);
    sched_getaffinity(id, sizeof(of_first), &of_first);
    sched_setaffinity(0, sizeof(all), &all);
    ends = true;
    first.join();
    const bool may_have_others = CPU_COUNT(&now) == CPU_COUNT(&all) - 1 && CPU_ISSET(core, &now);
    return is_given && may_have_others && CPU_EQUAL(&of_first, &all);
}
