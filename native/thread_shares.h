// The division of products among threads: even at first, then adapted so that all threads reach the
// next barrier at the same time.
//
// The cores of a machine differ in speed (other tenants, different kinds of cores), and a thread
// has other work in the same phase. The result of a product does not depend on which thread
// computes which part.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fw {

// The time that one thread spent in a call on its shares of products, and on the other work of the
// phases that contain products.
struct alignas(64) ThreadTimes {
    int64_t product_ns = 0, other_ns = 0;
};

class ThreadShares {
public:
    static constexpr int64_t total = 1 << 16;  // the sum of all threads' shares

    void reset(int num_threads);
    // The beginning of the share of thread `index`, from 0 to `total`. For index == num_threads it
    // is the end of the last share.
    int64_t begin(int index, int num_threads) const {
        return num_threads == static_cast<int>(begins_.size()) - 1
                   ? begins_[static_cast<size_t>(index)]
                   : total * index / num_threads;
    }
    // Moves the shares towards those with which all threads would have taken the same time.
    // `times`: measured in a call that used the present shares.
    void learn(const ThreadTimes *times, int num_threads);

private:
    std::vector<double> shares_;   // they sum to 1
    std::vector<int64_t> begins_;  // one more than threads
};

// Measures the times of one thread. A disabled timer reads no clock.
class PhaseTimer {
public:
    void enable(bool enabled);
    void begin_product();
    void end_product();
    // A phase ends before the barrier that follows it, and the next phase begins after the barrier,
    // so the time at barriers is not counted.
    void end_phase();
    void begin_phase();
    const ThreadTimes &times() const { return times_; }

private:
    int64_t lap();

    ThreadTimes times_;
    bool enabled_ = false;
    bool phase_has_product_ = false;
    int64_t lap_start_ = 0;
    int64_t phase_other_ns_ = 0;  // this phase's work besides products
};

}  // namespace fw
