// One native call runs some tokens through the whole model.
//
// A layer is five phases with a barrier after each, and one more barrier between writing keys and reading them:
//
//     1 norm, rotate, round; query, key, value       2 rotary positions, cache | attention, head by head
//     3 rotate, round; out; residual                 4 norm, rotate, round; gate, up     5 gate x up, rotate, round; down
//
// With one or two tokens every thread repeats the small vector work for itself instead of waiting for the others
// (`repeated`); more are divided among the threads. Products are divided by rows of the matrix, trellis codes of up to
// eight tokens (`few`) by columns too: their sums are whole numbers, so partial sums of different threads add up to the
// same bits.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "model.h"

namespace fw {
namespace {

constexpr int64_t timed_layers = 4;  // one of so many is timed: what clocks cost is then not seen

int64_t nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Run {
    fw_model &m;
    const fw_row *rows;
    int64_t count;
    Barrier barrier;
    bool alone = false;  // repeated rows: every thread does all of the vector work
    std::vector<int64_t> wanted;
    std::atomic<bool> failed{false};  // no memory for the scores
    int joined = 0;                   // threads that took part

    struct Member {
        Run &run;
        int index, members;
        Space &space;
        Rows &rows;
        Span mine;  // rows whose vector work this thread does
        Spent spent = {};
        bool timed = false, has_product = false;
        int64_t mark = 0, before = 0;  // when the last piece of work ended; what this phase did beside products

        void begin_timing(bool now) {
            timed = now;
            if (timed) mark = nanoseconds();
        }
        int64_t lap() {
            const int64_t then = mark;
            return (mark = nanoseconds()) - then;
        }
        void sync() {
            if (!timed) return run.barrier.wait(members);
            before += lap();
            if (has_product) spent.other_ns += before;
            has_product = false;
            before = 0;
            run.barrier.wait(members);
            mark = nanoseconds();
        }
        // Rows that were divided must all be there before a product reads them.
        void sync_rows() {
            if (!run.alone) sync();
        }
    };

    const Kernels &k() const { return *m.kernels; }

    void prepare(Member &t, const Rotation *rotation, const float *x, int64_t length, int64_t row, Input &in,
                 bool whole_numbers) {
        float *to = in.numbers.get() + row * in.width;
        if (rotation)
            rotation->apply(k(), x, to, t.space.scratch.get());
        else
            std::memcpy(to, x, sizeof(float) * static_cast<size_t>(length));
        std::memset(to + length, 0, sizeof(float) * static_cast<size_t>(in.width - length));
        if (!whole_numbers) return;
        const int digits = rotation ? 1 : 2;
        const int64_t at = row * digits;
        k().round(to, in.width, digits, in.natural.get() + at * in.width, in.segments.get() + at * in.width,
                  in.prefix.get() + at * in.chunks, in.scales.get() + at);
    }

    // One input for each rotation among `many`; index of each in `which`.
    template <size_t N>
    void prepare_all(Member &t, const Matrix *const (&many)[N], int (&which)[N], const float *x, int64_t row,
                     Input *inputs) {
        int made = 0;
        for (size_t i = 0; i < N; ++i) {
            which[i] = -1;
            for (size_t j = 0; j < i; ++j)
                if (many[j]->input == many[i]->input) which[i] = which[j];
            if (which[i] >= 0) continue;
            bool whole_numbers = false;
            for (const Matrix *other : many) whole_numbers |= other->input == many[i]->input && other->fast;
            prepare(t, many[i]->input, x, many[i]->columns, row, inputs[made], whole_numbers);
            which[i] = made++;
        }
    }

    template <size_t N>
    static void indices(const Matrix *const (&many)[N], int (&which)[N]) {
        int made = 0;
        for (size_t i = 0; i < N; ++i) {
            which[i] = -1;
            for (size_t j = 0; j < i; ++j)
                if (many[j]->input == many[i]->input) which[i] = which[j];
            if (which[i] < 0) which[i] = made++;
        }
    }

    static int64_t digits(const Matrix &w) { return w.input ? 1 : 2; }

    void product(Member &t, const Matrix &w, const Input &in, int64_t num, Output &out) {
        if (!t.timed) return multiply(t, w, in, num, out);
        t.before += t.lap();
        multiply(t, w, in, num, out);
        t.spent.product_ns += t.lap();
        t.has_product = true;
    }

    // Where thread `index` begins among `count` units of a product.
    int64_t share_of(int64_t count, int index, int members) const {
        return count * m.shares[alone].begin(index, members) / Shares::whole;
    }
    Span share_of(int64_t count, const Member &t) const {
        return {share_of(count, t.index, t.members), share_of(count, t.index + 1, t.members)};
    }

    // This thread's share of a product.
    void multiply(Member &t, const Matrix &w, const Input &in, int64_t num, Output &out) {
        if (w.kind == FW_TRELLIS && w.fast) {
            if (num > few)
                trellis_of_many(t, w, in, num * digits(w), out);
            else
                trellis_of_few(t, w, in, num * digits(w), out);
        } else if (w.kind == FW_INT && w.fast) {
            const Span blocks = share_of(w.padded_rows / 16, t);
            k().int_dots(w.ints, blocks.begin, blocks.end, in.codes(), 0, num * digits(w), out.numbers.get(),
                         out.width);
        } else {
            const Span blocks = share_of((w.rows + 15) / 16, t);
            float *dense = t.space.decoded.get();
            for (int64_t block = blocks.begin; block < blocks.end; ++block) {
                const int64_t found = w.decode(k(), block * 16, dense, dense + 16 * w.padded_columns);
                k().float_dots(dense, found, w.padded_columns, in.numbers.get(), in.width, num, w.padded_columns,
                               out.numbers.get() + block * 16, out.width);
            }
        }
    }

    // The units of a trellis product are row blocks by `parts` of something. The last row block may be lower, its units
    // then cost less: eighths of a whole one, measured on both vector kernels.
    static constexpr int64_t whole = 8;
    static int64_t last_cost(const Matrix &w) {
        constexpr int64_t costs[4] = {0, 3, 5, whole};
        return costs[w.padded_rows % 256 / 64];
    }
    static int64_t cost_of(const Matrix &w, int64_t parts) { return (w.padded_rows / 256 * whole + last_cost(w)) * parts; }
    // The unit that begins nearest to `cost`.
    static int64_t unit_at(const Matrix &w, int64_t parts, int64_t cost) {
        const int64_t count = w.padded_rows / 256 * parts, rest = last_cost(w);
        return cost < whole * count || rest == 0 ? (cost + whole / 2) / whole
                                                 : count + (cost - whole * count + rest / 2) / rest;
    }
    // Where member `index` begins among row blocks by column blocks.
    int64_t first_unit(const Matrix &w, int64_t columns, int index, int members) const {
        return unit_at(w, columns, share_of(cost_of(w, columns), index, members));
    }

    // Units are row blocks by column blocks; the sums of a row block that two threads share are added by who reads them.
    void trellis_of_few(Member &t, const Matrix &w, const Input &in, int64_t num, Output &out) {
        const int64_t blocks = (w.padded_rows + 255) / 256, columns = w.padded_columns / 64;
        const Span units = {first_unit(w, columns, t.index, t.members), first_unit(w, columns, t.index + 1, t.members)};
        int32_t *to = out.parts.get() + t.index * 2 * few * out.width;
        for (int64_t block = units.begin / columns; block < blocks && block * columns < units.end; ++block) {
            const int64_t first = units.begin > block * columns ? units.begin - block * columns : 0;
            const int64_t last = units.end < (block + 1) * columns ? units.end - block * columns : columns;
            if (first < last)
                k().trellis_dots(w.trellis, block, first, last, in.codes(), 0, num, t.space.sums.get(), to, out.width);
        }
        // Whoever adds up a row block's sums takes those of all from its first part to its last.
        if (units.begin == units.end && units.begin % columns)
            for (int64_t j = 0; j < num; ++j)
                std::memset(to + j * out.width + units.begin / columns * 256, 0, sizeof(int32_t) * 256);
    }

    // Units are sixteen tokens by row blocks, of which nobody else has a part.
    void trellis_of_many(Member &t, const Matrix &w, const Input &in, int64_t num, Output &out) {
        const int64_t columns = w.padded_columns / 64, blocks = (w.padded_rows + 255) / 256, cost = cost_of(w, 1);
        const auto first = [&](int index) {
            const int64_t at = share_of((num + 15) / 16 * cost, index, t.members);
            return at / cost * blocks + unit_at(w, 1, at % cost);
        };
        for (int64_t unit = first(t.index); unit < first(t.index + 1); ++unit) {
            const int64_t token = unit / blocks * 16;
            k().trellis_dots(w.trellis, unit % blocks, 0, columns, in.codes(), token, num - token < 16 ? num - token : 16,
                             t.space.sums.get(), out.parts.get(), out.width);
        }
    }

    void fetch_trellis(Member &t, const Matrix &w, float factor, const Output &out, int64_t num, int64_t token,
                       float *to) {
        const int64_t columns = w.padded_columns / 64, blocks = (w.padded_rows + 255) / 256;
        const int64_t part = 2 * few * out.width;
        const int32_t *parts = out.parts.get() + token * out.width;
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t first = block * columns, last = first + columns;
            const int64_t height = w.padded_rows - block * 256 < 256 ? w.padded_rows - block * 256 : 256;
            int begin = 0, many = 1;
            if (num <= few) {
                while (first_unit(w, columns, begin + 1, t.members) <= first) ++begin;
                while (begin + many < t.members && first_unit(w, columns, begin + many, t.members) < last) ++many;
            }
            k().gather(parts + begin * part + block * 256, many, part, w.scales + block * 256, factor, height,
                       to + block * 256);
        }
    }

