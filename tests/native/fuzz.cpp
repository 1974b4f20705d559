// Wrong numbers for every function of the C ABI: each input is a valid call, made from a seed, with a few fields changed.
//
//     fuzz [--inputs N] [--seed S] [--from I]
//
// A call must answer with a status, touch nothing outside its arrays (each ends at a sentinel), and, where it answers
// FW_OK, give the same bits on every instruction set. What the library cannot see (how long an array without a size of
// its own is) is not changed: that is the caller's contract. A crash names the input; --from I --inputs 1 repeats it.
#include <math.h>
#include <signal.h>
#include <stdio.h>

#include "tiny_model.h"

extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());

namespace {

using tiny::Blocks;
using tiny::Random;
using tiny::up;

uint64_t seed = 0, input = 0;
int64_t counts[2][6] = {};  // functions, models; by status

void say_where() {
    fprintf(stderr, "fuzz: crashed in input %llu; repeat it with --seed %llu --from %llu --inputs 1\n",
            static_cast<unsigned long long>(input), static_cast<unsigned long long>(seed),
            static_cast<unsigned long long>(input));
}

void on_signal(int signal_number) {
    say_where();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

[[noreturn]] void wrong(const char *what) {
    fprintf(stderr, "fuzz: %s\n", what);
    say_where();
    abort();
}

int32_t seen(int kind, int32_t status) {
    if (status < 0 || status > 5) wrong("a status that does not exist");
    ++counts[kind][status];
    return status;
}

const char *any_isa(Random &r) {
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    const char *name = r.of(names);
    if (r.one_in(200)) return "mmx";
    return fw_isa_available(name) ? name : nullptr;
}

int64_t odd_number(Random &r, int64_t was) {
    static const int64_t edges[] = {0,   1,   -1,  2,       15,        16,         17,        31,        32,       33,
                                    63,  64,  65,  127,     128,       255,        256,       257,       4096,     65536,
                                    -16, -64, 100, 1 << 20, 1ll << 31, -(1ll << 31), (1ll << 31) - 1, 1ll << 32, 1ll << 40, 1ll << 41,
                                    INT64_MAX, INT64_MIN};
    switch (r.below(4)) {
        case 0: return static_cast<int64_t>(static_cast<uint64_t>(was) + 1);
        case 1: return static_cast<int64_t>(static_cast<uint64_t>(was) - 1);
        case 2: return was > 0 && was < 1 << 20 ? was * 2 : ~was;
        default: return r.of(edges);
    }
}

float odd_float(Random &r) {
    static const float edges[] = {0.0f, -0.0f, 1.0f, -1.0f, 1e-45f, 1e-38f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN, 8191.0f};
    return r.of(edges);
}

bool equal(const float *a, const float *b, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        if (memcmp(a + i, b + i, 4) && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

// ---- functions -------------------------------------------------------------------------------------------------

// More than the library takes for real; neither is negative.
bool too_many(int64_t a, int64_t b) { return a > 1ll << 40 || (a && b > (1ll << 40) / a); }
bool too_slow(int64_t a, int64_t b) { return a > 1 << 16 || b > 1 << 16 || a * b > 1 << 16; }

// An array of `count` where the call is one that may read it, else of nothing at all.
float *numbers(Random &r, Blocks &blocks, bool valid, int64_t count, bool hostile) {
    float *to = blocks.make<float>(valid ? count : 0);
    for (int64_t i = 0; valid && i < count; ++i) to[i] = hostile && r.one_in(16) ? odd_float(r) : 3.0f * r.uniform();
    return to;
}

void viterbi(Random &r) {
    Blocks blocks;
    int64_t tiles = r.below(3), length = 8 * (1 + r.below(5));
    int64_t state_bits = 8 + r.below(3), rate = 1 + r.below(4);
    float scale = 1000.0f;
    if (r.one_in(2)) {
        int64_t *const fields[] = {&tiles, &length, &state_bits, &rate};
        int64_t &field = *r.of(fields);
        field = odd_number(r, field);
        state_bits = static_cast<int32_t>(state_bits), rate = static_cast<int32_t>(rate);
        if (r.one_in(4)) scale = odd_float(r);
    }
    const bool sized = tiles >= 0 && rate >= 1 && rate <= 4 && state_bits >= 8 && state_bits <= 16 &&
                       length >= 8 && length <= 65536 && length % 8 == 0 && rate * length >= state_bits && !too_many(tiles, length);
    const bool valid = sized && scale > 0.0f && scale <= 8191.0f;
    // More than this is slow, and no different.
    if (sized && (too_slow(tiles, length) || tiles * length > 4096 || (length << state_bits) > 1 << 17)) return;
    const bool hostile = r.one_in(4);
    const float *x = numbers(r, blocks, valid, valid ? tiles * length : 0, hostile);
    const float *values = numbers(r, blocks, valid, valid ? int64_t{1} << state_bits : 0, hostile && r.one_in(8));
    uint8_t *out = blocks.make<uint8_t>(valid ? tiles * length * rate / 8 : 0);
    const int32_t status =
        seen(0, fw_viterbi_encode(r.one_in(50) ? nullptr : x, tiles, length, values, static_cast<int32_t>(state_bits),
                                  static_cast<int32_t>(rate), scale, any_isa(r), 1, out));
    if (status == FW_OK && !valid) wrong("fw_viterbi_encode took sizes that it cannot");
    if (sized != valid) return;
    float *back = blocks.make<float>(valid ? tiles * length : 0);
    seen(0, fw_trellis_decode(out, tiles, length, values, static_cast<int32_t>(state_bits), static_cast<int32_t>(rate),
                              any_isa(r), 1, back));
}

void dense(Random &r) {
    Blocks blocks;
    const bool trellis = r.one_in(2);
    const int64_t high = trellis ? 64 : 16, broad = trellis ? 64 : 32;
    int64_t rows = high * r.below(trellis ? 6 : 4), columns = broad * r.below(3), bits = trellis ? 1 + r.below(4) : 2 + r.below(7);
    int64_t state_bits = 8 + r.below(4), group = 1 + r.below(80), count = rows;
    const bool chosen = !trellis && r.one_in(2);
    if (chosen) count = r.below(9);
    if (r.one_in(2)) {
        int64_t *const fields[] = {&rows, &columns, &bits, trellis ? &state_bits : &group, &count};
        int64_t &field = *r.of(fields);
        field = odd_number(r, field);
        state_bits = static_cast<int32_t>(state_bits), bits = static_cast<int32_t>(bits);
    }
    const bool fits = rows >= 0 && columns >= 0 && !too_many(rows, columns) && rows % high == 0 &&
                      columns % broad == 0 && bits >= (trellis ? 1 : 2) && bits <= (trellis ? 4 : 8);
    const bool valid = fits && (trellis ? state_bits >= 8 && state_bits <= 16
                                        : group >= 1 && group <= 1ll << 40 && count >= 0 && (chosen || count == rows));
    if (valid && (too_slow(rows, columns) || (!trellis && too_slow(count, columns)))) return;
    int64_t *indices = chosen ? blocks.make<int64_t>(valid ? count : 0) : nullptr;
    for (int64_t i = 0; chosen && valid && i < count; ++i)
        indices[i] = r.one_in(60) || rows == 0 ? odd_number(r, rows) : r.below(rows);
    const int64_t groups = valid && !trellis ? columns / group + (columns % group != 0) : 0;
    uint8_t *lanes = blocks.make<uint8_t>(valid ? rows * columns * bits / 8 : 0);
    for (int64_t i = 0; valid && i < rows * columns * bits / 8; ++i) lanes[i] = static_cast<uint8_t>(r.next());
    const float *scales = numbers(r, blocks, valid, trellis ? rows : rows * groups, r.one_in(4));
    const float *zeros = numbers(r, blocks, valid, rows * groups, false);
    const float *values = numbers(r, blocks, valid && trellis, valid && trellis ? int64_t{1} << state_bits : 0, false);
    const int64_t size = !valid ? 0 : trellis ? rows * columns : count * columns;
    float *out[2] = {blocks.make<float>(size), blocks.make<float>(size)};
    int32_t status[2];
    for (int i = 0; i < 2; ++i) {
        const char *isa = i ? any_isa(r) : "scalar";
        if (isa && !fw_isa_available(isa)) isa = nullptr;
        status[i] = seen(0, trellis ? fw_trellis_dense(lanes, rows, columns, values, static_cast<int32_t>(state_bits),
                                                       static_cast<int32_t>(bits), scales, isa, 1, out[i])
                                    : fw_int_dense(lanes, rows, columns, static_cast<int32_t>(bits), scales, zeros, group,
                                                   indices, count, isa, 1, out[i]));
    }
    if (status[0] != status[1]) wrong("instruction sets disagree on what is valid");
    if (status[0] == FW_OK && !valid) wrong("a dense decoder took sizes that it cannot");
    if (status[0] == FW_OK && !equal(out[0], out[1], size)) wrong("a dense decoder's instruction sets differ");
}

void hadamard(Random &r) {
    Blocks blocks;
    int64_t rows = r.below(4), power = r.below(6), order = r.one_in(2) ? 1 : 1 + r.below(20);
    int64_t stride = (order << power) + r.below(3);
    if (r.one_in(2)) {
        int64_t *const fields[] = {&rows, &power, &order, &stride};
        int64_t &field = *r.of(fields);
        field = odd_number(r, field);
        power = static_cast<int32_t>(power);
    }
    const bool valid = rows >= 0 && power >= 0 && power <= 30 && order >= 1 && order <= 4096 &&
                       stride >= (order << power) && !too_many(rows, stride);
    if (valid && (too_slow(rows, stride) || order > 256)) return;
    const int64_t size = valid && rows ? (rows - 1) * stride + (order << power) : 0;
    float *x = numbers(r, blocks, valid, size, r.one_in(4));
    float *again = blocks.make<float>(size);
    memcpy(again, x, sizeof(float) * static_cast<size_t>(size));
    const float *kernel = order == 1 && !r.one_in(30) ? nullptr : numbers(r, blocks, valid, valid ? order * order : 0, false);
    const int32_t status = seen(0, fw_hadamard(x, rows, stride, static_cast<int32_t>(power), order, kernel, "scalar", 1));
    if (status == FW_OK && !valid) wrong("fw_hadamard took sizes that it cannot");
    const char *isa = any_isa(r);
    if (isa && !fw_isa_available(isa)) isa = nullptr;
    seen(0, fw_hadamard(again, rows, stride, static_cast<int32_t>(power), order, kernel, isa, 1));
    if (status == FW_OK && !equal(x, again, size)) wrong("fw_hadamard's instruction sets differ");
}

// ---- models ----------------------------------------------------------------------------------------------------

// A size that claims more than there is would be a broken promise: smaller, negative or absurd ones only.
template <typename T>
void claim(Random &r, T &field) {
    static const int64_t absurd[] = {0, -1, -64, INT32_MIN, INT32_MAX};
    field = static_cast<T>(r.one_in(2) && field > 0 ? r.below(field) : r.of(absurd));
}

template <typename T>
void drop(Random &r, T *&pointer) {
    if (!r.one_in(3)) pointer = nullptr;
}

void spoil(Random &r, fw_matrix &m) {
    switch (r.below(16)) {
        case 0: m.size = odd_number(r, m.size); break;
        case 1: m.kind = static_cast<int32_t>(odd_number(r, m.kind)); break;
        case 2: m.bits = static_cast<int32_t>(odd_number(r, m.bits)); break;
        case 3:
            m.rows = odd_number(r, m.rows);
            m.bias = nullptr;  // has no size of its own
            break;
        case 4: m.columns = odd_number(r, m.columns); break;
        case 5: claim(r, m.codes_bytes); break;
        case 6: claim(r, m.num_scales); break;
        case 7: m.group = odd_number(r, m.group); break;
        case 8: m.zero = static_cast<int32_t>(odd_number(r, m.zero)); break;
        case 9: claim(r, m.state_bits); break;
        case 10: m.unit = odd_float(r); break;
        case 11: drop(r, m.codes); break;
        case 12: drop(r, m.scales); break;
        case 13: r.one_in(2) ? drop(r, m.zeros) : drop(r, m.values); break;
        case 14: r.one_in(2) ? drop(r, m.table) : drop(r, m.code_matrix); break;
        default:
            // What files hold: any scale, any table, any bias.
            if (m.scales && r.one_in(2)) {
                const uint16_t any = static_cast<uint16_t>(r.next());
                memcpy(reinterpret_cast<char *>(const_cast<uint16_t *>(m.scales)) + 2 * r.below(16), &any, 2);
            } else if (m.table && r.one_in(2)) {
                const_cast<int8_t *>(m.table)[r.below(256)] = static_cast<int8_t>(r.next());
            } else if (m.bias) {
                const_cast<float *>(m.bias)[0] = odd_float(r);
            }
    }
}

void spoil(Random &r, fw_rotation &rotation, int64_t blocks) {
    fw_rotation_block &b = const_cast<fw_rotation_block *>(rotation.blocks)[r.below(blocks)];
    switch (r.below(8)) {
        case 0: rotation.length = odd_number(r, rotation.length); break;
        case 1: claim(r, rotation.num_blocks); break;
        case 2: drop(r, rotation.signs); break;
        case 3: b.power = static_cast<int32_t>(odd_number(r, b.power)); break;
        case 4: claim(r, b.order); break;
        case 5: drop(r, b.kernel); break;
        case 6: drop(r, b.transposed); break;
        default:
            if (rotation.signs) const_cast<uint8_t *>(rotation.signs)[0] ^= static_cast<uint8_t>(r.below(256));
    }
}

void spoil(Random &r, fw_layer &l) {
    const float **const pointers[] = {&l.attention_norm, &l.ffn_norm, &l.frequencies, &l.query_norm, &l.key_norm};
    switch (r.below(4)) {
        case 0: l.size = odd_number(r, l.size); break;
        case 1: l.window = odd_number(r, l.window); break;
        case 2: drop(r, *r.of(pointers)); break;
        default:
            if (l.attention_norm) const_cast<float *>(l.attention_norm)[0] = odd_float(r);
    }
}

void spoil(Random &r, tiny::Model &tiny) {
    fw_description &d = tiny.d;
    int64_t *const wholes[] = {&d.size, &d.hidden, &d.vocabulary, &d.num_heads, &d.num_key_heads, &d.head_width};
    int32_t *const flags[] = {&d.activation, &d.whole_numbers, &d.half_cache};
    float *const floats[] = {&d.epsilon, &d.attention_scale, &d.attention_softcap, &d.final_softcap, &d.embedding_scale};
    switch (r.below(10)) {
        case 0: {
            int64_t &field = *r.of(wholes);
            field = odd_number(r, field);
            break;
        }
        case 1: {
            int32_t &field = *r.of(flags);
            field = static_cast<int32_t>(odd_number(r, field));
            break;
        }
        case 2: *r.of(floats) = odd_float(r); break;
        case 3:
            if (r.one_in(2))
                claim(r, d.num_layers);
            else
                d.max_rows = r.one_in(20) ? static_cast<int32_t>(odd_number(r, d.max_rows)) : static_cast<int32_t>(r.below(30) - 3);
            break;
        case 4:
            r.one_in(2) ? drop(r, d.final_norm) : drop(r, d.layers);
            break;
        case 5: spoil(r, *tiny.layers[static_cast<size_t>(r.below(static_cast<int64_t>(tiny.layers.size())))]); break;
        case 6: {
            const size_t which = static_cast<size_t>(r.below(static_cast<int64_t>(tiny.rotations.size())));
            spoil(r, *tiny.rotations[which], tiny.blocks_of[which]);
            break;
        }
        default: spoil(r, *tiny.matrices[static_cast<size_t>(r.below(static_cast<int64_t>(tiny.matrices.size())))]);
    }
}

// Rows of up to three sequences, each with its own cache; one field of one row wrong now and then.
void forward(Random &r, const fw_description &d, fw_model *model, fw_model *twin) {
    Blocks blocks;
    const int64_t count = 1 + r.below(r.one_in(3) ? 24 : 6), capacity = 16 * (1 + r.below(3));
    fw_row *rows = blocks.make<fw_row>(count);
    float *logits[2] = {blocks.make<float>(count * d.vocabulary), blocks.make<float>(count * d.vocabulary)};
    const int64_t length = 1 + r.below(count);
    std::vector<tiny::Cache> caches, others;
    for (int64_t i = 0; i < count; ++i) {
        if (i % length == 0) {
            caches.emplace_back(blocks, d, capacity);
            others.emplace_back(blocks, d, capacity);
            if (caches.size() > 3) break;
        }
        const tiny::Cache &cache = caches.back();
        const int64_t start = i % length ? rows[i - 1].position + 1 : r.below(capacity);
        rows[i] = {static_cast<int32_t>(r.below(d.vocabulary)), 0, start, cache.capacity, cache.keys, cache.values,
                   r.one_in(2) ? logits[0] + i * d.vocabulary : nullptr};
    }
    int64_t many = count;
    if (r.one_in(3)) {
        fw_row &row = rows[r.below(count)];
        switch (r.below(7)) {
            case 0: row.token = static_cast<int32_t>(odd_number(r, row.token)); break;
            case 1: row.position = odd_number(r, row.position); break;
            case 2: claim(r, row.capacity); break;
            case 3: drop(r, row.keys); break;
            case 4: drop(r, row.values); break;
            case 5: row.keys = rows[0].keys; row.values = rows[0].values; break;
            default: many = r.one_in(2) ? r.below(count + 1) : odd_number(r, count);
        }
    }
    if (many > count && many <= d.max_rows + 64) many = -1;
    const int32_t status = seen(1, fw_forward(model, rows, many));
    if (!twin) return;
    for (int64_t i = 0; i < count; ++i) {
        if (rows[i].logits) rows[i].logits = logits[1] + (rows[i].logits - logits[0]);
        for (size_t c = 0; c < caches.size(); ++c) {
            if (rows[i].keys == caches[c].keys) rows[i].keys = others[c].keys;
            if (rows[i].values == caches[c].values) rows[i].values = others[c].values;
        }
    }
    if (seen(1, fw_forward(twin, rows, many)) != status) wrong("instruction sets disagree on a forward pass's status");
    if (status == FW_OK && !equal(logits[0], logits[1], count * d.vocabulary)) wrong("a forward pass's instruction sets differ");
}

void one_model(Random &r) {
    tiny::Model tiny(r.next());
    const int64_t spoiled = r.below(3);
    for (int64_t i = 0; i < spoiled; ++i) spoil(r, tiny);
    fw_model *model = nullptr, *twin = nullptr;
    const int32_t status = seen(1, fw_model_new(r.one_in(500) ? nullptr : &tiny.d, any_isa(r), static_cast<int32_t>(1 + r.below(2) * r.below(3)), &model));
    if ((status == FW_OK) != (model != nullptr)) wrong("a status without its model");
    if (model) {
        seen(1, fw_model_new(&tiny.d, "scalar", 1, &twin));
        for (int64_t i = 2 + r.below(6); i; --i) forward(r, tiny.d, model, twin);
    }
    fw_model_free(model);
    fw_model_free(twin);
    for (int64_t i = 1 + r.below(3); i; --i) {
        // One matrix by itself.
        fw_matrix &m = *tiny.matrices[static_cast<size_t>(r.below(static_cast<int64_t>(tiny.matrices.size())))];
        if (r.one_in(2)) spoil(r, m);
        const int64_t count = 1 + r.below(19), absurd_count = r.one_in(2) ? -count : odd_number(r, 1 << 20) | 1 << 20;
        const bool sane = m.rows > 0 && m.columns > 0 && m.rows < 1 << 12 && m.columns < 1 << 12;
        const float *x = numbers(r, tiny.blocks, sane, sane ? count * m.columns : 0, r.one_in(8));
        float *out = tiny.blocks.make<float>(sane ? count * m.rows : 0);
        seen(1, fw_product(&m, x, r.one_in(20) ? absurd_count : count, static_cast<int32_t>(r.one_in(30) ? odd_number(r, 1) : r.below(3)), any_isa(r), out));
    }
}

}  // namespace

int main(int argc, char **argv) {
    uint64_t inputs = 10000, from = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        const uint64_t value = strtoull(argv[i + 1], nullptr, 10);
        if (!strcmp(argv[i], "--inputs")) inputs = value;
        else if (!strcmp(argv[i], "--seed")) seed = value;
        else if (!strcmp(argv[i], "--from")) from = value;
        else return fprintf(stderr, "fuzz: what is %s?\n", argv[i]), 2;
    }
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(say_where);
    else
        for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(number, on_signal);
    const auto total = [] {
        uint64_t sum = 0;
        for (const auto &kind : counts)
            for (int64_t n : kind) sum += static_cast<uint64_t>(n);
        return sum;
    };
    // `inputs` counts calls of the library.
    for (input = from; total() < inputs; ++input) {
        Random r(seed * 1000003 + input);
        switch (r.below(4)) {
            case 0: viterbi(r); break;
            case 1: dense(r); break;
            case 2: hadamard(r); break;
            default: one_model(r);
        }
    }
    static const char *const names[] = {"functions", "models"};
    for (int kind = 0; kind < 2; ++kind)
        printf("%s: %lld ok, %lld refused, %lld not finite, %lld no memory, %lld no such isa\n", names[kind],
               static_cast<long long>(counts[kind][0]), static_cast<long long>(counts[kind][1]),
               static_cast<long long>(counts[kind][2]), static_cast<long long>(counts[kind][3]),
               static_cast<long long>(counts[kind][4]));
    printf("%llu inputs, no crash\n", static_cast<unsigned long long>(total()));
    return 0;
}
