// A whole model made from a seed, every array a block of its own that ends where a sentinel begins: what the fuzzer
// mutates, and what another processor must compute to the same bits. Needs no mathematics library.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "featherweight.h"

namespace tiny {

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
    bool one_in(int64_t n) { return below(n) == 0; }
    float uniform() { return static_cast<float>(next() >> 40) * (1.0f / 8388608.0f) - 1.0f; }
    template <typename T, size_t N>
    T of(const T (&choices)[N]) {
        return choices[below(N)];
    }

private:
    uint64_t state_;
};

// Memory whose end cannot be passed: AddressSanitizer watches it, or else the next page has no access.
class Blocks {
public:
    Blocks() = default;
    Blocks(const Blocks &) = delete;
    Blocks &operator=(const Blocks &) = delete;
    ~Blocks() {
        for (const Block &b : blocks_) give_back(b);
    }
    template <typename T>
    T *make(int64_t count) {
        return static_cast<T *>(take(static_cast<size_t>(count) * sizeof(T)));
    }

private:
    struct Block {
        void *start;
        size_t bytes;
    };
    std::vector<Block> blocks_;

#if defined(__SANITIZE_ADDRESS__)
    static void give_back(const Block &b) { free(b.start); }
    void *take(size_t bytes) {
        void *start = calloc(bytes ? bytes : 1, 1);
        if (!start) abort();
        blocks_.push_back({start, bytes});
        return start;
    }
#else
    static void give_back(const Block &b) { munmap(b.start, b.bytes); }
    void *take(size_t bytes) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), whole = (bytes + page - 1) / page * page;
        void *start = mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED || mprotect(static_cast<char *>(start) + whole, page, PROT_NONE)) abort();
        blocks_.push_back({start, whole + page});
        return static_cast<char *>(start) + (whole - bytes);
    }
#endif
};

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Numbers around 2^-6, never a NaN: sign, exponent and ten random bits.
inline uint16_t half(Random &r) { return static_cast<uint16_t>(0x2400 | (r.next() & 0x83ff)); }

struct Model {
    Blocks blocks;
    Random random;
    fw_description d = {};
    std::vector<fw_layer *> layers;
    std::vector<fw_matrix *> matrices;
    std::vector<fw_rotation *> rotations;
    std::vector<int64_t> blocks_of;  // how many blocks each rotation really has

    explicit Model(uint64_t seed) : random(seed) { build(); }

    float *floats(int64_t count, float size, float around = 0.0f) {
        float *to = blocks.make<float>(count);
        for (int64_t i = 0; i < count; ++i) to[i] = around + size * random.uniform();
        return to;
    }

    fw_rotation *rotation(int64_t n) {
        fw_rotation *made = blocks.make<fw_rotation>(1);
        made->length = n;
        uint8_t *signs = blocks.make<uint8_t>((n + 7) / 8);
        for (int64_t i = 0; i < (n + 7) / 8; ++i) signs[i] = static_cast<uint8_t>(random.below(256));
        made->signs = signs;
        std::vector<fw_rotation_block> all;
        const bool odd = n % 12 == 0 && random.one_in(2);
        for (int64_t left = n; left;) {
            fw_rotation_block b = {0, 1, nullptr, nullptr};
            if (odd) {
                b.order = 12;
                while (left % (int64_t{12} << (b.power + 1)) == 0) ++b.power;
                float *forward = floats(144, 0.5f), *backward = blocks.make<float>(144);
                for (int i = 0; i < 144; ++i) backward[i % 12 * 12 + i / 12] = forward[i];
                b.kernel = forward;
                b.transposed = backward;
            } else {
                while ((int64_t{2} << b.power) <= left) ++b.power;
            }
            left -= int64_t{b.order} << b.power;
            all.push_back(b);
        }
        fw_rotation_block *to = blocks.make<fw_rotation_block>(static_cast<int64_t>(all.size()));
        memcpy(to, all.data(), all.size() * sizeof all[0]);
        made->blocks = to;
        made->num_blocks = static_cast<int64_t>(all.size());
        rotations.push_back(made);
        blocks_of.push_back(made->num_blocks);
        return made;
    }

    // Codes and scales at odd addresses now and then, as in a file.
    void *bytes(int64_t count) {
        uint8_t *to = blocks.make<uint8_t>(count);
        for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(random.next());
        return to;
    }
    const uint16_t *halfs(int64_t count) {
        uint8_t *to = blocks.make<uint8_t>(2 * count + 1);
        if (random.one_in(2)) ++to;
        for (int64_t i = 0; i < count; ++i) {
            const uint16_t value = half(random);
            memcpy(to + 2 * i, &value, 2);
        }
        return reinterpret_cast<const uint16_t *>(to);
    }

