#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

namespace fw {
namespace {

// One of so many layers is timed, so that the cost of reading clocks does not show.
constexpr int64_t timed_layer_interval = 4;

template <int N>
SharedInput<N> share_input(const Matrix *const (&matrices)[N]) {
    SharedInput<N> input;
    int num_buffers = 0;
    for (int i = 0; i < N; ++i) {
        input.matrices[i] = matrices[matrices[i]->kind == FW_NONE ? 0 : i];
        input.buffer_of[i] = -1;
        for (int j = 0; j < i; ++j)
            if (input.matrices[j]->input == input.matrices[i]->input)
                input.buffer_of[i] = input.buffer_of[j];
        if (input.buffer_of[i] < 0) input.buffer_of[i] = num_buffers++;
    }
    return input;
}

}  // namespace

ForwardThread::ForwardThread(ForwardPass &pass, int index, int num_threads)
    : pass_(pass),
      m_(pass.model),
      d_(pass.model.description),
      k_(*pass.model.kernels),
      index_(index),
      num_threads_(num_threads),
      buffers_(m_.thread_buffers[static_cast<size_t>(index)]),
      tokens_(pass.replicated ? buffers_.tokens : m_.token_buffers),
      vector_tokens_(pass.replicated ? Span{0, pass.count}
                                     : even_part(pass.count, index, num_threads)),
      products_(k_, pass.replicated ? m_.replicated_shares : m_.divided_shares, index, num_threads,
                buffers_.scratch) {}

void ForwardThread::run() {
    compute_angles();
    wait_for_all();
    for (int64_t i = 0; i < d_.num_layers; ++i) run_layer(i);
    timer_.enable(false);
    m_.thread_times[static_cast<size_t>(index_)] = timer_.times();
    if (index_ == 0) pass_.num_threads = num_threads_;
    if (!pass_.logit_tokens.empty()) compute_logits();
}

// Cosines and sines of every token's rotary positions.
void ForwardThread::compute_angles() {
    const int64_t half_width = d_.rotary_width / 2;
    for (size_t rope = 0; rope < m_.rope_frequencies.size(); ++rope)
        for (int64_t token = index_; token < pass_.count; token += num_threads_) {
            float *cosines = m_.angles[rope].get() + token * 2 * half_width;
            for (int64_t i = 0; i < half_width; ++i) {
                // The product is rounded to float32, as the models round it; its cosine is then
                // exact.
                const double angle =
                    static_cast<float>(pass_.tokens[token].position) * m_.rope_frequencies[rope][i];
                cosines[i] = static_cast<float>(std::cos(angle)) * d_.rope_scale;
                cosines[half_width + i] = static_cast<float>(std::sin(angle)) * d_.rope_scale;
            }
        }
}

void ForwardThread::embed(int64_t token) {
    float *x = residual(token);
    float *y = buffers_.product.get();
    m_.embedding.decode_row(k_, pass_.tokens[token].token, y, buffers_.scratch.decoded.get());
    if (m_.embedding.input)
        m_.embedding.input->apply_inverse(k_, y, buffers_.scratch.rotation.get());
    for (int64_t i = 0; i < d_.hidden; ++i) x[i] = y[i] * d_.embedding_scale;
    // An earlier token that was not finite may have left such numbers in the padding; they would
    // make this one not finite.
    for (int64_t i = d_.hidden; i < m_.hidden; ++i) x[i] = 0.0f;
}

void ForwardThread::add_to_residual(const Matrix &w, const ActivationBuffer &input,
                                    const ProductBuffer &product, const float *post_norm,
                                    int64_t token) {
    float *y = buffers_.product.get();
    products_.read(w, input, product, pass_.count, token, y);
    if (post_norm) k_.rms_norm(y, post_norm, d_.hidden, d_.epsilon, y);
    if (d_.residual_scale != 1.0f)
        for (int64_t i = 0; i < d_.hidden; ++i) y[i] *= d_.residual_scale;
    k_.add(residual(token), y, m_.hidden);
}

// Adds the last product of a layer to the residual.
void ForwardThread::finish_layer(const Layer &layer, int64_t token) {
    add_to_residual(layer.down, tokens_.single_input, m_.products.down, layer.post_ffn_norm, token);
}

// The residual of a token after a norm, or as it is where `norm` is null.
const float *ForwardThread::normalize_residual(const float *norm, int64_t token) {
    if (!norm) return residual(token);
    float *x = buffers_.vector.get();
    k_.rms_norm(residual(token), norm, d_.hidden, d_.epsilon, x);
    return x;
}

// Prepares x once for each rotation among the matrices, in as many planes as one of them needs.
template <int N>
void ForwardThread::prepare_shared(const SharedInput<N> &input, const float *x, int64_t token) {
    int num_buffers = 0;
    for (int i = 0; i < N; ++i) {
        const Matrix &w = *input.matrices[i];
        if (input.buffer_of[i] != num_buffers) continue;
        int planes = 0;
        for (const Matrix *matrix : input.matrices)
            if (matrix->input == w.input) planes = std::max(planes, matrix->planes);
        products_.prepare(w.input, x, w.columns, planes, token,
                          tokens_.shared_inputs[num_buffers++]);
    }
}

void ForwardThread::prepare_single(const Matrix &w, const float *x, int64_t token) {
    products_.prepare(w.input, x, w.columns, w.planes, token, tokens_.single_input);
}

void ForwardThread::multiply(const Matrix &w, const ActivationBuffer &input, int64_t num_tokens,
                             ProductBuffer &out) {
    timer_.begin_product();
    products_.multiply(w, input, num_tokens, out);
    timer_.end_product();
}

void ForwardThread::wait_for_all() {
    timer_.end_phase();
    pass_.barrier.wait(num_threads_);
    timer_.begin_phase();
}

// Tokens that are divided among the threads must all be ready before a product reads them.
void ForwardThread::wait_for_vector_work() {
    if (!pass_.replicated) wait_for_all();
}

void ForwardThread::run_layer(int64_t index) {
    const Layer &layer = m_.layers[static_cast<size_t>(index)];
    const SharedInput<3> attention_input = share_input<3>({&layer.query, &layer.key, &layer.value});
    const SharedInput<2> ffn_input = share_input<2>({&layer.gate, &layer.up});
    timer_.enable(num_threads_ > 1 && index % timed_layer_interval == 0);

    // Phase 1: from the residual to the products of query, key and value.
    project_queries_keys_values(index, attention_input);
    wait_for_all();

    // Phase 2: keys and values into the cache; when all are there, attention.
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token) {
        finish_queries_keys_values(layer, attention_input, token);
        store_keys_values(index, token);
    }
    wait_for_all();
    attend_all(index, layer);
    wait_for_all();

