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

constexpr int max_threads = 1024;
constexpr int without_limit = -1;

void pause_processor() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until condition() is true; returns false when `limit_us` microseconds have passed before.
// Without a limit, a thread that waits long yields its processor to other threads from time to
// time.
template <typename Condition>
bool spin_until(Condition condition, int limit_us) {
    for (int i = 0; i < 2000; ++i) {
        if (condition()) return true;
        pause_processor();
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(limit_us);
    for (int i = 1;; ++i) {
        if (condition()) return true;
        pause_processor();
        if (i % 64 == 0) {
            if (limit_us == without_limit)
                std::this_thread::yield();
            else if (std::chrono::steady_clock::now() > deadline)
                return false;
        }
    }
}

struct Pool {
    std::mutex busy;  // held during a call
    // The number of the call times `call_step`, plus the number of threads that take part in it.
    // Both are in one word, so that a worker that takes no part does not have to read other fields,
    // which the next call may be writing.
    std::atomic<uint64_t> call{0};
    std::atomic<int> num_running{0};
    std::atomic<int> num_sleeping{0};
    std::atomic<int> spin_us{short_spin_us};
    std::atomic<bool> caller_sleeps{false};
    ThreadFunction function = nullptr;
    void *context = nullptr;
    std::mutex mutex;
    std::condition_variable call_started, call_finished;
    int num_workers = 0;

    static constexpr uint64_t call_step = 2 * max_threads;

    void run_worker(int index) {
        uint64_t last_call = 0;
        for (;;) {
            // Wait for the next call, spinning at first.
            const auto has_started = [&] { return call.load() / call_step != last_call; };
            if (!spin_until(has_started, spin_us.load())) {
                std::unique_lock<std::mutex> lock(mutex);
                ++num_sleeping;
                call_started.wait(lock, has_started);
                --num_sleeping;
            }
            // Take part in it.
            const uint64_t word = call.load();
            last_call = word / call_step;
            const int num_threads = static_cast<int>(word % call_step);
            if (index >= num_threads) continue;
            function(context, index, num_threads);
            // The last one to finish wakes the caller.
            if (num_running.fetch_sub(1) == 1 && caller_sleeps.load()) {
                std::lock_guard<std::mutex> lock(mutex);
                call_finished.notify_one();
            }
        }
    }

    void grow(int count) {
        try {
            while (num_workers < count) {
                std::thread([this, index = num_workers + 1] { run_worker(index); }).detach();
                ++num_workers;
            }
        } catch (const std::system_error &) {
            // The system cannot create more threads. The call runs on fewer threads, which is
            // slower but gives the same results.
        }
    }

    void run(int threads, ThreadFunction called, void *called_context, int limit_us) {
        grow(threads - 1);
        const int num_threads = std::min(threads, num_workers + 1);
        // Publish the call; `call` is written last.
        function = called;
        context = called_context;
        spin_us = limit_us;
        num_running = num_threads - 1;
        call = (call.load() / call_step + 1) * call_step + static_cast<uint64_t>(num_threads);
        if (num_sleeping.load() > 0) {
            std::lock_guard<std::mutex> lock(mutex);
            call_started.notify_all();
        }
        // Take part as thread 0, then wait for the others.
        called(called_context, 0, num_threads);
        const auto has_finished = [&] { return num_running.load() == 0; };
        if (spin_until(has_finished, limit_us)) return;
        std::unique_lock<std::mutex> lock(mutex);
        caller_sleeps = true;
        call_finished.wait(lock, has_finished);
        caller_sleeps = false;
    }
};

std::atomic<Pool *> current_pool{nullptr};

// After fork() a child process has no threads of its parent, and locks that were held stay locked.
// So the child abandons the pool of its parent and creates a new one.
void forget_pool() { current_pool.store(nullptr); }

Pool *pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    Pool *existing = current_pool.load();
    if (existing) return existing;
    Pool *fresh = new (std::nothrow) Pool;
    if (current_pool.compare_exchange_strong(existing, fresh)) return fresh;
    delete fresh;
    return existing;
}

// Work that is divided into ranges. A thread takes the next range when it has finished its last
// one.
struct RangeQueue {
    RangeFunction function;
    void *context;
    int64_t count, grain;
    std::atomic<int64_t> next{0};

    static void run(void *queue_pointer, int, int) {
        RangeQueue &queue = *static_cast<RangeQueue *>(queue_pointer);
        for (;;) {
            const int64_t begin = queue.next.fetch_add(queue.grain);
            if (begin >= queue.count) return;
            queue.function(queue.context, begin, std::min(begin + queue.grain, queue.count));
        }
    }
};

struct Scratch {
    void *memory = nullptr;
    int64_t bytes = 0;
    ~Scratch() { std::free(memory); }
};

thread_local Scratch thread_scratch;

}  // namespace

int default_threads() {
    if (const char *text = std::getenv("FEATHERWEIGHT_THREADS")) {
        const int count = std::atoi(text);
        if (count > 0) return std::min(count, max_threads);
    }
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

void run_on_threads(int threads, ThreadFunction function, void *context, int spin_us) {
    if (threads <= 0) threads = default_threads();
    threads = std::min(threads, max_threads);
    Pool *shared = threads > 1 ? pool() : nullptr;
    if (shared && shared->busy.try_lock()) {
        shared->run(threads, function, context, spin_us);
        shared->busy.unlock();
    } else {
        function(context, 0, 1);
    }
}

void run_ranges(int64_t count, int64_t grain, int threads, RangeFunction function, void *context) {
    if (count <= 0) return;
    if (threads <= 0) threads = default_threads();
    const int64_t num_ranges = (count + grain - 1) / grain;
    RangeQueue queue{function, context, count, grain};
    run_on_threads(static_cast<int>(std::min<int64_t>(std::min(threads, max_threads), num_ranges)),
                   RangeQueue::run, &queue);
}

void Barrier::wait(int num_threads) {
    if (num_threads == 1) return;
    const uint32_t generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 ==
        static_cast<uint32_t>(num_threads)) {
        arrived_.store(0, std::memory_order_relaxed);
        generation_.store(generation + 1, std::memory_order_release);
        return;
    }
    spin_until([&] { return generation_.load(std::memory_order_acquire) != generation; },
               without_limit);
}

void *scratch(int64_t bytes) {
    if (bytes > thread_scratch.bytes) {
        std::free(thread_scratch.memory);
        thread_scratch.memory = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
        thread_scratch.bytes = thread_scratch.memory ? bytes : 0;
    }
    return thread_scratch.memory;
}

}  // namespace fw
