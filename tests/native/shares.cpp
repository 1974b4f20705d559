// How threads divide products: that times become equal, that nothing is left out, and that a model answers the same
// bits however uneven its division is.
#include <stdio.h>

#include "model.h"
#include "tiny_model.h"

namespace {

using fw::Shares;
using fw::Spent;

int fail(const char *what) { return fprintf(stderr, "%s\n", what), 1; }

int64_t part(const Shares &shares, int index, int members) {
    return shares.begin(index + 1, members) - shares.begin(index, members);
}

bool covers_all(const Shares &shares, int members) {
    for (int i = 0; i < members; ++i)
        if (part(shares, i, members) < 0) return false;
    return shares.begin(0, members) == 0 && shares.begin(members, members) == Shares::whole;
}

// What threads of these speeds, with so much else to do, take for the division as it is.
void spend(const Shares &shares, const double *speeds, const int64_t *others, int members, Spent *spent) {
    for (int i = 0; i < members; ++i) {
        spent[i].product_ns = static_cast<int64_t>(static_cast<double>(part(shares, i, members)) / speeds[i]);
        spent[i].other_ns = others[i];
    }
}

int check_learning() {
    Shares shares;
    shares.resize(3);
    if (!covers_all(shares, 3) || !covers_all(shares, 2)) return fail("an even division leaves something out");
    const double speeds[] = {1.0, 0.8, 1.1};
    const int64_t others[] = {3000, 0, 1000};
    Spent spent[3];
    for (int call = 0; call < 200; ++call) {
        spend(shares, speeds, others, 3, spent);
        shares.learn(spent, 3);
        if (!covers_all(shares, 3)) return fail("a learned division leaves something out");
    }
    spend(shares, speeds, others, 3, spent);
    for (int i = 1; i < 3; ++i) {
        const int64_t apart = spent[i].product_ns + spent[i].other_ns - spent[0].product_ns - spent[0].other_ns;
        if (apart < -50 || apart > 50) return fail("times did not become equal");
    }
    // One call in which a thread was interrupted for long, and some without any product.
    const int64_t before = part(shares, 0, 3);
    spent[0].product_ns *= 1000;
    shares.learn(spent, 3);
    if (part(shares, 0, 3) < before * 9 / 10) return fail("one interruption moved too much");
    const int64_t after = part(shares, 0, 3);
    spent[1].product_ns = 0;
    shares.learn(spent, 3);
    shares.learn(spent, 2);
    if (part(shares, 0, 3) != after) return fail("learned from a call that was divided otherwise");
    return 0;
}

// Divides `model` so that thread `slow` does as little as it may.
void make_uneven(fw_model &model, int slow) {
    std::vector<Spent> spent(static_cast<size_t>(model.threads));
    for (int call = 0; call < 200; ++call)
        for (Shares &shares : model.shares) {
            for (int i = 0; i < model.threads; ++i) spent[static_cast<size_t>(i)] = {i == slow ? 100000 : 1000, 0};
            shares.learn(spent.data(), model.threads);
        }
}

int check_models(const char *isa) {
    for (uint64_t seed = 0; seed < 6; ++seed) {
        tiny::Model tiny(seed);
        tiny.d.max_rows = 20;
        std::vector<float> expected;
        for (int threads : {1, 2, 3, 16})
            for (int slow = 0; slow < threads && slow < 3; ++slow) {
                fw_model *model = nullptr;
                if (fw_model_new(&tiny.d, isa, threads, &model)) return fail("no model");
                const tiny::Cache cache(tiny.blocks, tiny.d, 32);
                std::vector<float> found(static_cast<size_t>(3 * tiny.d.vocabulary));
                int64_t position = 0;
                for (int64_t count : {12, 1, 2}) {
                    make_uneven(*model, slow);
                    fw_row rows[12] = {};
                    for (int64_t i = 0; i < count; ++i)
                        rows[i] = {static_cast<int32_t>((position * 5 + 1) % tiny.d.vocabulary), 0, position + i, cache.capacity,
                                   cache.keys, cache.values, nullptr};
                    rows[count - 1].logits = found.data() + (count == 12 ? 0 : count) * tiny.d.vocabulary;
                    if (fw_forward(model, rows, count)) return fail("a call failed");
                    position += count;
                }
                fw_model_free(model);
                if (expected.empty()) expected = found;
                if (memcmp(expected.data(), found.data(), found.size() * sizeof(float)))
                    return fprintf(stderr, "model %d, %d threads, slow %d: other logits\n", static_cast<int>(seed), threads, slow), 1;
            }
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) { return check_learning() || check_models(argc > 1 ? argv[1] : "scalar"); }