    // Phase 3: the output product of attention.
    project_attention(layer);
    wait_for_all();

    // Phase 4: into the residual, and from there to the products of gate and up.
    project_gate_up(layer, ffn_input);
    wait_for_all();

    // Phase 5: the product of down. The next layer adds it to the residual.
    project_down(layer, ffn_input);
    wait_for_all();
}

void ForwardThread::project_queries_keys_values(int64_t index, const SharedInput<3> &input) {
    const Layer &layer = m_.layers[static_cast<size_t>(index)];
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token) {
        if (index == 0)
            embed(token);
        else
            finish_layer(m_.layers[static_cast<size_t>(index - 1)], token);
        prepare_shared(input, normalize_residual(layer.attention_norm, token), token);
    }
    wait_for_vector_work();
    multiply(layer.query, tokens_.shared_inputs[input.buffer_of[0]], pass_.count,
             m_.products.query);
    if (layer.key.kind == FW_NONE) return;
    multiply(layer.key, tokens_.shared_inputs[input.buffer_of[1]], pass_.count, m_.products.key);
    multiply(layer.value, tokens_.shared_inputs[input.buffer_of[2]], pass_.count,
             m_.products.value);
}

void ForwardThread::project_attention(const Layer &layer) {
    float *x = buffers_.vector.get();
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token) {
        // The heads without their padding.
        const float *heads = m_.attention_out.get() + token * m_.query_width;
        for (int64_t h = 0; h < d_.num_heads; ++h)
            std::memcpy(x + h * d_.head_width, heads + h * m_.head_width,
                        sizeof(float) * static_cast<size_t>(d_.head_width));
        prepare_single(layer.out, x, token);
    }
    wait_for_vector_work();
    multiply(layer.out, tokens_.single_input, pass_.count, m_.products.out);
}