    // The finished product of one row: scales, bias and output rotation; `to` has room for the padded rows.
    void fetch(Member &t, const Matrix &w, const Input &in, const Output &out, int64_t num, int64_t row, float *to) {
        if (w.kind == FW_TRELLIS && w.fast) {
            if (digits(w) == 1) {
                fetch_trellis(t, w, in.scales.get()[row] * w.unit, out, num, row, to);
            } else {
                // The second digit is added by its own pass over `low`.
                float *low = t.space.low.get();
                fetch_trellis(t, w, in.scales.get()[2 * row] * w.unit, out, num, 2 * row, to);
                fetch_trellis(t, w, in.scales.get()[2 * row + 1] * w.unit, out, num, 2 * row + 1, low);
                k().add(to, low, w.padded_rows);
            }
        } else if (w.fast && digits(w) == 2) {
            const float *high = out.numbers.get() + 2 * row * out.width, *low = high + out.width;
            for (int64_t i = 0; i < w.rows; ++i) to[i] = high[i] + low[i];
        } else {
            std::memcpy(to, out.numbers.get() + row * out.width, sizeof(float) * static_cast<size_t>(w.rows));
        }
        if (w.output) {
            w.output->undo(k(), to, t.space.scratch.get());
        }
        if (w.bias)
            for (int64_t i = 0; i < w.rows; ++i) to[i] += w.bias[i];
        for (int64_t i = w.rows; i < round_up(w.rows, wide); ++i) to[i] = 0.0f;
    }

