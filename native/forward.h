// A forward pass: one call that runs some tokens through the whole model, on several threads.
//
// A layer has five phases with a barrier after each. One more barrier separates writing keys from
// reading them:
//
//     1  norm, rotate, round | query, key and value products
//     2  rotary positions, KV cache | attention, head by head
//     3  rotate, round | output product
//     4  residual, norm, rotate, round | gate and up products
//     5  gate times up, rotate, round | down product
//
// The work to the left of a bar is vector work. With one or two tokens every thread computes all of
// it (`replicated`), which is faster than waiting for the other threads. With more tokens the
// threads divide it, and a barrier separates it from the product that reads its result.
//
// forward.cpp has the phases, attention.cpp phase 2, products.cpp the products.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "model.h"
#include "pool.h"

namespace fw {

// The data that all threads of a call share.
struct ForwardPass {
    fw_model &model;
    const fw_row *tokens;
    int64_t count;
    bool replicated;
    std::vector<int64_t> logit_tokens = {};  // tokens whose logits are requested
    Barrier barrier = {};
    std::atomic<bool> out_of_memory{false};
    int num_threads = 0;  // of this call
};

// Matrices that multiply the same vector, and for each the index of its activation buffer. Matrices
// with the same input rotation use the same buffer. An absent matrix is part of the first one.
template <int N>
struct SharedInput {
    const Matrix *matrices[N];
    int buffer_of[N];
};

// One thread of a forward pass.
class ForwardThread {
public:
    ForwardThread(ForwardPass &pass, int index, int num_threads);
    void run();

private:
    // forward.cpp
    void compute_angles();
    void embed(int64_t token);
    void add_to_residual(const Matrix &w, const ActivationBuffer &input,
                         const ProductBuffer &product, const float *post_norm, int64_t token);
    void finish_layer(const Layer &layer, int64_t token);
    const float *normalize_residual(const float *norm, int64_t token);
    template <int N>
    void prepare_shared(const SharedInput<N> &input, const float *x, int64_t token);
    void prepare_single(const Matrix &w, const float *x, int64_t token);
    void multiply(const Matrix &w, const ActivationBuffer &input, int64_t num_tokens,
                  ProductBuffer &out);
    void wait_for_all();
    void wait_for_vector_work();
    void run_layer(int64_t index);
    void project_queries_keys_values(int64_t index, const SharedInput<3> &input);
    void project_attention(const Layer &layer);
    void project_gate_up(const Layer &layer, const SharedInput<2> &input);
    void read_gate_up(const Layer &layer, const SharedInput<2> &input, int64_t token, float *gate,
                      float *up);
    void project_down(const Layer &layer, const SharedInput<2> &input);
    void compute_logits();
    void prepare_logits(int64_t begin, int64_t count);
    void write_logits(int64_t begin, int64_t count);

    // attention.cpp
    float *read_product(const Matrix &w, const ActivationBuffer &input,
                        const ProductBuffer &product, int64_t token, float *previous_end);
    void finish_heads(float *row, const float *norm, const float *angles, int64_t num_heads,
                      float *out);
    void finish_queries_keys_values(const Layer &layer, const SharedInput<3> &input, int64_t token);
    void store_keys_values(int64_t layer_index, int64_t token);
    int64_t num_adjacent_tokens(int64_t token) const;
    void attend_all(int64_t layer_index, const Layer &layer);
    void attend_tile(int64_t layer_index, const Layer &layer, int64_t token, int64_t num_tokens,
                     int64_t head, int64_t num_heads);

    float *residual(int64_t token) const { return tokens_.residual.get() + token * m_.hidden; }

    ForwardPass &pass_;
    fw_model &m_;
    const fw_description &d_;
    const Kernels &k_;
    const int index_, num_threads_;
    ThreadBuffers &buffers_;
    TokenBuffers &tokens_;
    const Span vector_tokens_;  // the tokens whose vector work this thread computes
    ProductWorker products_;
    PhaseTimer timer_;
};

}  // namespace fw
