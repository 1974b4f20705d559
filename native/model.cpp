// A model made from its description: every matrix checked, small vectors copied into padded rows, working memory cut to
// size. What it then does is in forward.cpp.
#include <algorithm>
#include <cstring>

#include "dispatch.h"
#include "model.h"

namespace fw {
namespace {

// Padded copies of small vectors, so that loops need no remainder.
const float *padded(fw_model &m, const float *from, int64_t count) {
    if (!from) return nullptr;
    m.norms.emplace_back(round_up(count, wide));
    std::memcpy(m.norms.back().get(), from, sizeof(float) * static_cast<size_t>(count));
    return m.norms.back().get();
}

struct Sizes {
    int64_t rows = 64, columns = 64, decoded = 0;
    void see(const Matrix &w) {
        rows = std::max(rows, round_up(w.rows, 256));
        columns = std::max(columns, round_up(w.columns, wide));
        decoded = std::max(decoded, 16 * w.padded_columns + w.scratch_floats() + 64);
    }
};

Output output_of(const fw_model &m, const Matrix &w, int64_t rows) {
    Output out;
    out.width = round_up(w.rows, 256);
    if (w.kind == FW_TRELLIS && w.fast) {
        out.parts = Array<int32_t>(std::max(rows, few * m.threads) * 2 * out.width);
        if (rows <= few) out.numbers = Array<float>(rows * out.width);  // the head's, once finished
    } else {
        out.numbers = Array<float>(2 * rows * out.width);
    }
    return out;
}

bool describes_no_model(const fw_description &d) {
    constexpr int64_t most = int64_t{1} << 24;
    for (int64_t n : {d.hidden, d.vocabulary, d.num_heads, d.num_key_heads, d.head_width, d.num_layers})
        if (n < 1 || n > most) return true;
    return d.num_heads % d.num_key_heads || d.head_width % 2 || d.head_width > 4096 || !d.layers || !d.final_norm ||
           d.max_rows < 1 || d.max_rows > 65536 || d.activation < 0 || d.activation > 2;
}

int32_t make_layer(fw_model &m, const fw_layer &from, Layer &l) {
    const fw_description &d = m.d;
    if (from.size != sizeof(fw_layer) || !from.attention_norm || !from.ffn_norm || !from.frequencies)
        return FW_BAD_ARGUMENT;
    const int64_t ffn = from.gate.rows, q = d.num_heads * d.head_width, kv = d.num_key_heads * d.head_width;
    const struct {
        const fw_matrix &from;
        Matrix &to;
        int64_t rows, columns;
    } all[] = {{from.query, l.query, q, d.hidden}, {from.key, l.key, kv, d.hidden}, {from.value, l.value, kv, d.hidden},
               {from.out, l.out, d.hidden, q},     {from.gate, l.gate, ffn, d.hidden}, {from.up, l.up, ffn, d.hidden},
               {from.down, l.down, d.hidden, ffn}};
    for (const auto &one : all) {
        if (one.from.rows != one.rows || one.from.columns != one.columns) return FW_BAD_ARGUMENT;
        if (int32_t status = make_matrix(one.from, d.whole_numbers != 0, m.parts, one.to)) return status;
    }
    if (m.ffn && m.ffn != ffn) return FW_BAD_ARGUMENT;
    m.ffn = ffn;
    l.attention_norm = padded(m, from.attention_norm, d.hidden);
    l.ffn_norm = padded(m, from.ffn_norm, d.hidden);
    l.after_attention_norm = padded(m, from.after_attention_norm, d.hidden);
    l.after_ffn_norm = padded(m, from.after_ffn_norm, d.hidden);
    l.query_norm = padded(m, from.query_norm, d.head_width);
    l.key_norm = padded(m, from.key_norm, d.head_width);
    l.window = from.window;
    l.rope = -1;
    for (size_t i = 0; i < m.frequencies.size(); ++i)
        if (m.frequencies[i] == from.frequencies) l.rope = static_cast<int32_t>(i);
    if (l.rope < 0) {
        l.rope = static_cast<int32_t>(m.frequencies.size());
        m.frequencies.push_back(from.frequencies);
    }
    return FW_OK;
}

Rows rows_of(const fw_model &m, int64_t count, int64_t columns) {
    Rows rows;
    rows.residual = Array<float>(count * m.padded_hidden);
    rows.queries = Array<float>(count * m.query_width);
    for (Input &input : rows.inputs) input = Input(count, columns);
    return rows;
}

void make_space(fw_model &m) {
    Sizes sizes;
    int64_t scratch = 64;
    for (const Layer &l : m.layers)
        for (const Matrix *w : {&l.query, &l.key, &l.value, &l.out, &l.gate, &l.up, &l.down}) sizes.see(*w);
    const int64_t columns = sizes.columns;
    sizes.see(m.embedding);
    const int64_t in_a_row = std::max(sizes.columns, std::max(m.query_width, columns));
    sizes.see(*m.table);
    for (const auto &rotation : m.parts.rotations) scratch = std::max(scratch, rotation->scratch_floats());
    const int64_t body_rows = [&] {
        int64_t most = 64;
        for (const Layer &l : m.layers)
            for (const Matrix *w : {&l.query, &l.key, &l.value, &l.out, &l.gate, &l.up, &l.down})
                most = std::max(most, round_up(w->rows, 256));
        return std::max(most, in_a_row);
    }();
    m.spaces.resize(static_cast<size_t>(m.threads));
    m.spent.resize(static_cast<size_t>(m.threads));
    for (Shares &shares : m.shares) shares.resize(m.threads);
    for (Space &s : m.spaces) {
        s.normed = Array<float>(body_rows);
        s.temporary = Array<float>(std::max(body_rows, m.embedding.padded_columns));
        s.low = Array<float>(std::max(body_rows, round_up(m.d.vocabulary, 256)));
        s.keys = Array<float>(m.key_width);
        s.values = Array<float>(m.key_width);
        s.scratch = Array<float>(scratch);
        s.decoded = Array<float>(sizes.decoded);
        s.sums = Array<int32_t>(16 * 256);
        s.rows = rows_of(m, repeated, columns);
    }
    m.shared = rows_of(m, m.max_rows, columns);
    m.mixed = Array<float>(m.max_rows * m.query_width);
    for (size_t i = 0; i < m.frequencies.size(); ++i) m.angles.emplace_back(m.max_rows * m.d.head_width);
    const Layer *first = &m.layers.front();
    // All layers have the same shapes, but not the same kinds: each output has room for either.
    Output *outs[] = {&m.query_out, &m.key_out, &m.value_out, &m.out_out, &m.gate_out, &m.up_out, &m.down_out};
    for (size_t i = 0; i < 7; ++i) {
        Matrix Layer::*const which[] = {&Layer::query, &Layer::key, &Layer::value, &Layer::out,
                                        &Layer::gate,  &Layer::up,  &Layer::down};
        outs[i]->width = round_up((first->*which[i]).rows, 256);
        for (const Layer &l : m.layers) {
            const Matrix &w = l.*which[i];
            if (w.kind == FW_TRELLIS && w.fast) {
                if (!outs[i]->parts)
                    outs[i]->parts = Array<int32_t>(2 * std::max(m.max_rows, few * m.threads) * outs[i]->width);
            } else if (!outs[i]->numbers) {
                outs[i]->numbers = Array<float>(2 * m.max_rows * outs[i]->width);
            }
        }
    }
    m.head_input = Input(few, m.d.hidden);
    m.head_out = output_of(m, *m.table, few);
}

int32_t build(fw_model &m, const fw_description &d) {
    m.head_width = round_up(d.head_width, 16);
    m.padded_hidden = round_up(d.hidden, wide);
    m.query_width = d.num_heads * m.head_width;
    m.key_width = d.num_key_heads * m.head_width;
    m.max_rows = std::max<int64_t>(d.max_rows, few);
    m.layers.resize(static_cast<size_t>(d.num_layers));
    for (int64_t i = 0; i < d.num_layers; ++i)
        if (int32_t status = make_layer(m, d.layers[i], m.layers[static_cast<size_t>(i)])) return status;
    m.padded_ffn = round_up(m.ffn, wide);
    if (d.embedding.rows != d.vocabulary || d.embedding.columns != d.hidden) return FW_BAD_ARGUMENT;
    if (int32_t status = make_matrix(d.embedding, d.whole_numbers != 0, m.parts, m.embedding)) return status;
    m.table = &m.embedding;
    if (d.head.kind != FW_NONE) {
        if (d.head.rows != d.vocabulary || d.head.columns != d.hidden) return FW_BAD_ARGUMENT;
        if (int32_t status = make_matrix(d.head, d.whole_numbers != 0, m.parts, m.head)) return status;
        m.table = &m.head;
    }
    m.final_norm = Array<float>(m.padded_hidden);
    std::memcpy(m.final_norm.get(), d.final_norm, sizeof(float) * static_cast<size_t>(d.hidden));
    make_space(m);
    return FW_OK;
}

}  // namespace
}  // namespace fw

int32_t fw_model_new(const fw_description *description, const char *isa, int32_t threads, fw_model **out) {
    if (!description || !out || description->size != sizeof(fw_description) || fw::describes_no_model(*description))
        return FW_BAD_ARGUMENT;
    const fw::Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    try {
        auto model = std::make_unique<fw_model>();
        model->d = *description;
        model->kernels = kernels;
        model->threads = std::min(threads > 0 ? threads : fw::default_threads(), 256);
        if (int32_t status = fw::build(*model, *description)) return status;
        *out = model.release();
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
    return FW_OK;
}

void fw_model_free(fw_model *model) { delete model; }
