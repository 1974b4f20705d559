#include "shares.h"

#include <algorithm>

namespace fw {

void Shares::resize(int threads) {
    shares_.assign(static_cast<size_t>(threads), 1.0 / threads);
    begins_.resize(static_cast<size_t>(threads) + 1);
    for (int i = 0; i <= threads; ++i) begins_[static_cast<size_t>(i)] = whole * i / threads;
}

// Thread i makes v_i = share / product_ns and has other_ns beside it; all end at T when sum v_i (T - other_ns) = 1.
void Shares::learn(const Spent *spent, int members) {
    if (members < 2 || static_cast<size_t>(members) != shares_.size()) return;
    double speeds = 0.0, others = 0.0, sum = 0.0;
    for (int i = 0; i < members; ++i) {
        if (spent[i].product_ns <= 0) return;
        const double speed = shares_[static_cast<size_t>(i)] / static_cast<double>(spent[i].product_ns);
        speeds += speed;
        others += speed * static_cast<double>(spent[i].other_ns);
    }
    const double even = 1.0 / members, end = (1.0 + others) / speeds;
    for (int i = 0; i < members; ++i) {
        double &share = shares_[static_cast<size_t>(i)];
        const double left = end - static_cast<double>(spent[i].other_ns);
        const double wanted = share / static_cast<double>(spent[i].product_ns) * left;
        // A fourth of the way, and never far at once: a thread that was interrupted is not slow.
        share = std::clamp(share + std::clamp((wanted - share) / 4, -even / 16, even / 16), even / 2, even * 2);
        sum += share;
    }
    double until = 0.0;
    for (int i = 0; i < members; ++i) {
        shares_[static_cast<size_t>(i)] /= sum;
        until += shares_[static_cast<size_t>(i)];
        begins_[static_cast<size_t>(i) + 1] = i + 1 == members ? whole : static_cast<int64_t>(whole * until);
    }
}

}  // namespace fw
