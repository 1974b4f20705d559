// The working memory of a model's calls: its sizes follow from the model's matrices.
#include <algorithm>

#include "model.h"

namespace fw {
namespace {

constexpr Matrix Layer::*layer_matrices[] = {&Layer::query, &Layer::key, &Layer::value, &Layer::out,
                                             &Layer::gate,  &Layer::up,  &Layer::down};
constexpr ProductBuffer LayerProducts::*layer_products[] = {
    &LayerProducts::query, &LayerProducts::key, &LayerProducts::value, &LayerProducts::out,
    &LayerProducts::gate,  &LayerProducts::up,  &LayerProducts::down};

// The largest sizes among some matrices.
struct Sizes {
    int64_t rows = 64, columns = 64, decoded_floats = 0;

    void include(const Matrix &w) {
        if (w.kind == FW_NONE) return;
        rows = std::max(rows, round_up(w.rows, trellis_block_rows));
        columns = std::max(columns, round_up(w.columns, vector_padding));
        decoded_floats = std::max(decoded_floats, 16 * w.padded_columns + w.scratch_floats() + 64);
    }
};

TokenBuffers token_buffers(const fw_model &m, int64_t max_tokens, int64_t columns) {
    TokenBuffers buffers;
    buffers.residual = Array<float>(max_tokens * m.hidden);
    buffers.queries = Array<float>(max_tokens * m.query_width);
    for (ActivationBuffer &input : buffers.shared_inputs)
        input = ActivationBuffer(max_tokens, columns);
    buffers.single_input = ActivationBuffer(max_tokens, columns);
    return buffers;
}

}  // namespace

void allocate_buffers(fw_model &m) {
    // Sizes of the layers' matrices, and those that the tables of embedding and head add.
    Sizes layer_sizes;
    for (const Layer &layer : m.layers)
        for (const auto matrix : layer_matrices) layer_sizes.include(layer.*matrix);
    Sizes sizes = layer_sizes;
    sizes.include(m.embedding);
    sizes.include(*m.output_head);
    int64_t rotation_floats = 64;
    for (const auto &rotation : m.tables.rotations)
        rotation_floats = std::max(rotation_floats, rotation->scratch_floats());
    const int64_t vector_floats = std::max({layer_sizes.rows, sizes.columns, m.query_width});

    // Each thread's.
    m.thread_buffers.resize(static_cast<size_t>(m.num_threads));
    m.thread_times.resize(static_cast<size_t>(m.num_threads));
    for (ThreadBuffers &buffers : m.thread_buffers) {
        buffers.vector = Array<float>(vector_floats);
        buffers.product = Array<float>(std::max(vector_floats, m.embedding.padded_columns));
        buffers.keys = Array<float>(m.kv_width);
        buffers.values = Array<float>(m.kv_width);
        buffers.logits =
            Array<float>(round_up(m.description.vocabulary, trellis_block_rows));
        buffers.scratch.rotation = Array<float>(rotation_floats);
        buffers.scratch.decoded = Array<float>(sizes.decoded_floats);
        buffers.scratch.second_plane = Array<float>(
            std::max(vector_floats, round_up(m.description.vocabulary, trellis_block_rows)));
        buffers.scratch.sums = Array<int32_t>(16 * trellis_block_rows);
        buffers.tokens = token_buffers(m, max_replicated_tokens, layer_sizes.columns);
    }

    // Those of all threads together.
    m.divided_shares.reset(m.num_threads);
    m.replicated_shares.reset(m.num_threads);
    m.token_buffers = token_buffers(m, m.max_tokens, layer_sizes.columns);
    m.attention_out = Array<float>(m.max_tokens * m.query_width);
    for (size_t i = 0; i < m.rope_frequencies.size(); ++i)
        m.angles.emplace_back(m.max_tokens * m.description.rotary_width);
    // All layers have the same shapes but may have different formats: a buffer has room for any of
    // them.
    for (const Layer &layer : m.layers)
        for (size_t i = 0; i < std::size(layer_matrices); ++i)
            if ((layer.*layer_matrices[i]).kind != FW_NONE)
                (m.products.*layer_products[i])
                    .make_room(layer.*layer_matrices[i], m.max_tokens, m.num_threads);
    m.head_input = ActivationBuffer(logit_batch, m.description.hidden);
    m.head_product.make_room(*m.output_head, logit_batch, m.num_threads);
}

}  // namespace fw
