#include "thread_shares.h"

#include <algorithm>
#include <chrono>

namespace fw {
namespace {

int64_t nanoseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

void ThreadShares::reset(int num_threads) {
    shares_.assign(static_cast<size_t>(num_threads), 1.0 / num_threads);
    begins_.resize(static_cast<size_t>(num_threads) + 1);
    for (int i = 0; i <= num_threads; ++i)
        begins_[static_cast<size_t>(i)] = total * i / num_threads;
}

// Thread i computes products at the speed v_i = share / product_ns and has other work of other_ns.
// All threads end at the same time T when sum v_i (T - other_ns) = 1.
void ThreadShares::learn(const ThreadTimes *times, int num_threads) {
    if (num_threads < 2 || static_cast<size_t>(num_threads) != shares_.size()) return;
    double speeds = 0.0, other_work = 0.0, sum = 0.0;
    for (int i = 0; i < num_threads; ++i) {
        if (times[i].product_ns <= 0) return;
        const double speed =
            shares_[static_cast<size_t>(i)] / static_cast<double>(times[i].product_ns);
        speeds += speed;
        other_work += speed * static_cast<double>(times[i].other_ns);
    }
    const double equal_share = 1.0 / num_threads, end_ns = (1.0 + other_work) / speeds;
    for (int i = 0; i < num_threads; ++i) {
        double &share = shares_[static_cast<size_t>(i)];
        const double target_ns = end_ns - static_cast<double>(times[i].other_ns);
        const double target = share / static_cast<double>(times[i].product_ns) * target_ns;
        // The share moves only a quarter of the way, and at most by a sixteenth of an equal share,
        // because a thread may have been slow in this call only.
        const double step = std::clamp((target - share) / 4, -equal_share / 16, equal_share / 16);
        share = std::clamp(share + step, equal_share / 2, equal_share * 2);
        sum += share;
    }
    double end = 0.0;
    for (int i = 0; i < num_threads; ++i) {
        shares_[static_cast<size_t>(i)] /= sum;
        end += shares_[static_cast<size_t>(i)];
        begins_[static_cast<size_t>(i) + 1] =
            i + 1 == num_threads ? total : static_cast<int64_t>(total * end);
    }
}

void PhaseTimer::enable(bool enabled) {
    enabled_ = enabled;
    if (enabled_) lap_start_ = nanoseconds();
}

void PhaseTimer::begin_product() {
    if (enabled_) phase_other_ns_ += lap();
}

void PhaseTimer::end_product() {
    if (!enabled_) return;
    times_.product_ns += lap();
    phase_has_product_ = true;
}

void PhaseTimer::end_phase() {
    if (!enabled_) return;
    phase_other_ns_ += lap();
    if (phase_has_product_) times_.other_ns += phase_other_ns_;
    phase_has_product_ = false;
    phase_other_ns_ = 0;
}

void PhaseTimer::begin_phase() {
    if (enabled_) lap_start_ = nanoseconds();
}

// The nanoseconds since the last call, or since the phase began.
int64_t PhaseTimer::lap() {
    const int64_t previous = lap_start_;
    return (lap_start_ = nanoseconds()) - previous;
}

}  // namespace fw
