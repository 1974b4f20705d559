// Our own threads: persistent workers that sleep on a condition variable and take units of work from one counter.
//
// torch brings its own OpenMP pool; a second one would fight it, so libgomp is never linked. Units must be independent:
// which thread runs which unit is not fixed, so results may not depend on it. A call that finds the pool busy (two
// Python threads at once) runs alone on its own thread. After fork() the child starts with a fresh pool.
#pragma once
#include <cstdint>

namespace fw {

int default_threads();

using Work = void (*)(void *context, int64_t begin, int64_t end);

// Calls work(context, begin, end) over pieces of at most `grain` of [0, count), on at most `threads` threads (<= 0:
// the default).
void parallel(int64_t count, int64_t grain, int threads, Work work, void *context);

// The same for a callable f(begin, end).
template <typename F>
void parallel_for(int64_t count, int64_t grain, int threads, F &f) {
    parallel(count, grain, threads, [](void *c, int64_t begin, int64_t end) { (*static_cast<F *>(c))(begin, end); },
             &f);
}

// Scratch memory of the calling thread, 64-byte aligned, kept for its next call; null when there is none to have.
void *scratch(int64_t bytes);

}  // namespace fw
