// The threads of the library: persistent workers, which spin for a short time after a call and then
// sleep.
//
// torch has its own OpenMP pool, with which a second one would compete, so libgomp is not linked.
// There are two ways to use the threads: `parallel_for` cuts independent work into ranges that any
// free thread takes; `run_on_threads` runs one function on several threads at the same time, so
// that they may wait for each other at a `Barrier`. Results may not depend on which thread computes
// what. A call that finds the pool busy (two Python threads at once) runs on its own thread alone.
// After fork() the child process starts with a fresh pool.
#pragma once
#include <atomic>
#include <cstdint>

namespace fw {

int default_threads();

using RangeFunction = void (*)(void *context, int64_t begin, int64_t end);

// Calls function(context, begin, end) for ranges of at most `grain` that cover [0, count).
// `threads`: at most so many, or <= 0 for the default.
void run_ranges(int64_t count, int64_t grain, int threads, RangeFunction function, void *context);

// The same for a callable f(begin, end).
template <typename F>
void parallel_for(int64_t count, int64_t grain, int threads, F &f) {
    run_ranges(
        count, grain, threads,
        [](void *context, int64_t begin, int64_t end) { (*static_cast<F *>(context))(begin, end); },
        &f);
}

using ThreadFunction = void (*)(void *context, int index, int num_threads);

// The time for which workers spin before they sleep. Spinning takes processor time from other
// programs and libraries. The longer time is sufficient for the work of Python between two tokens.
constexpr int short_spin_us = 60, token_spin_us = 250;

// Calls function(context, 0 ... n - 1, n) at the same time on n <= `threads` threads. n is smaller
// than `threads` when the system cannot create more threads, and 1 when the pool is busy.
void run_on_threads(int threads, ThreadFunction function, void *context,
                    int spin_us = short_spin_us);

// A thread that calls `wait` continues when all threads of the call have called it. A barrier can
// be used again immediately.
class Barrier {
public:
    void wait(int num_threads);

private:
    std::atomic<uint32_t> arrived_{0};
    std::atomic<uint32_t> generation_{0};
};

// Scratch memory of the calling thread, aligned to 64 bytes. The next call of this function on the
// same thread returns the same memory. Null when there is not enough memory.
void *scratch(int64_t bytes);

}  // namespace fw
