#include "pool.h"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace fw {
namespace {

struct Job {
    Work work;
    void *context;
    int64_t count, grain;
    std::atomic<int64_t> next{0};

    void run() {
        for (;;) {
            const int64_t begin = next.fetch_add(grain);
            if (begin >= count) return;
            work(context, begin, std::min(begin + grain, count));
        }
    }
};

struct Pool {
    std::mutex busy;  // held for the length of a call
    std::mutex mutex;
    std::condition_variable wake, finished;
    Job *job = nullptr;
    uint64_t generation = 0;
    int workers = 0;  // started
    int wanted = 0;   // may still join the current job
    int running = 0;

    void worker() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            wake.wait(lock, [&] { return generation != seen && wanted > 0; });
            seen = generation;
            --wanted;
            ++running;
            Job *mine = job;
            lock.unlock();
            mine->run();
            lock.lock();
            if (--running == 0) finished.notify_one();
        }
    }

    void grow(int count) {
        try {
            while (workers < count) {
                std::thread([this] { worker(); }).detach();
                ++workers;
            }
        } catch (const std::system_error &) {
            // The machine gives no more threads: fewer are slower, not wrong.
        }
    }

    void run(Job &mine, int helpers) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            grow(helpers);
            job = &mine;
            ++generation;
            wanted = std::min(helpers, workers);
        }
        wake.notify_all();
        mine.run();
        std::unique_lock<std::mutex> lock(mutex);
        wanted = 0;
        finished.wait(lock, [&] { return running == 0; });
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
        if (count > 0) return std::min(count, 1024);
    }
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

void parallel(int64_t count, int64_t grain, int threads, Work work, void *context) {
    if (count <= 0) return;
    if (threads <= 0) threads = default_threads();
    const int64_t pieces = (count + grain - 1) / grain;
    threads = static_cast<int>(std::min<int64_t>(std::min(threads, 1024), pieces));
    Job job{work, context, count, grain};
    Pool *shared = threads > 1 ? pool() : nullptr;
    if (shared && shared->busy.try_lock()) {
        shared->run(job, threads - 1);
        shared->busy.unlock();
    } else {
        job.run();
    }
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
