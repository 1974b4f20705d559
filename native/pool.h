// The library's own threads: persistent workers that spin for a moment between calls and then
// sleep.
//
// torch has its own OpenMP pool and a second one would compete with it, so libgomp is never linked.
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

// How long workers spin for the next call before they sleep. Other programs and libraries that use
// the same processors pay for the spinning. The longer time covers what Python needs from one token
// to the next.
constexpr int short_spin_us = 60, token_spin_us = 250;

// Calls function(context, 0 ... n - 1, n) at the same time on n <= `threads` threads. n is smaller
// than `threads` where the machine has no more threads to give, and 1 where the pool is busy.
void run_on_threads(int threads, ThreadFunction function, void *context,
                    int spin_us = short_spin_us);

// Waits until all threads of a call have arrived; may be used again at once.
class Barrier {
public:
    void wait(int num_threads);

private:
    std::atomic<uint32_t> arrived_{0};
    std::atomic<uint32_t> generation_{0};
};

// Scratch memory of the calling thread, 64-byte aligned, reused by its next call; null when there
// is no memory.
void *scratch(int64_t bytes);

}  // namespace fw
