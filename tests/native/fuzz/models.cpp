// Hostile models, calls of models, and products of one matrix.
#include "fuzz.h"

namespace fuzz {
namespace {

// The tokens of a call, of up to three sequences, with two sets of logits and KV caches: for a
// model and for its reference.
struct Batch {
    GuardedMemory memory;
    const fw_description &description;
    int64_t count;
    fw_row *tokens;
    float *logits[2];
    std::vector<tiny::KvCache> caches[2];

    Batch(Random &r, const fw_description &d) : description(d) {
        count = 1 + r.below(r.one_in(3) ? 24 : 6);
        const int64_t capacity = 16 * (1 + r.below(3)), sequence_length = 1 + r.below(count);
        tokens = memory.allocate<fw_row>(count);
        for (float *&numbers : logits) numbers = memory.allocate<float>(count * d.vocabulary);
        for (int64_t i = 0; i < count; ++i) {
            if (i % sequence_length == 0) {
                for (auto &set : caches) set.emplace_back(memory, d, capacity);
                if (caches[0].size() > 3) break;
            }
            add_token(r, i, i % sequence_length == 0, capacity);
        }
    }

    // The same tokens with the other set of logits and caches.
    void use_reference_buffers() {
        for (int64_t i = 0; i < count; ++i) {
            if (tokens[i].logits) tokens[i].logits = logits[1] + (tokens[i].logits - logits[0]);
            for (size_t c = 0; c < caches[0].size(); ++c) {
                if (tokens[i].keys == caches[0][c].keys) tokens[i].keys = caches[1][c].keys;
                if (tokens[i].values == caches[0][c].values) tokens[i].values = caches[1][c].values;
            }
        }
    }

private:
    void add_token(Random &r, int64_t i, bool begins_sequence, int64_t capacity) {
        const tiny::KvCache &cache = caches[0].back();
        fw_row &row = tokens[i];
        row.token = static_cast<int32_t>(r.below(description.vocabulary));
        row.position = begins_sequence ? r.below(capacity) : tokens[i - 1].position + 1;
        row.capacity = cache.capacity;
        row.keys = cache.keys;
        row.values = cache.values;
        row.logits = r.one_in(2) ? logits[0] + i * description.vocabulary : nullptr;
    }
};

// Changes one field of one token; returns the number of tokens to ask for.
int64_t mutate_token(Random &r, Batch &batch) {
    fw_row &row = batch.tokens[r.below(batch.count)];
    switch (r.below(7)) {
        case 0: row.token = static_cast<int32_t>(edge_number(r, row.token)); break;
        case 1: row.position = edge_number(r, row.position); break;
        case 2: mutate_size(r, row.capacity); break;
        case 3: clear_pointer(r, row.keys); break;
        case 4: clear_pointer(r, row.values); break;
        case 5:
            row.keys = batch.tokens[0].keys;
            row.values = batch.tokens[0].values;
            break;
        default: return r.one_in(2) ? r.below(batch.count + 1) : edge_number(r, batch.count);
    }
    return batch.count;
}

void fuzz_forward(Random &r, const fw_description &d, fw_model *model, fw_model *reference) {
    Batch batch(r, d);
    int64_t count = r.one_in(3) ? mutate_token(r, batch) : batch.count;
    // A count that the model would accept but that has no tokens is the caller's mistake.
    if (count > batch.count && count <= d.max_tokens + 64) count = -1;
    const int32_t status = count_status(models, fw_forward(model, batch.tokens, count));
    if (!reference) return;
    batch.use_reference_buffers();
    if (count_status(models, fw_forward(reference, batch.tokens, count)) != status)
        fail("instruction sets disagree on a forward pass's status");
    if (status == FW_OK && !are_equal(batch.logits[0], batch.logits[1], batch.count * d.vocabulary))
        fail("a forward pass's instruction sets differ");
}

void fuzz_product(Random &r, tiny::Model &tiny) {
    fw_matrix &m =
        *tiny.matrices[static_cast<size_t>(r.below(static_cast<int64_t>(tiny.matrices.size())))];
    if (r.one_in(2)) mutate(r, m);
    int64_t count = 1 + r.below(19);
    const bool is_small = m.rows > 0 && m.columns > 0 && m.rows < 1 << 12 && m.columns < 1 << 12;
    const float *x =
        random_floats(r, tiny.memory, is_small, is_small ? count * m.columns : 0, r.one_in(8));
    float *out = tiny.memory.allocate<float>(is_small ? count * m.rows : 0);
    if (r.one_in(20)) count = r.one_in(2) ? -count : edge_number(r, 1 << 20) | 1 << 20;
    const int32_t planes = static_cast<int32_t>(r.one_in(30) ? edge_number(r, 1) : r.below(3));
    count_status(models, fw_product(&m, x, count, planes, any_isa(r), out));
}

}  // namespace

void fuzz_model(Random &r) {
    tiny::Model tiny(r.next());
    for (int64_t mutations = r.below(3); mutations; --mutations) mutate(r, tiny);
    fw_model *model = nullptr, *reference = nullptr;
    const fw_description *description = r.one_in(500) ? nullptr : &tiny.description;
    const int32_t threads = static_cast<int32_t>(1 + r.below(2) * r.below(3));
    const int32_t status =
        count_status(models, fw_model_new(description, any_isa(r), threads, &model));
    if ((status == FW_OK) != (model != nullptr)) fail("a status without its model");
    if (model) {
        count_status(models, fw_model_new(&tiny.description, "scalar", 1, &reference));
        for (int64_t calls = 2 + r.below(6); calls; --calls)
            fuzz_forward(r, tiny.description, model, reference);
    }
    fw_model_free(model);
    fw_model_free(reference);
    for (int64_t products = 1 + r.below(3); products; --products) fuzz_product(r, tiny);
}

}  // namespace fuzz
