// Tiny models run for some tokens, everything they answer printed bit by bit: two builds of the library, or two
// processors, are the same when their output is.
//
//     tokens [models] [isa] [threads]
#include <stdio.h>

#include "tiny_model.h"

int main(int argc, char **argv) {
    const int models = argc > 1 ? atoi(argv[1]) : 8, threads = argc > 3 ? atoi(argv[3]) : 1;
    const char *isa = argc > 2 ? argv[2] : "scalar";
    for (int seed = 0; seed < models; ++seed) {
        tiny::Model tiny(static_cast<uint64_t>(seed));
        tiny.d.max_rows = 20;
        fw_model *model = nullptr;
        if (int32_t status = fw_model_new(&tiny.d, isa, threads, &model)) return fprintf(stderr, "status %d\n", status), 1;
        const tiny::Cache cache(tiny.blocks, tiny.d, 32);
        float *logits = tiny.blocks.make<float>(tiny.d.vocabulary);
        int32_t token = 1;
        printf("model %d:", seed);
        // A prompt of twelve at once, then greedily one by one.
        for (int64_t position = 0; position < 24;) {
            const int64_t count = position ? 1 : 12;
            fw_row rows[12] = {};
            for (int64_t i = 0; i < count; ++i)
                rows[i] = {count > 1 ? static_cast<int32_t>((i * 5 + 1) % tiny.d.vocabulary) : token, 0, position + i,
                           cache.capacity, cache.keys, cache.values, i + 1 == count ? logits : nullptr};
            if (int32_t status = fw_forward(model, rows, count)) return fprintf(stderr, "status %d\n", status), 1;
            position += count;
            uint32_t sum = 0;
            token = 0;
            for (int32_t v = 0; v < tiny.d.vocabulary; ++v) {
                uint32_t bits;
                memcpy(&bits, logits + v, 4);
                sum = sum * 31 + bits;
                if (logits[v] > logits[token]) token = v;
            }
            printf(" %d/%08x", token, sum);
        }
        printf("\n");
        fw_model_free(model);
    }
    return 0;
}