void ForwardThread::project_gate_up(const Layer &layer, const SharedInput<2> &input) {
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token) {
        add_to_residual(layer.out, tokens_.single_input, m_.products.out, layer.post_attention_norm,
                        token);
        prepare_shared(input, normalize_residual(layer.ffn_norm, token), token);
    }
    wait_for_vector_work();
    multiply(layer.gate, tokens_.shared_inputs[input.buffer_of[0]], pass_.count, m_.products.gate);
    if (layer.up.kind == FW_NONE) return;
    multiply(layer.up, tokens_.shared_inputs[input.buffer_of[1]], pass_.count, m_.products.up);
}

// The products of gate and up of a token, padded.
void ForwardThread::read_gate_up(const Layer &layer, const SharedInput<2> &input, int64_t token,
                                 float *gate, float *up) {
    products_.read(layer.gate, tokens_.shared_inputs[input.buffer_of[0]], m_.products.gate,
                   pass_.count, token, gate);
    if (layer.up.kind != FW_NONE) {
        products_.read(layer.up, tokens_.shared_inputs[input.buffer_of[1]], m_.products.up,
                       pass_.count, token, up);
        return;
    }
    const int64_t ffn = layer.down.columns;
    std::memcpy(up, gate + ffn, sizeof(float) * static_cast<size_t>(ffn));
    for (int64_t i = ffn; i < m_.ffn; ++i) gate[i] = up[i] = 0.0f;
}

void ForwardThread::project_down(const Layer &layer, const SharedInput<2> &input) {
    float *gate = buffers_.vector.get(), *up = buffers_.product.get();
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token) {
        read_gate_up(layer, input, token, gate, up);
        k_.apply_gate(gate, up, static_cast<Activation>(d_.activation), m_.ffn, gate);
        prepare_single(layer.down, gate, token);
    }
    wait_for_vector_work();
    multiply(layer.down, tokens_.single_input, pass_.count, m_.products.down);
}

// The logits of the tokens that ask for them, a batch at a time.
void ForwardThread::compute_logits() {
    const int64_t num_tokens = static_cast<int64_t>(pass_.logit_tokens.size());
    for (int64_t token = vector_tokens_.begin; token < vector_tokens_.end; ++token)
        finish_layer(m_.layers.back(), token);
    for (int64_t begin = 0; begin < num_tokens; begin += logit_batch) {
        const int64_t count = std::min(num_tokens - begin, logit_batch);
        // All residuals must be complete, and the logits of the batch before be read from the
        // buffers.
        wait_for_all();
        prepare_logits(begin, count);
        wait_for_all();
        multiply(*m_.output_head, m_.head_input, count, m_.head_product);
        wait_for_all();
        write_logits(begin, count);
    }
}

// The inputs of the output head. Each token is prepared by one thread, which has its residual.
void ForwardThread::prepare_logits(int64_t begin, int64_t count) {
    const Matrix &head = *m_.output_head;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t token = pass_.logit_tokens[static_cast<size_t>(begin + i)];
        const bool prepares_token =
            pass_.replicated ? i % num_threads_ == index_
                             : token >= vector_tokens_.begin && token < vector_tokens_.end;
        if (!prepares_token) continue;
        float *x = buffers_.vector.get();
        k_.rms_norm(residual(token), m_.final_norm.get(), d_.hidden, d_.epsilon, x);
        products_.prepare(head.input, x, d_.hidden, head.planes, i, m_.head_input);
    }
}