    void matrix(fw_matrix &m, int64_t rows, int64_t columns, const fw_rotation *input) {
        static const int32_t kinds[] = {FW_FLOAT32, FW_FLOAT16, FW_BFLOAT16, FW_INT, FW_INT, FW_INT,
                                        FW_TRELLIS, FW_TRELLIS, FW_TRELLIS};
        matrices.push_back(&m);
        m.size = sizeof m;
        m.kind = random.of(kinds);
        m.rows = rows;
        m.columns = columns;
        m.input = random.one_in(4) ? nullptr : input;
        if (random.one_in(4)) m.output = rotation(rows);
        if (random.one_in(4)) m.bias = floats(rows, 0.1f);
        if (m.kind == FW_INT) {
            static const int64_t groups[] = {8, 16, 24, 32, 64, 1 << 20};
            m.bits = static_cast<int32_t>(2 + random.below(7));
            m.group = random.of(groups);
            if (m.group > up(columns, 32)) m.group = up(columns, 32);
            const int64_t scales = up(rows, 16) * (up(up(columns, 32), m.group) / m.group);
            m.codes_bytes = up(rows, 16) * up(columns, 32) / 8 * m.bits;
            m.scales = halfs(m.num_scales = scales);
            m.zero = 1 << (m.bits - 1);
            if (random.one_in(3)) m.zeros = static_cast<const uint8_t *>(bytes(scales));
            m.codes = bytes(m.codes_bytes);
        } else if (m.kind == FW_TRELLIS) {
            m.bits = static_cast<int32_t>(1 + random.below(4));
            m.state_bits = static_cast<int32_t>(8 + random.below(random.one_in(8) ? 9 : 4));
            m.codes_bytes = up(rows, 64) * up(columns, 64) / 8 * m.bits;
            m.scales = halfs(m.num_scales = up(rows, 64));
            m.codes = bytes(m.codes_bytes);
            m.values = floats(int64_t{1} << m.state_bits, 2.0f);
            m.unit = 1.0f / 32;
            if (!random.one_in(5)) {
                int8_t *table = blocks.make<int8_t>(256);
                for (int i = 0; i < 256; ++i) table[i] = static_cast<int8_t>(random.below(127) - 63);
                m.table = table;
                m.code_matrix = static_cast<const uint8_t *>(bytes(m.state_bits - 8));
            }
        } else {
            m.codes_bytes = rows * columns * (m.kind == FW_FLOAT32 ? 4 : 2);
            if (m.kind == FW_FLOAT32)
                m.codes = floats(rows * columns, 0.2f);
            else if (m.kind == FW_FLOAT16)
                m.codes = halfs(rows * columns);
            else {
                uint16_t *to = blocks.make<uint16_t>(rows * columns);
                for (int64_t i = 0; i < rows * columns; ++i)
                    to[i] = static_cast<uint16_t>(0x3d00 | (random.next() & 0x80ff));
                m.codes = to;
            }
        }
    }

    void build() {
        static const int64_t widths[] = {32, 40, 48, 64, 96}, vocabularies[] = {7, 32, 50, 77, 300};
        static const int64_t head_widths[] = {8, 16, 20, 32}, ffns[] = {32, 70, 96, 320};
        d.size = sizeof d;
        d.hidden = random.of(widths);
        d.vocabulary = random.of(vocabularies);
        d.num_key_heads = 1 + random.below(2);
        d.num_heads = d.num_key_heads * (1 + random.below(2));
        d.head_width = random.of(head_widths);
        d.num_layers = 1 + random.below(2);
        d.epsilon = 1e-5f;
        d.attention_scale = 0.25f;
        if (random.one_in(4)) d.attention_softcap = 50.0f;
        if (random.one_in(4)) d.final_softcap = 30.0f;
        d.embedding_scale = random.one_in(4) ? 8.0f : 1.0f;
        d.activation = static_cast<int32_t>(random.below(3));
        d.whole_numbers = !random.one_in(4);
        d.half_cache = random.one_in(2);
        d.max_rows = static_cast<int32_t>(1 + random.below(20));
        d.final_norm = floats(d.hidden, 0.2f, 1.0f);
        const int64_t q = d.num_heads * d.head_width, kv = d.num_key_heads * d.head_width, ffn = random.of(ffns);
        float *frequencies = blocks.make<float>(d.head_width / 2);
        for (int64_t i = 0; i < d.head_width / 2; ++i) frequencies[i] = 1.0f / static_cast<float>(1 << i);
        fw_layer *all = blocks.make<fw_layer>(d.num_layers);
        d.layers = all;
        for (int64_t i = 0; i < d.num_layers; ++i) {
            fw_layer &l = all[i];
            layers.push_back(&l);
            l.size = sizeof l;
            const fw_rotation *one = rotation(d.hidden), *two = random.one_in(2) ? one : rotation(d.hidden);
            matrix(l.query, q, d.hidden, one);
            matrix(l.key, kv, d.hidden, one);
            matrix(l.value, kv, d.hidden, two);
            matrix(l.out, d.hidden, q, rotation(q));
            matrix(l.gate, ffn, d.hidden, two);
            matrix(l.up, ffn, d.hidden, one);
            matrix(l.down, d.hidden, ffn, rotation(ffn));
            l.attention_norm = floats(d.hidden, 0.2f, 1.0f);
            l.ffn_norm = floats(d.hidden, 0.2f, 1.0f);
            if (random.one_in(3)) l.after_attention_norm = floats(d.hidden, 0.2f, 1.0f);
            if (random.one_in(3)) l.after_ffn_norm = floats(d.hidden, 0.2f, 1.0f);
            if (random.one_in(3)) l.query_norm = floats(d.head_width, 0.2f, 1.0f);
            if (random.one_in(3)) l.key_norm = floats(d.head_width, 0.2f, 1.0f);
            l.frequencies = frequencies;
            l.window = random.one_in(3) ? 1 + random.below(9) : 0;
        }
        matrix(d.embedding, d.vocabulary, d.hidden, all[0].query.input);
        if (random.one_in(2)) matrix(d.head, d.vocabulary, d.hidden, rotation(d.hidden));
    }
};

// Room for one sequence of `capacity` tokens.
struct Cache {
    void *keys, *values;
    int64_t capacity;
    Cache(Blocks &blocks, const fw_description &d, int64_t tokens) : capacity(up(tokens, 16)) {
        const int64_t bytes =
            d.num_layers * d.num_key_heads * capacity * up(d.head_width, 16) * (d.half_cache ? 2 : 4);
        keys = blocks.make<uint8_t>(bytes);
        values = blocks.make<uint8_t>(bytes);
    }
};

}  // namespace tiny