    void add_to_residual(Member &t, const Matrix &w, const Input &in, const Output &out, const float *after,
                         int64_t row) {
        float *y = t.space.temporary.get();
        fetch(t, w, in, out, count, row, y);
        if (after) k().norm(y, after, m.d.hidden, m.d.epsilon, y);
        k().add(t.rows.residual.get() + row * m.padded_hidden, y, m.padded_hidden);
    }

    void embed(Member &t, int64_t row) {
        float *x = t.rows.residual.get() + row * m.padded_hidden;
        float *y = t.space.temporary.get();
        m.embedding.decode_one(k(), rows[row].token, y, t.space.decoded.get());
        if (m.embedding.input) m.embedding.input->undo(k(), y, t.space.scratch.get());
        for (int64_t i = 0; i < m.d.hidden; ++i) x[i] = y[i] * m.d.embedding_scale;
        // Padding that a row that was not finite left there would make this one so too.
        for (int64_t i = m.d.hidden; i < m.padded_hidden; ++i) x[i] = 0.0f;
    }

    void positions(Member &t) {
        const int64_t half = m.d.head_width / 2;
        for (size_t rope = 0; rope < m.frequencies.size(); ++rope)
            for (int64_t row = t.index; row < count; row += t.members) {
                float *cosines = m.angles[rope].get() + row * 2 * half;
                for (int64_t i = 0; i < half; ++i) {
                    // The product is rounded to float32, as the models do; then its exact cosine.
                    const double angle = static_cast<float>(rows[row].position) * m.frequencies[rope][i];
                    cosines[i] = static_cast<float>(std::cos(angle));
                    cosines[half + i] = static_cast<float>(std::sin(angle));
                }
            }
    }

