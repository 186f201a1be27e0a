// A second thread for products of a decode with one, where other programs leave a part of a core.
//
// A product's chunks are taken from the front by the decode's thread, and from the back by the
// spare one, which computes into memory of its own. Nobody waits for it: a chunk that it still
// holds when no other is left is computed again, and what it brings too late is not looked at. So
// it may lose its core at any moment, and the result is the same to the bit.
//
// Late, it may still read what a product was made of. Rows are packed into memory that stays, where
// they may be overwritten meanwhile; weights must stay until `settle`.
// Knows nothing of formats and of ggml. On other systems than Linux there is no spare thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace spare {

constexpr int MOST_CHUNKS = 512;

// What the spare thread was late with is computed twice: microseconds' work.
constexpr int64_t CHUNK_BYTES = 1 << 14;

// out (n_rows, n_out), and how to compute a chunk of its columns
struct Product {
    void (*multiply)(const Product & product, int chunk, float * out, size_t stride);
    const char * weights;
    const void * units;
    int64_t n_out;
    int32_t columns;  // that are computed together; a chunk is a whole number of these groups
    int32_t n_blocks, n_units, n_rows, n_chunks;
    int32_t unused = 0;

    int64_t first_column(int chunk) const {
        return chunk == n_chunks ? n_out : n_out / columns * chunk / n_chunks * columns;
    }
};

// How many chunks weights of so many bytes make; with one there is nothing to share
inline int n_chunks(int64_t n_bytes) {
    return (int)std::min<int64_t>(n_bytes / CHUNK_BYTES, MOST_CHUNKS);
}

// Products, one after another, of the decode that has the spare thread now
class Turn {
public:
    // Has none where it is not wanted, not there, not offered, or another decode has it
    explicit Turn(bool is_wanted);
    ~Turn();
    Turn(const Turn &) = delete;
    explicit operator bool() const { return has_thread_; }

    void * units(size_t n_bytes);  // for a product's rows, aligned to 64 bytes
    void multiply(const Product & product, float * out, size_t stride);

private:
    bool has_thread_;
};

// Begin to have a spare thread, and end it; it is there while more have begun than ended.
void begin(int niceness);  // above the process's own
void end();

// Whether it helps what this thread decodes from now on. It does not, unless told.
void offer(bool helps);

// From now on nothing is read of products before.
void settle();

int64_t n_taken();  // chunks that counted, of all products

}  // namespace spare