// Each thread finishes its part of the vocabulary where the rows of the product are independent,
// else all of some tokens.
void ForwardThread::write_logits(int64_t begin, int64_t count) {
    const Matrix &head = *m_.output_head;
    const bool by_token = head.kind == FW_TRELLIS || head.output || head.bias;
    for (int64_t i = by_token ? index_ : 0; i < count; i += by_token ? num_threads_ : 1) {
        float *logits = pass_.tokens[pass_.logit_tokens[static_cast<size_t>(begin + i)]].logits;
        Span part = {0, d_.vocabulary};
        if (by_token) {
            float *row = buffers_.logits.get();
            products_.read(head, m_.head_input, m_.head_product, count, i, row);
            std::memcpy(logits, row, sizeof(float) * static_cast<size_t>(d_.vocabulary));
        } else {
            part = even_part(d_.vocabulary, index_, num_threads_);
            const int64_t planes = std::max(head.planes, 1), width = m_.head_product.width;
            const float *high = m_.head_product.products.get() + i * planes * width;
            const float *low = high + width;
            for (int64_t v = part.begin; v < part.end; ++v)
                logits[v] = planes == 2 ? high[v] + low[v] : high[v];
        }
        if (d_.logit_divisor != 1.0f)
            for (int64_t v = part.begin; v < part.end; ++v) logits[v] /= d_.logit_divisor;
        if (d_.final_softcap > 0.0f)
            k_.apply_softcap(logits + part.begin, d_.final_softcap, part.end - part.begin);
    }
}

namespace {

int32_t check_tokens(const fw_model &m, const fw_row *tokens, int64_t count) {
    if (!tokens || count < 1 || count > m.max_tokens) return FW_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; ++i) {
        const fw_row &t = tokens[i];
        if (t.token < 0 || t.token >= m.description.vocabulary || !t.keys || !t.values ||
            t.capacity < 16 || t.capacity % 16 || t.position < 0 || t.position >= t.capacity)
            return FW_BAD_ARGUMENT;
        // Tokens of one sequence are adjacent and in order: a second group of them would race with
        // the first.
        for (int64_t j = 0; j < i; ++j)
            if (tokens[j].keys == t.keys &&
                (tokens[i - 1].keys != t.keys || t.position != tokens[i - 1].position + 1))
                return FW_BAD_ARGUMENT;
    }
    return FW_OK;
}

}  // namespace
}  // namespace fw

int32_t fw_forward(fw_model *model, const fw_row *tokens, int64_t count) {
    if (!model) return FW_BAD_ARGUMENT;
    if (int32_t status = fw::check_tokens(*model, tokens, count)) return status;
    std::unique_lock<std::mutex> lock(model->busy, std::try_to_lock);
    if (!lock.owns_lock()) return FW_BUSY;
    try {
        fw::ForwardPass pass{*model, tokens, count, count <= fw::max_replicated_tokens};
        for (int64_t i = 0; i < count; ++i)
            if (tokens[i].logits) pass.logit_tokens.push_back(i);
        fw::run_on_threads(
            model->num_threads,
            [](void *context, int index, int num_threads) {
                fw::ForwardThread(*static_cast<fw::ForwardPass *>(context), index, num_threads)
                    .run();
            },
            &pass, fw::token_spin_us);
        fw::ThreadShares &shares =
            pass.replicated ? model->replicated_shares : model->divided_shares;
        shares.learn(model->thread_times.data(), pass.num_threads);
        return pass.out_of_memory ? FW_NO_MEMORY : FW_OK;
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
}