    void heads(Member &t, const Layer &layer, const Input *inputs, const int *which, int64_t row) {
        const int64_t width = m.d.head_width, half = width / 2;
        float *from = t.space.temporary.get();
        const float *angle = m.angles[static_cast<size_t>(layer.rope)].get() + row * 2 * half;
        const auto spread_heads = [&](int64_t num, float *to) {
            for (int64_t h = 0; h < num; ++h) {
                float *head = to + h * m.head_width;
                std::memcpy(head, from + h * width, sizeof(float) * static_cast<size_t>(width));
                for (int64_t i = width; i < m.head_width; ++i) head[i] = 0.0f;
            }
        };
        float *q = t.rows.queries.get() + row * m.query_width;
        fetch(t, layer.query, inputs[which[0]], m.query_out, count, row, from);
        spread_heads(m.d.num_heads, q);
        if (layer.query_norm)
            for (int64_t h = 0; h < m.d.num_heads; ++h)
                k().norm(q + h * m.head_width, layer.query_norm, width, m.d.epsilon, q + h * m.head_width);
        k().rope(q, m.d.num_heads, m.head_width, angle, angle + half, half);
        for (int64_t i = 0; i < m.query_width; ++i) q[i] *= m.d.attention_scale;
        float *key = t.space.keys.get(), *value = t.space.values.get();
        fetch(t, layer.key, inputs[which[1]], m.key_out, count, row, from);
        spread_heads(m.d.num_key_heads, key);
        if (layer.key_norm)
            for (int64_t h = 0; h < m.d.num_key_heads; ++h)
                k().norm(key + h * m.head_width, layer.key_norm, width, m.d.epsilon, key + h * m.head_width);
        k().rope(key, m.d.num_key_heads, m.head_width, angle, angle + half, half);
        fetch(t, layer.value, inputs[which[2]], m.value_out, count, row, from);
        spread_heads(m.d.num_key_heads, value);
    }

    uint8_t *cached(void *base, const fw_row &row, int64_t layer, int64_t head) const {
        const int64_t numbers = (layer * m.d.num_key_heads + head) * row.capacity * m.head_width;
        return static_cast<uint8_t *>(base) + numbers * (m.d.half_cache ? 2 : 4);
    }

    // Where all threads have them, each keeps some heads: those that it reads most itself.
    void remember(Member &t, int64_t layer, int64_t row) {
        for (int64_t h = 0; h < m.d.num_key_heads; ++h) {
            if (alone && h * t.members / m.d.num_key_heads != t.index) continue;
            k().remember(t.space.keys.get() + h * m.head_width, t.space.values.get() + h * m.head_width, m.head_width,
                         rows[row].position, m.d.half_cache, cached(rows[row].keys, rows[row], layer, h),
                         cached(rows[row].values, rows[row], layer, h));
        }
    }

    // Rows from `row` on that belong to one sequence, at most four: they read the same keys.
    int64_t together_from(int64_t row) const {
        int64_t n = 1;
        while (n < 4 && row + n < count && rows[row + n].keys == rows[row].keys) ++n;
        return n;
    }

    void attention(Member &t, int64_t layer_index, const Layer &layer) {
        const int64_t group = m.d.num_heads / m.d.num_key_heads;
        int64_t tiles = 0;
        for (int64_t row = 0; row < count; row += together_from(row)) ++tiles;
        const Span mine = part_of(tiles * m.d.num_heads, t.index, t.members);
        const float *queries = t.rows.queries.get();
        int64_t tile = 0;
        for (int64_t row = 0; row < count; ++tile) {
            const int64_t num = together_from(row);
            const int64_t from = std::max<int64_t>(mine.begin - tile * m.d.num_heads, 0);
            const int64_t past = std::min(mine.end - tile * m.d.num_heads, m.d.num_heads);
            for (int64_t h = from, side; h < past; h += side) {
                // What one token's heads read in common is read once for up to four of them.
                side = num > 1 ? 1 : std::min({past - h, group - h % group, int64_t{4}});
                const int64_t end = rows[row].position + 1;
                Attention a = {};
                a.query = queries + row * m.query_width + h * m.head_width;
                a.query_stride = num > 1 ? m.query_width : m.head_width;
                a.keys = cached(rows[row].keys, rows[row], layer_index, h / group);
                a.values = cached(rows[row].values, rows[row], layer_index, h / group);
                a.width = m.head_width;
                a.begin = layer.window > 0 && end > layer.window ? end - layer.window : 0;
                a.end = end;
                a.more = num > 1;
                a.window = layer.window;
                a.softcap = m.d.attention_softcap;
                a.score_stride = round_up(end + 4, 16) + 16;
                a.scores = static_cast<float *>(scratch(a.score_stride * num * side * 4));
                if (!a.scores) {
                    failed = true;
                    continue;
                }
                a.out = m.mixed.get() + row * m.query_width + h * m.head_width;
                a.out_stride = a.query_stride;
                a.half = m.d.half_cache;
                k().attend(a, num * side);
            }
            row += num;
        }
    }

