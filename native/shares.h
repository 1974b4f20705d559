// How products are divided among threads: evenly at first, then so that all arrive at the next barrier together.
//
// Processors of one machine are not equally fast for long (other tenants, other kinds of cores), and a thread has other
// work in the same phase. Which thread makes which part of a product changes no bit of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fw {

// What one thread spent, in a call, on its parts of products and on the rest of the phases that contain them.
struct alignas(64) Spent {
    int64_t product_ns = 0, other_ns = 0;
};

class Shares {
public:
    static constexpr int64_t whole = 1 << 16;

    void resize(int threads);
    // Where the part of thread `index` begins, as a part of `whole`; index == members: where all end.
    int64_t begin(int index, int members) const {
        return members == static_cast<int>(begins_.size()) - 1 ? begins_[static_cast<size_t>(index)]
                                                               : whole * index / members;
    }
    // A step towards the division with which `spent`, of a call that was divided by this one, would have been equal.
    void learn(const Spent *spent, int members);

private:
    std::vector<double> shares_;   // of the sum of all
    std::vector<int64_t> begins_;  // one more than threads
};

}  // namespace fw
