// A model as the library holds it: checked matrices, layers, and the working memory of calls.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

#include "array.h"
#include "featherweight.h"
#include "kernels/kernels.h"
#include "matrix.h"
#include "products.h"
#include "thread_shares.h"

namespace fw {

// Up to so many tokens of a call, every thread repeats their vector work (norms, rotations, gates)
// instead of waiting for the others; the vector work of more tokens is divided among the threads.
constexpr int64_t max_replicated_tokens = 2;
// Tokens whose logits are computed at once.
constexpr int64_t logit_batch = max_column_split_tokens;

// `key`, `value` and `up` may be absent: see fw_layer.
struct Layer {
    Matrix query, key, value, out, gate, up, down;
    const float *attention_norm, *ffn_norm, *post_attention_norm, *post_ffn_norm;
    const float *query_norm, *key_norm;
    int64_t window;
    int32_t rope;  // which of the model's tables of angles
};

// The products of a layer; all layers use the same buffers.
struct LayerProducts {
    ProductBuffer query, key, value, out, gate, up, down;
};

// The activations of a call's tokens between two phases.
struct TokenBuffers {
    Array<float> residual;  // [tokens, padded hidden]
    Array<float> queries;   // [tokens, query width]
    // For the matrices that read one vector (query, key and value, or gate and up), a buffer for
    // each rotation.
    ActivationBuffer shared_inputs[3];
    // For `out` and for `down`. It is not one of the above, so that no thread overwrites the scales
    // with which another thread still reads a product of the phase before.
    ActivationBuffer single_input;
};

// What a thread needs while it works on one token.
struct ThreadBuffers {
    Array<float> vector, product;  // inputs and results of vector work, padded
    Array<float> keys, values;     // [kv width]
    Array<float> logits;           // [vocabulary], padded
    ProductScratch scratch;
    TokenBuffers tokens;  // of tokens whose vector work every thread repeats
};

}  // namespace fw

struct fw_model {
    fw_description description;
    const fw::Kernels *kernels;
    int num_threads;
    fw::SharedTables tables;
    std::vector<fw::Layer> layers;
    fw::Matrix embedding, head;
    const fw::Matrix *output_head = nullptr;  // `head`, or `embedding` where they share a table
    fw::Array<float> final_norm;
    std::vector<fw::Array<float>> norms;          // padded copies
    std::vector<const float *> rope_frequencies;  // of every kind of rotary positions
    fw::CacheType cache_type = fw::CacheType::float32;
    // Lengths of vectors, padded.
    int64_t head_width = 0, hidden = 0, ffn = 0, query_width = 0, kv_width = 0;
    int64_t max_tokens = 0;

    // The working memory of a call.
    std::vector<fw::ThreadBuffers> thread_buffers;
    std::vector<fw::ThreadTimes> thread_times;  // of the last call
    // How products are divided, in calls whose vector work is divided and in those where every
    // thread repeats it.
    fw::ThreadShares divided_shares, replicated_shares;
    fw::TokenBuffers token_buffers;  // of tokens whose vector work is divided
    fw::LayerProducts products;
    fw::Array<float> attention_out;  // [tokens, query width]
    // For each kind of rotary positions the cosines and sines [tokens, 2, rotary_width / 2].
    std::vector<fw::Array<float>> angles;
    fw::ActivationBuffer head_input;
    fw::ProductBuffer head_product;
    std::mutex busy;
};

namespace fw {

// Allocates the working memory of a model whose matrices are built.
void allocate_buffers(fw_model &model);

}  // namespace fw
