// A model built from its description: every matrix checked, small vectors copied into padded ones.
#include "model.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "dispatch.h"
#include "pool.h"

namespace fw {
namespace {

constexpr int max_model_threads = 256;

// A padded copy, so that loops over it need no remainder.
const float *copy_padded(fw_model &m, const float *from, int64_t count) {
    if (!from) return nullptr;
    m.norms.emplace_back(round_up(count, vector_padding));
    std::memcpy(m.norms.back().get(), from, sizeof(float) * static_cast<size_t>(count));
    return m.norms.back().get();
}

bool is_invalid(const fw_description &d) {
    constexpr int64_t max_size = int64_t{1} << 24;
    for (int64_t n :
         {d.hidden, d.vocabulary, d.num_heads, d.num_kv_heads, d.head_width, d.num_layers})
        if (n < 1 || n > max_size) return true;
    return d.num_heads % d.num_kv_heads || d.head_width % 2 || d.head_width > 4096 || !d.layers ||
           d.rotary_width < 2 || d.rotary_width % 2 || d.rotary_width > d.head_width ||
           !d.final_norm || d.max_tokens < 1 || d.max_tokens > 65536 || d.activation < 0 ||
           d.activation > 2;
}

int32_t build_layer_matrices(fw_model &m, const fw_layer &source, Layer &layer) {
    const fw_description &d = m.description;
    constexpr int64_t max_ffn = int64_t{1} << 31;
    const int64_t ffn = source.down.columns, q = d.num_heads * d.head_width,
                  kv = d.num_kv_heads * d.head_width;
    const bool has_keys = source.key.kind != FW_NONE, has_up = source.up.kind != FW_NONE;
    // The products of all layers use the same buffers.
    if (ffn < 1 || ffn > max_ffn || ffn != d.layers[0].down.columns ||
        has_keys != (source.value.kind != FW_NONE) ||
        has_keys != (d.layers[0].key.kind != FW_NONE) ||
        has_up != (d.layers[0].up.kind != FW_NONE) || (!has_keys && d.joint_head_norms))
        return FW_BAD_ARGUMENT;
    const struct {
        const fw_matrix &source;
        Matrix &matrix;
        int64_t rows, columns;
    } matrices[] = {
        {source.query, layer.query, has_keys ? q : q + 2 * kv, d.hidden},
        {source.key, layer.key, kv, d.hidden},
        {source.value, layer.value, kv, d.hidden},
        {source.out, layer.out, d.hidden, q},
        {source.gate, layer.gate, has_up ? ffn : 2 * ffn, d.hidden},
        {source.up, layer.up, ffn, d.hidden},
        {source.down, layer.down, d.hidden, ffn},
    };
    for (const auto &entry : matrices) {
        const bool may_be_absent = &entry.source == &source.key ||
                                   &entry.source == &source.value || &entry.source == &source.up;
        if (may_be_absent && entry.source.kind == FW_NONE) continue;
        if (entry.source.rows != entry.rows || entry.source.columns != entry.columns)
            return FW_BAD_ARGUMENT;
        if (int32_t status =
                build_matrix(entry.source, d.int8_activations != 0, m.tables, entry.matrix))
            return status;
    }
    return FW_OK;
}

// The index of these frequencies among those of the model, where they are added when they are new.
int32_t find_rope(fw_model &m, const float *frequencies) {
    for (size_t i = 0; i < m.rope_frequencies.size(); ++i)
        if (m.rope_frequencies[i] == frequencies) return static_cast<int32_t>(i);
    m.rope_frequencies.push_back(frequencies);
    return static_cast<int32_t>(m.rope_frequencies.size()) - 1;
}

int32_t build_layer(fw_model &m, const fw_layer &source, Layer &layer) {
    if (source.size != sizeof(fw_layer) || !source.rope_frequencies) return FW_BAD_ARGUMENT;
    if (int32_t status = build_layer_matrices(m, source, layer)) return status;
    const fw_description &d = m.description;
    layer.attention_norm = copy_padded(m, source.attention_norm, d.hidden);
    layer.ffn_norm = copy_padded(m, source.ffn_norm, d.hidden);
    layer.post_attention_norm = copy_padded(m, source.post_attention_norm, d.hidden);
    layer.post_ffn_norm = copy_padded(m, source.post_ffn_norm, d.hidden);
    const int64_t num_heads = d.joint_head_norms ? d.num_heads : 1,
                  num_kv_heads = d.joint_head_norms ? d.num_kv_heads : 1;
    layer.query_norm = copy_padded(m, source.query_norm, num_heads * d.head_width);
    layer.key_norm = copy_padded(m, source.key_norm, num_kv_heads * d.head_width);
    layer.window = source.window;
    layer.rope = find_rope(m, source.rope_frequencies);
    return FW_OK;
}

int32_t build(fw_model &m) {
    const fw_description &d = m.description;
    m.cache_type = d.fp16_cache ? CacheType::fp16 : CacheType::float32;
    m.head_width = round_up(d.head_width, 16);
    m.hidden = round_up(d.hidden, vector_padding);
    m.query_width = d.num_heads * m.head_width;
    m.kv_width = d.num_kv_heads * m.head_width;
    m.max_tokens = std::max<int64_t>(d.max_tokens, logit_batch);
    m.layers.resize(static_cast<size_t>(d.num_layers));
    for (int64_t i = 0; i < d.num_layers; ++i)
        if (int32_t status = build_layer(m, d.layers[i], m.layers[static_cast<size_t>(i)]))
            return status;
    m.ffn = round_up(d.layers[0].down.columns, vector_padding);
    if (d.embedding.rows != d.vocabulary || d.embedding.columns != d.hidden) return FW_BAD_ARGUMENT;
    if (int32_t status = build_matrix(d.embedding, d.int8_activations != 0, m.tables, m.embedding))
        return status;
    m.output_head = &m.embedding;
    if (d.head.kind != FW_NONE) {
        if (d.head.rows != d.vocabulary || d.head.columns != d.hidden) return FW_BAD_ARGUMENT;
        if (int32_t status = build_matrix(d.head, d.int8_activations != 0, m.tables, m.head))
            return status;
        m.output_head = &m.head;
    }
    m.final_norm = Array<float>(m.hidden);
    std::memcpy(m.final_norm.get(), d.final_norm, sizeof(float) * static_cast<size_t>(d.hidden));
    allocate_buffers(m);
    return FW_OK;
}

}  // namespace
}  // namespace fw

int32_t fw_model_new(const fw_description *description, const char *isa, int32_t threads,
                     fw_model **out) {
    if (!description || !out || description->size != sizeof(fw_description) ||
        fw::is_invalid(*description))
        return FW_BAD_ARGUMENT;
    const fw::Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    try {
        auto model = std::make_unique<fw_model>();
        model->description = *description;
        model->kernels = kernels;
        model->num_threads =
            std::min(threads > 0 ? threads : fw::default_threads(), fw::max_model_threads);
        if (int32_t status = fw::build(*model)) return status;
        *out = model.release();
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
    return FW_OK;
}

void fw_model_free(fw_model *model) { delete model; }
