// Runs tiny models for some tokens and prints every answer bit by bit: two builds of the library,
// or two processors, are equal when their output is.
//
//     tokens [models] [isa] [threads]
#include <stdio.h>

#include "tiny_model.h"

namespace {

constexpr int64_t prompt_length = 12, length = 24;

// A number that depends on every bit of the logits; `best` becomes the token with the largest.
uint32_t hash_logits(const float *logits, int64_t vocabulary, int32_t &best) {
    uint32_t hash = 0;
    best = 0;
    for (int32_t v = 0; v < vocabulary; ++v) {
        uint32_t bits;
        memcpy(&bits, logits + v, 4);
        hash = hash * 31 + bits;
        if (logits[v] > logits[best]) best = v;
    }
    return hash;
}

// Runs a prompt in one call and then one token after the other, each the most likely. Returns a
// status.
int32_t run(tiny::Model &tiny, fw_model *model) {
    const fw_description &d = tiny.description;
    const tiny::KvCache cache(tiny.memory, d, 32);
    float *logits = tiny.memory.allocate<float>(d.vocabulary);
    int32_t token = 1;
    for (int64_t position = 0; position < length;) {
        const int64_t count = position ? 1 : prompt_length;
        fw_row tokens[prompt_length] = {};
        for (int64_t i = 0; i < count; ++i)
            tokens[i] = {count > 1 ? static_cast<int32_t>((i * 5 + 1) % d.vocabulary) : token,
                         0,
                         position + i,
                         cache.capacity,
                         cache.keys,
                         cache.values,
                         i + 1 == count ? logits : nullptr};
        if (int32_t status = fw_forward(model, tokens, count)) return status;
        position += count;
        const uint32_t hash = hash_logits(logits, d.vocabulary, token);
        printf(" %d/%08x", token, hash);
    }
    return FW_OK;
}

}  // namespace

int main(int argc, char **argv) {
    const int num_models = argc > 1 ? atoi(argv[1]) : 8, threads = argc > 3 ? atoi(argv[3]) : 1;
    const char *isa = argc > 2 ? argv[2] : "scalar";
    for (int seed = 0; seed < num_models; ++seed) {
        tiny::Model tiny(static_cast<uint64_t>(seed));
        tiny.description.max_tokens = 20;
        fw_model *model = nullptr;
        int32_t status = fw_model_new(&tiny.description, isa, threads, &model);
        if (status == FW_OK) {
            printf("model %d:", seed);
            status = run(tiny, model);
            printf("\n");
        }
        fw_model_free(model);
        if (status) return fprintf(stderr, "status %d\n", status), 1;
    }
    return 0;
}
