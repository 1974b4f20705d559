#include "pool.h"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace fw {
namespace {

constexpr int most_threads = 1024;
void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr int for_ever = -1;

// Spins until `done()`, giving the processor away now and then once it takes long; false after `patience_us`.
template <typename Done>
bool spin(Done done, int patience_us) {
    for (int i = 0; i < 2000; ++i) {
        if (done()) return true;
        relax();
    }
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(patience_us);
    for (int i = 1;; ++i) {
        if (done()) return true;
        relax();
        if (i % 64 == 0) {
            if (patience_us == for_ever)
                std::this_thread::yield();
            else if (std::chrono::steady_clock::now() > until)
                return false;
        }
    }
}

struct Pool {
    std::mutex busy;  // held for the length of a call
    // Which call this is, in steps of `most_threads` * 2, plus the number of workers that belong to it. One word, so
    // that a worker that does not belong never reads what the next call is writing.
    std::atomic<uint64_t> call{0};
    std::atomic<int> running{0};
    std::atomic<int> sleeping{0};
    std::atomic<int> patience_us{between_units_us};
    std::atomic<bool> caller_sleeps{false};
    Member member = nullptr;
    void *context = nullptr;
    std::mutex mutex;
    std::condition_variable wake, finished;
    int workers = 0;

    static constexpr uint64_t one_call = 2 * most_threads;

    void worker(int index) {
        uint64_t seen = 0;
        for (;;) {
            const auto changed = [&] { return call.load() / one_call != seen; };
            if (!spin(changed, patience_us.load())) {
                std::unique_lock<std::mutex> lock(mutex);
                ++sleeping;
                wake.wait(lock, changed);
                --sleeping;
            }
            const uint64_t now = call.load();
            seen = now / one_call;
            const int members = static_cast<int>(now % one_call);
            if (index >= members) continue;
            member(context, index, members);
            if (running.fetch_sub(1) == 1 && caller_sleeps.load()) {
                std::lock_guard<std::mutex> lock(mutex);
                finished.notify_one();
            }
        }
    }

    void grow(int count) {
        try {
            while (workers < count) {
                std::thread([this, index = workers + 1] { worker(index); }).detach();
                ++workers;
            }
        } catch (const std::system_error &) {
            // The machine gives no more threads: fewer are slower, not wrong.
        }
    }

    void run(int threads, Member work, void *with, int patience) {
        grow(threads - 1);
        const int members = std::min(threads, workers + 1);
        member = work;
        context = with;
        patience_us = patience;
        running = members - 1;
        call = (call.load() / one_call + 1) * one_call + static_cast<uint64_t>(members);
        if (sleeping.load() > 0) {
            std::lock_guard<std::mutex> lock(mutex);
            wake.notify_all();
        }
        work(with, 0, members);
        const auto done = [&] { return running.load() == 0; };
        if (spin(done, patience)) return;
        std::unique_lock<std::mutex> lock(mutex);
        caller_sleeps = true;
        finished.wait(lock, done);
        caller_sleeps = false;
    }
};

std::atomic<Pool *> current{nullptr};

// The parent's threads do not exist in a child and its locks may be held for ever: leave them and start again.
void forget_pool() { current.store(nullptr); }

Pool *pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    Pool *found = current.load();
    if (found) return found;
    Pool *fresh = new (std::nothrow) Pool;
    if (current.compare_exchange_strong(found, fresh)) return fresh;
    delete fresh;
    return found;
}

struct Job {
    Work work;
    void *context;
    int64_t count, grain;
    std::atomic<int64_t> next{0};

    static void run(void *job, int, int) {
        Job &mine = *static_cast<Job *>(job);
        for (;;) {
            const int64_t begin = mine.next.fetch_add(mine.grain);
            if (begin >= mine.count) return;
            mine.work(mine.context, begin, std::min(begin + mine.grain, mine.count));
        }
    }
};

struct Scratch {
    void *memory = nullptr;
    int64_t bytes = 0;
    ~Scratch() { std::free(memory); }
};

thread_local Scratch mine;

}  // namespace

int default_threads() {
    if (const char *text = std::getenv("FEATHERWEIGHT_THREADS")) {
        const int count = std::atoi(text);
        if (count > 0) return std::min(count, most_threads);
    }
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

void together(int threads, Member member, void *context, int patience_us) {
    if (threads <= 0) threads = default_threads();
    threads = std::min(threads, most_threads);
    Pool *shared = threads > 1 ? pool() : nullptr;
    if (shared && shared->busy.try_lock()) {
        shared->run(threads, member, context, patience_us);
        shared->busy.unlock();
    } else {
        member(context, 0, 1);
    }
}

void parallel(int64_t count, int64_t grain, int threads, Work work, void *context) {
    if (count <= 0) return;
    if (threads <= 0) threads = default_threads();
    const int64_t pieces = (count + grain - 1) / grain;
    Job job{work, context, count, grain};
    together(static_cast<int>(std::min<int64_t>(std::min(threads, most_threads), pieces)), Job::run, &job);
}

void Barrier::wait(int members) {
    if (members == 1) return;
    const uint32_t round = round_.load(std::memory_order_relaxed);
    if (come_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(members)) {
        come_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    spin([&] { return round_.load(std::memory_order_acquire) != round; }, for_ever);
}

void *scratch(int64_t bytes) {
    if (bytes > mine.bytes) {
        std::free(mine.memory);
        mine.memory = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
        mine.bytes = mine.memory ? bytes : 0;
    }
    return mine.memory;
}

}  // namespace fw