    void layer(Member &t, int64_t index) {
        Layer &l = m.layers[static_cast<size_t>(index)];
        Space &s = t.space;
        t.begin_timing(t.members > 1 && index % timed_layers == 0);
        Input *inputs = t.rows.inputs;
        int which[3], pair[2], one[1];
        const Matrix *const attention_in[3] = {&l.query, &l.key, &l.value};
        const Matrix *const ffn_in[2] = {&l.gate, &l.up};
        const Matrix *const out_in[1] = {&l.out}, *const down_in[1] = {&l.down};
        indices(attention_in, which);
        for (int64_t row = t.mine.begin; row < t.mine.end; ++row) {
            float *x = t.rows.residual.get() + row * m.padded_hidden;
            if (index == 0)
                embed(t, row);
            else
                add_to_residual(t, m.layers[static_cast<size_t>(index - 1)].down, inputs[3], m.down_out,
                                m.layers[static_cast<size_t>(index - 1)].after_ffn_norm, row);
            k().norm(x, l.attention_norm, m.d.hidden, m.d.epsilon, s.normed.get());
            prepare_all(t, attention_in, which, s.normed.get(), row, inputs);
        }
        t.sync_rows();
        product(t, l.query, inputs[which[0]], count, m.query_out);
        product(t, l.key, inputs[which[1]], count, m.key_out);
        product(t, l.value, inputs[which[2]], count, m.value_out);
        t.sync();
        for (int64_t row = t.mine.begin; row < t.mine.end; ++row) {
            heads(t, l, inputs, which, row);
            remember(t, index, row);
        }
        t.sync();
        attention(t, index, l);
        t.sync();
        for (int64_t row = t.mine.begin; row < t.mine.end; ++row) {
            const float *mixed = m.mixed.get() + row * m.query_width;
            float *x = s.normed.get();
            for (int64_t h = 0; h < m.d.num_heads; ++h)
                std::memcpy(x + h * m.d.head_width, mixed + h * m.head_width,
                            sizeof(float) * static_cast<size_t>(m.d.head_width));
            prepare_all(t, out_in, one, x, row, inputs + 3);
        }
        t.sync_rows();
        product(t, l.out, inputs[3], count, m.out_out);
        t.sync();
        indices(ffn_in, pair);
        for (int64_t row = t.mine.begin; row < t.mine.end; ++row) {
            add_to_residual(t, l.out, inputs[3], m.out_out, l.after_attention_norm, row);
            k().norm(t.rows.residual.get() + row * m.padded_hidden, l.ffn_norm, m.d.hidden, m.d.epsilon, s.normed.get());
            prepare_all(t, ffn_in, pair, s.normed.get(), row, inputs);
        }
        t.sync_rows();
        product(t, l.gate, inputs[pair[0]], count, m.gate_out);
        product(t, l.up, inputs[pair[1]], count, m.up_out);
        t.sync();
        for (int64_t row = t.mine.begin; row < t.mine.end; ++row) {
            float *gate = s.normed.get(), *up = s.temporary.get();
            fetch(t, l.gate, inputs[pair[0]], m.gate_out, count, row, gate);
            fetch(t, l.up, inputs[pair[1]], m.up_out, count, row, up);
            k().gate(gate, up, m.d.activation, m.padded_ffn, gate);
            prepare_all(t, down_in, one, gate, row, inputs + 3);
        }
        t.sync_rows();
        product(t, l.down, inputs[3], count, m.down_out);
        t.sync();
    }

