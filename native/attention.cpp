// Phase 2 of a layer: queries, keys and values with their norms and rotary positions, the KV cache,
// and attention.
#include <algorithm>
#include <cstring>

#include "forward.h"

namespace fw {
namespace {

constexpr int64_t max_queries = 4;  // of one call of the kernel

// Where the keys or the values of one layer and one key-value head begin in a token's KV cache.
uint8_t *cache_of_head(const fw_model &m, void *cache, const fw_row &token, int64_t layer,
                       int64_t kv_head) {
    const int64_t numbers =
        (layer * m.description.num_kv_heads + kv_head) * token.capacity * m.head_width;
    return static_cast<uint8_t *>(cache) + numbers * (m.cache_type == CacheType::fp16 ? 2 : 4);
}

}  // namespace

// The product of `w` of a token. Where `w` is absent its rows follow those of the matrix before,
// which end at `previous_end`.
float *ForwardThread::read_product(const Matrix &w, const ActivationBuffer &input,
                                   const ProductBuffer &product, int64_t token,
                                   float *previous_end) {
    if (w.kind == FW_NONE) return previous_end;
    float *row = buffers_.product.get();
    products_.read(w, input, product, pass_.count, token, row);
    return row;
}

// Copies the heads in `row` into padded ones, and applies the norm (if not null) and the rotary
// positions (if not null).
void ForwardThread::finish_heads(float *row, const float *norm, const float *angles,
                                 int64_t num_heads, float *out) {
    const int64_t width = d_.head_width, half_rotary_width = d_.rotary_width / 2;
    if (norm && d_.joint_head_norms) k_.rms_norm(row, norm, num_heads * width, d_.epsilon, row);
    for (int64_t h = 0; h < num_heads; ++h) {
        float *head = out + h * m_.head_width;
        std::memcpy(head, row + h * width, sizeof(float) * static_cast<size_t>(width));
        for (int64_t i = width; i < m_.head_width; ++i) head[i] = 0.0f;
    }
    if (norm && !d_.joint_head_norms)
        for (int64_t h = 0; h < num_heads; ++h) {
            float *head = out + h * m_.head_width;
            k_.rms_norm(head, norm, width, d_.epsilon, head);
        }
    if (angles)
        k_.apply_rope(out, num_heads, m_.head_width, angles, angles + half_rotary_width,
                      half_rotary_width);
}

void ForwardThread::finish_queries_keys_values(const Layer &layer, const SharedInput<3> &input,
                                               int64_t token) {
    const ActivationBuffer *inputs = tokens_.shared_inputs;
    const int64_t q = d_.num_heads * d_.head_width, kv = d_.num_kv_heads * d_.head_width;
    const float *angles =
        m_.angles[static_cast<size_t>(layer.rope)].get() + token * d_.rotary_width;
    float *queries = tokens_.queries.get() + token * m_.query_width;
    float *row =
        read_product(layer.query, inputs[input.buffer_of[0]], m_.products.query, token, nullptr);
    finish_heads(row, layer.query_norm, angles, d_.num_heads, queries);
    for (int64_t i = 0; i < m_.query_width; ++i) queries[i] *= d_.attention_scale;
    row = read_product(layer.key, inputs[input.buffer_of[1]], m_.products.key, token, row + q);
    finish_heads(row, layer.key_norm, angles, d_.num_kv_heads, buffers_.keys.get());
    row = read_product(layer.value, inputs[input.buffer_of[2]], m_.products.value, token, row + kv);
    finish_heads(row, nullptr, nullptr, d_.num_kv_heads, buffers_.values.get());
}

void ForwardThread::store_keys_values(int64_t layer_index, int64_t token) {
    const fw_row &row = pass_.tokens[token];
    for (int64_t h = 0; h < d_.num_kv_heads; ++h) {
        // When every thread has computed all keys and values, each thread stores only some heads:
        // those that it will mostly read itself.
        if (pass_.replicated && h * num_threads_ / d_.num_kv_heads != index_) continue;
        k_.store_kv(buffers_.keys.get() + h * m_.head_width,
                    buffers_.values.get() + h * m_.head_width, m_.head_width, row.position,
                    m_.cache_type, cache_of_head(m_, row.keys, row, layer_index, h),
                    cache_of_head(m_, row.values, row, layer_index, h));
    }
}

// The number of consecutive tokens from `token` on that belong to the same sequence and therefore
// read the same keys; at most max_queries.
int64_t ForwardThread::num_adjacent_tokens(int64_t token) const {
    const fw_row *tokens = pass_.tokens;
    int64_t n = 1;
    while (n < max_queries && token + n < pass_.count &&
           tokens[token + n].keys == tokens[token].keys)
        ++n;
    return n;
}

// A tile is a group of adjacent tokens of one sequence. The (tile, head) pairs are divided evenly
// among the threads.
void ForwardThread::attend_all(int64_t layer_index, const Layer &layer) {
    const int64_t heads_per_kv = d_.num_heads / d_.num_kv_heads;
    int64_t num_tiles = 0;
    for (int64_t token = 0; token < pass_.count; token += num_adjacent_tokens(token)) ++num_tiles;
    const Span pairs = even_part(num_tiles * d_.num_heads, index_, num_threads_);
    int64_t tile = 0;
    for (int64_t token = 0; token < pass_.count; ++tile) {
        const int64_t num_tokens = num_adjacent_tokens(token);
        const int64_t begin = std::max<int64_t>(pairs.begin - tile * d_.num_heads, 0);
        const int64_t end = std::min(pairs.end - tile * d_.num_heads, d_.num_heads);
        for (int64_t head = begin, num_heads; head < end; head += num_heads) {
            // Up to four heads of one token that use the same key-value head are computed together.
            num_heads =
                num_tokens > 1
                    ? 1
                    : std::min({end - head, heads_per_kv - head % heads_per_kv, max_queries});
            attend_tile(layer_index, layer, token, num_tokens, head, num_heads);
        }
        token += num_tokens;
    }
}

// Attention of several tokens with one head, or of one token with several heads.
void ForwardThread::attend_tile(int64_t layer_index, const Layer &layer, int64_t token,
                                int64_t num_tokens, int64_t head, int64_t num_heads) {
    const fw_row &row = pass_.tokens[token];
    const int64_t kv_head = head / (d_.num_heads / d_.num_kv_heads), end = row.position + 1;
    Attention a = {};
    a.queries = tokens_.queries.get() + token * m_.query_width + head * m_.head_width;
    a.query_stride = num_tokens > 1 ? m_.query_width : m_.head_width;
    a.keys = cache_of_head(m_, row.keys, row, layer_index, kv_head);
    a.values = cache_of_head(m_, row.values, row, layer_index, kv_head);
    a.head_width = m_.head_width;
    a.begin = layer.window > 0 && end > layer.window ? end - layer.window : 0;
    a.end = end;
    a.causal_step = num_tokens > 1;
    a.window = layer.window;
    a.softcap = d_.attention_softcap;
    a.score_stride = round_up(end + max_queries, 16) + 16;
    a.scores = static_cast<float *>(scratch(a.score_stride * num_tokens * num_heads * 4));
    if (!a.scores) {
        pass_.out_of_memory = true;
        return;
    }
    a.out = m_.attention_out.get() + token * m_.query_width + head * m_.head_width;
    a.out_stride = a.query_stride;
    a.cache_type = m_.cache_type;
    k_.attend(a, num_tokens * num_heads);
}

}  // namespace fw
