// Our own threads: persistent workers that spin a moment between calls, then sleep.
//
// torch brings its own OpenMP pool; a second one would fight it, so libgomp is never linked. Two ways to use them:
// `parallel` cuts independent units into pieces that whoever is free takes; `together` runs one function on several
// threads at once, so that they may wait for each other at a `Barrier`. Results may not depend on which thread does
// what. A call that finds the pool busy (two Python threads at once) runs alone on its own thread. After fork() the
// child starts with a fresh pool.
#pragma once
#include <atomic>
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

using Member = void (*)(void *context, int member, int members);

// Calls member(context, 0 .. members - 1, members) at once on at most `threads` threads; fewer where the machine gives
// no more or the pool is busy. Workers look for more for `patience_us` before they sleep, which others who use the same
// processors pay for.
constexpr int between_units_us = 60, between_tokens_us = 250;  // tokens: as long as Python takes from one to the next
void together(int threads, Member member, void *context, int patience_us = between_units_us);

// Waits until all members have come; may be used again at once.
class Barrier {
public:
    void wait(int members);

private:
    std::atomic<uint32_t> come_{0};
    std::atomic<uint32_t> round_{0};
};

// Scratch memory of the calling thread, 64-byte aligned, kept for its next call; null when there is none to have.
void *scratch(int64_t bytes);

}  // namespace fw