    // Rows that were divided must all be there before a product reads them.
    void logits(Member &t) {
        const Layer &last = m.layers.back();
        const Matrix &head = *m.table;
        Input *inputs = t.rows.inputs;
        const int64_t num = static_cast<int64_t>(wanted.size());
        Input &in = m.head_input;
        for (int64_t begin = 0; begin < num; begin += few) {
            const int64_t many = num - begin < few ? num - begin : few;
            if (begin == 0)
                for (int64_t row = t.mine.begin; row < t.mine.end; ++row)
                    add_to_residual(t, last.down, inputs[3], m.down_out, last.after_ffn_norm, row);
            t.sync();
            for (int64_t i = 0; i < many; ++i) {
                const int64_t row = wanted[static_cast<size_t>(begin + i)];
                const bool here = alone ? i % t.members == t.index : row >= t.mine.begin && row < t.mine.end;
                if (!here) continue;
                k().norm(t.rows.residual.get() + row * m.padded_hidden, m.final_norm.get(), m.d.hidden, m.d.epsilon,
                         t.space.normed.get());
                prepare(t, head.input, t.space.normed.get(), m.d.hidden, i, in, head.fast);
            }
            t.sync();
            product(t, head, in, many, m.head_out);
            t.sync();
            finish_logits(t, head, in, many, begin);
        }
    }

    // Each thread finishes its share of the vocabulary where it can, else whole rows.
    void finish_logits(Member &t, const Matrix &head, const Input &in, int64_t many, int64_t begin) {
        const bool by_row = head.kind == FW_TRELLIS || head.output || head.bias;
        for (int64_t i = by_row ? t.index : 0; i < many; i += by_row ? t.members : 1) {
            float *to = rows[wanted[static_cast<size_t>(begin + i)]].logits;
            Span span = {0, m.d.vocabulary};
            if (by_row) {
                float *whole_row = t.space.low.get();
                fetch(t, head, in, m.head_out, many, i, whole_row);
                std::memcpy(to, whole_row, sizeof(float) * static_cast<size_t>(m.d.vocabulary));
            } else {
                span = part_of(m.d.vocabulary, t.index, t.members);
                const int64_t two = head.fast ? digits(head) : 1;
                const float *from = m.head_out.numbers.get() + i * two * m.head_out.width;
                for (int64_t v = span.begin; v < span.end; ++v)
                    to[v] = two == 2 ? from[v] + from[m.head_out.width + v] : from[v];
            }
            if (m.d.final_softcap > 0.0f) k().softcap(to + span.begin, m.d.final_softcap, span.end - span.begin);
        }
    }

    void member(int index, int members) {
        Space &space = m.spaces[static_cast<size_t>(index)];
        Member t = {*this, index, members, space, alone ? space.rows : m.shared, {0, count}, {}, false, false, 0, 0};
        if (!alone) t.mine = part_of(count, index, members);
        positions(t);
        t.sync();
        for (int64_t i = 0; i < m.d.num_layers; ++i) layer(t, i);
        t.begin_timing(false);
        m.spent[static_cast<size_t>(index)] = t.spent;
        if (index == 0) joined = members;
        if (!wanted.empty()) logits(t);
    }
};

int32_t check_rows(const fw_model &m, const fw_row *rows, int64_t count) {
    if (!rows || count < 1 || count > m.max_rows) return FW_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; ++i) {
        const fw_row &r = rows[i];
        if (r.token < 0 || r.token >= m.d.vocabulary || !r.keys || !r.values || r.capacity < 16 || r.capacity % 16 ||
            r.position < 0 || r.position >= r.capacity)
            return FW_BAD_ARGUMENT;
        // One sequence's rows lie together and count up; a second group of them would race with the first.
        for (int64_t j = 0; j < i; ++j)
            if (rows[j].keys == r.keys && (rows[i - 1].keys != r.keys || r.position != rows[i - 1].position + 1))
                return FW_BAD_ARGUMENT;
    }
    return FW_OK;
}

}  // namespace
}  // namespace fw

int32_t fw_forward(fw_model *model, const fw_row *rows, int64_t count) {
    if (!model) return FW_BAD_ARGUMENT;
    if (int32_t status = fw::check_rows(*model, rows, count)) return status;
    std::unique_lock<std::mutex> lock(model->busy, std::try_to_lock);
    if (!lock.owns_lock()) return FW_BUSY;
    try {
        fw::Run run{*model, rows, count, {}, count <= fw::repeated, {}, {}, 0};
        for (int64_t i = 0; i < count; ++i)
            if (rows[i].logits) run.wanted.push_back(i);
        fw::together(
            model->threads, [](void *r, int index, int members) { static_cast<fw::Run *>(r)->member(index, members); },
            &run, fw::between_tokens_us);
        model->shares[run.alone].learn(model->spent.data(), run.joined);
        return run.failed ? FW_NO_MEMORY : FW_OK;
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
}
