// How threads divide products: that their times become equal, that no work is left out, and that a
// model gives the same bits however uneven the division is.
//
//     thread_shares [isa]
#include <stdio.h>

#include "model.h"
#include "tiny_model.h"

namespace {

using fw::ThreadShares;
using fw::ThreadTimes;

int fail(const char *what) { return fprintf(stderr, "%s\n", what), 1; }

int64_t share(const ThreadShares &shares, int index, int num_threads) {
    return shares.begin(index + 1, num_threads) - shares.begin(index, num_threads);
}

bool covers_all(const ThreadShares &shares, int num_threads) {
    for (int i = 0; i < num_threads; ++i)
        if (share(shares, i, num_threads) < 0) return false;
    return shares.begin(0, num_threads) == 0 &&
           shares.begin(num_threads, num_threads) == ThreadShares::total;
}

// What threads of these speeds, with this other work, need for their present shares.
void simulate(const ThreadShares &shares, const double *speeds, const int64_t *other_ns,
              int num_threads, ThreadTimes *times) {
    for (int i = 0; i < num_threads; ++i) {
        times[i].product_ns =
            static_cast<int64_t>(static_cast<double>(share(shares, i, num_threads)) / speeds[i]);
        times[i].other_ns = other_ns[i];
    }
}

int check_learning() {
    ThreadShares shares;
    shares.reset(3);
    if (!covers_all(shares, 3) || !covers_all(shares, 2))
        return fail("an even division leaves work out");
    const double speeds[] = {1.0, 0.8, 1.1};
    const int64_t other_ns[] = {3000, 0, 1000};
    ThreadTimes times[3];
    for (int call = 0; call < 200; ++call) {
        simulate(shares, speeds, other_ns, 3, times);
        shares.learn(times, 3);
        if (!covers_all(shares, 3)) return fail("a learned division leaves work out");
    }
    simulate(shares, speeds, other_ns, 3, times);
    for (int i = 1; i < 3; ++i) {
        const int64_t difference =
            times[i].product_ns + times[i].other_ns - times[0].product_ns - times[0].other_ns;
        if (difference < -50 || difference > 50) return fail("times did not become equal");
    }
    // One call in which a thread was interrupted for long, and some without any product.
    const int64_t previous_share = share(shares, 0, 3);
    times[0].product_ns *= 1000;
    shares.learn(times, 3);
    const int64_t new_share = share(shares, 0, 3);
    if (new_share < previous_share * 9 / 10)
        return fail("one interruption changed the shares too much");
    times[1].product_ns = 0;
    shares.learn(times, 3);
    shares.learn(times, 2);
    if (share(shares, 0, 3) != new_share)
        return fail("learned from a call that was divided in another way");
    return 0;
}

// Gives thread `slow_thread` of the model the smallest share that it may have.
void make_uneven(fw_model &model, int slow_thread) {
    std::vector<ThreadTimes> times(static_cast<size_t>(model.num_threads));
    for (int call = 0; call < 200; ++call)
        for (ThreadShares *shares : {&model.divided_shares, &model.replicated_shares}) {
            for (int i = 0; i < model.num_threads; ++i)
                times[static_cast<size_t>(i)] = {i == slow_thread ? 100000 : 1000, 0};
            shares->learn(times.data(), model.num_threads);
        }
}

// The logits of three calls of 12, 1 and 2 tokens, each with an uneven division; false when a call
// fails.
bool run(tiny::Model &tiny, const char *isa, int threads, int slow_thread,
         std::vector<float> &logits) {
    const fw_description &d = tiny.description;
    fw_model *model = nullptr;
    if (fw_model_new(&d, isa, threads, &model)) return false;
    const tiny::KvCache cache(tiny.memory, d, 32);
    logits.assign(static_cast<size_t>(3 * d.vocabulary), 0.0f);
    float *next_logits = logits.data();
    int64_t position = 0;
    bool is_ok = true;
    for (int64_t count : {12, 1, 2}) {
        make_uneven(*model, slow_thread);
        fw_row tokens[12] = {};
        for (int64_t i = 0; i < count; ++i)
            tokens[i] = {static_cast<int32_t>((position * 5 + 1) % d.vocabulary),
                         0,
                         position + i,
                         cache.capacity,
                         cache.keys,
                         cache.values,
                         nullptr};
        tokens[count - 1].logits = next_logits;
        if (fw_forward(model, tokens, count)) is_ok = false;
        position += count;
        next_logits += d.vocabulary;
    }
    fw_model_free(model);
    return is_ok;
}

int check_models(const char *isa) {
    for (uint64_t seed = 0; seed < 6; ++seed) {
        tiny::Model tiny(seed);
        tiny.description.max_tokens = 20;
        std::vector<float> expected, logits;
        for (int threads : {1, 2, 3, 16})
            for (int slow_thread = 0; slow_thread < threads && slow_thread < 3; ++slow_thread) {
                if (!run(tiny, isa, threads, slow_thread, logits))
                    return fail("a model does not run");
                if (expected.empty()) expected = logits;
                if (memcmp(expected.data(), logits.data(), logits.size() * sizeof(float)))
                    return fprintf(stderr, "model %d, %d threads, slow thread %d: other logits\n",
                                   static_cast<int>(seed), threads, slow_thread),
                           1;
            }
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    return check_learning() || check_models(argc > 1 ? argv[1] : "scalar");
}
