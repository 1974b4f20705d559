// Arrays of zeroed memory that are aligned to cache lines, and rounding of sizes.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fw {

constexpr int64_t vector_padding = 64;  // vectors are padded to a multiple of this many numbers

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// An array of zeros that begins at a cache line. The constructor throws std::bad_alloc. Pages that
// are never written use no memory.
template <typename T>
class Array {
public:
    Array() = default;
    explicit Array(int64_t count)
        : memory_(std::calloc(static_cast<size_t>(count) * sizeof(T) + 128, 1)) {
        if (!memory_) throw std::bad_alloc();
    }
    T *get() const {
        return reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64);
    }
    explicit operator bool() const { return static_cast<bool>(memory_); }

private:
    struct Free {
        void operator()(void *p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
};

}  // namespace fw
