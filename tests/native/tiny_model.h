// A whole model that is built from a seed: what the fuzzer mutates, and what another processor must
// compute to the same bits. Every array lies in memory of its own, whose end is guarded. Needs no
// mathematics library.
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
    // Uniform in [-1, 1).
    float uniform() { return static_cast<float>(next() >> 40) * (1.0f / 8388608.0f) - 1.0f; }
    template <typename T, size_t N>
    T choose(const T (&choices)[N]) {
        return choices[below(N)];
    }

private:
    uint64_t state_;
};

// Zeroed memory whose end cannot be passed: AddressSanitizer watches it, or the next page has no
// access.
class GuardedMemory {
public:
    GuardedMemory() = default;
    GuardedMemory(const GuardedMemory &) = delete;
    GuardedMemory &operator=(const GuardedMemory &) = delete;
    ~GuardedMemory() {
        for (const Block &block : blocks_) release(block);
    }
    template <typename T>
    T *allocate(int64_t count) {
        return static_cast<T *>(allocate_bytes(static_cast<size_t>(count) * sizeof(T)));
    }

private:
    struct Block {
        void *start;
        size_t bytes;
    };
    std::vector<Block> blocks_;

#if defined(__SANITIZE_ADDRESS__)
    static void release(const Block &block) { free(block.start); }
    void *allocate_bytes(size_t bytes) {
        void *start = calloc(bytes ? bytes : 1, 1);
        if (!start) abort();
        blocks_.push_back({start, bytes});
        return start;
    }
#else
    static void release(const Block &block) { munmap(block.start, block.bytes); }
    void *allocate_bytes(size_t bytes) {
        const size_t page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t usable = (bytes + page_bytes - 1) / page_bytes * page_bytes,
                     mapped = usable + page_bytes;
        void *start =
            mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED ||
            mprotect(static_cast<char *>(start) + usable, page_bytes, PROT_NONE))
            abort();
        blocks_.push_back({start, mapped});
        return static_cast<char *>(start) + (usable - bytes);
    }
#endif
};

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

struct Model {
    GuardedMemory memory;
    Random random;
    fw_description description = {};
    std::vector<fw_layer *> layers;
    std::vector<fw_matrix *> matrices;
    std::vector<fw_rotation *> rotations;
    std::vector<int64_t> num_rotation_blocks;  // of each rotation, as built

    explicit Model(uint64_t seed) : random(seed) { build(); }

private:
    float *random_floats(int64_t count, float spread, float center = 0.0f) {
        float *floats = memory.allocate<float>(count);
        for (int64_t i = 0; i < count; ++i) floats[i] = center + spread * random.uniform();
        return floats;
    }

    void *random_bytes(int64_t count) {
        uint8_t *bytes = memory.allocate<uint8_t>(count);
        for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(random.next());
        return bytes;
    }

    // fp16 numbers around 2^-6, never a NaN: random sign, low exponent bits and fraction. Half of
    // the arrays begin at an odd address, as they may in a file.
    const uint16_t *random_fp16(int64_t count) {
        uint8_t *bytes = memory.allocate<uint8_t>(2 * count + 1);
        if (random.one_in(2)) ++bytes;
        for (int64_t i = 0; i < count; ++i) {
            const uint16_t number = static_cast<uint16_t>(0x2400 | (random.next() & 0x83ff));
            memcpy(bytes + 2 * i, &number, 2);
        }
        return reinterpret_cast<const uint16_t *>(bytes);
    }

    // A block of order 12 for as many of the remaining numbers as it can hold, or one without a
    // kernel.
    fw_rotation_block rotation_block(int64_t remaining, bool has_kernel) {
        fw_rotation_block block = {0, 1, nullptr, nullptr};
        if (has_kernel) {
            block.order = 12;
            while (remaining % (int64_t{12} << (block.power + 1)) == 0) ++block.power;
            float *kernel = random_floats(144, 0.5f), *transposed = memory.allocate<float>(144);
            for (int i = 0; i < 144; ++i) transposed[i % 12 * 12 + i / 12] = kernel[i];
            block.kernel = kernel;
            block.kernel_transposed = transposed;
        } else {
            while ((int64_t{2} << block.power) <= remaining) ++block.power;
        }
        return block;
    }

    fw_rotation *build_rotation(int64_t length) {
        fw_rotation *rotation = memory.allocate<fw_rotation>(1);
        rotation->length = length;
        rotation->signs = static_cast<const uint8_t *>(random_bytes((length + 7) / 8));
        std::vector<fw_rotation_block> blocks;
        const bool has_kernel = length % 12 == 0 && random.one_in(2);
        for (int64_t remaining = length; remaining;) {
            blocks.push_back(rotation_block(remaining, has_kernel));
            remaining -= int64_t{blocks.back().order} << blocks.back().power;
        }
        rotation->num_blocks = static_cast<int64_t>(blocks.size());
        fw_rotation_block *copies = memory.allocate<fw_rotation_block>(rotation->num_blocks);
        memcpy(copies, blocks.data(), blocks.size() * sizeof blocks[0]);
        rotation->blocks = copies;
        rotations.push_back(rotation);
        num_rotation_blocks.push_back(rotation->num_blocks);
        return rotation;
    }

    void build_int(fw_matrix &m) {
        static const int64_t groups[] = {8, 16, 24, 32, 64, 1 << 20};
        const int64_t padded_rows = round_up(m.rows, 16), padded_columns = round_up(m.columns, 32);
        m.bits = static_cast<int32_t>(2 + random.below(7));
        m.group = random.choose(groups);
        if (m.group > padded_columns) m.group = padded_columns;
        m.num_scales = padded_rows * (round_up(padded_columns, m.group) / m.group);
        m.codes_bytes = padded_rows * padded_columns / 8 * m.bits;
        m.scales = random_fp16(m.num_scales);
        m.zero_point = 1 << (m.bits - 1);
        if (random.one_in(3))
            m.zero_points = static_cast<const uint8_t *>(random_bytes(m.num_scales));
        m.codes = random_bytes(m.codes_bytes);
    }

    void build_trellis(fw_matrix &m) {
        m.bits = static_cast<int32_t>(1 + random.below(4));
        m.state_bits = static_cast<int32_t>(8 + random.below(random.one_in(8) ? 9 : 4));
        m.num_scales = round_up(m.rows, 64);
        m.codes_bytes = m.num_scales * round_up(m.columns, 64) / 8 * m.bits;
        m.scales = random_fp16(m.num_scales);
        m.codes = random_bytes(m.codes_bytes);
        m.state_values = random_floats(int64_t{1} << m.state_bits, 2.0f);
        m.table_scale = 1.0f / 32;
        if (random.one_in(5)) return;  // a code without a table
        int8_t *table = memory.allocate<int8_t>(256);
        for (int i = 0; i < 256; ++i) table[i] = static_cast<int8_t>(random.below(127) - 63);
        m.table = table;
        m.code_matrix = static_cast<const uint8_t *>(random_bytes(m.state_bits - 8));
    }

    void build_float(fw_matrix &m) {
        const int64_t count = m.rows * m.columns;
        m.codes_bytes = count * (m.kind == FW_FLOAT32 ? 4 : 2);
        if (m.kind == FW_FLOAT32) {
            m.codes = random_floats(count, 0.2f);
        } else if (m.kind == FW_FLOAT16) {
            m.codes = random_fp16(count);
        } else {
            uint16_t *numbers = memory.allocate<uint16_t>(count);
            for (int64_t i = 0; i < count; ++i)
                numbers[i] = static_cast<uint16_t>(0x3d00 | (random.next() & 0x80ff));
            m.codes = numbers;
        }
    }

    void build_matrix(fw_matrix &m, int64_t rows, int64_t columns, const fw_rotation *input) {
        static const int32_t kinds[] = {FW_FLOAT32, FW_FLOAT16, FW_BFLOAT16, FW_INT,    FW_INT,
                                        FW_INT,     FW_TRELLIS, FW_TRELLIS,  FW_TRELLIS};
        matrices.push_back(&m);
        m.size = sizeof m;
        m.kind = random.choose(kinds);
        m.rows = rows;
        m.columns = columns;
        m.input = random.one_in(4) ? nullptr : input;
        if (random.one_in(4)) m.output = build_rotation(rows);
        if (random.one_in(4)) m.bias = random_floats(rows, 0.1f);
        if (m.kind == FW_INT)
            build_int(m);
        else if (m.kind == FW_TRELLIS)
            build_trellis(m);
        else
            build_float(m);
    }

    void build_layer(fw_layer &layer, int64_t ffn, bool is_fused, const float *rope_frequencies) {
        const fw_description &d = description;
        const int64_t q = d.num_heads * d.head_width, kv = d.num_kv_heads * d.head_width;
        layers.push_back(&layer);
        layer.size = sizeof layer;
        const fw_rotation *first = build_rotation(d.hidden);
        const fw_rotation *second = random.one_in(2) ? first : build_rotation(d.hidden);
        build_matrix(layer.query, is_fused ? q + 2 * kv : q, d.hidden, first);
        if (!is_fused) {
            build_matrix(layer.key, kv, d.hidden, first);
            build_matrix(layer.value, kv, d.hidden, second);
        }
        build_matrix(layer.out, d.hidden, q, build_rotation(q));
        build_matrix(layer.gate, is_fused ? 2 * ffn : ffn, d.hidden, second);
        if (!is_fused) build_matrix(layer.up, ffn, d.hidden, first);
        build_matrix(layer.down, d.hidden, ffn, build_rotation(ffn));
        if (!random.one_in(4)) layer.attention_norm = random_floats(d.hidden, 0.2f, 1.0f);
        if (!random.one_in(4)) layer.ffn_norm = random_floats(d.hidden, 0.2f, 1.0f);
        if (random.one_in(3)) layer.post_attention_norm = random_floats(d.hidden, 0.2f, 1.0f);
        if (random.one_in(3)) layer.post_ffn_norm = random_floats(d.hidden, 0.2f, 1.0f);
        const int64_t query_norm = d.joint_head_norms ? q : d.head_width;
        const int64_t key_norm = d.joint_head_norms ? kv : d.head_width;
        if (random.one_in(3)) layer.query_norm = random_floats(query_norm, 0.2f, 1.0f);
        if (random.one_in(3)) layer.key_norm = random_floats(key_norm, 0.2f, 1.0f);
        layer.rope_frequencies = rope_frequencies;
        layer.window = random.one_in(3) ? 1 + random.below(9) : 0;
    }

    void build() {
        static const int64_t widths[] = {32, 40, 48, 64, 96}, vocabularies[] = {7, 32, 50, 77, 300};
        static const int64_t head_widths[] = {8, 16, 20, 32}, ffns[] = {32, 70, 96, 320};
        fw_description &d = description;
        d.size = sizeof d;
        d.hidden = random.choose(widths);
        d.vocabulary = random.choose(vocabularies);
        d.num_kv_heads = 1 + random.below(2);
        d.num_heads = d.num_kv_heads * (1 + random.below(2));
        d.head_width = random.choose(head_widths);
        d.num_layers = 1 + random.below(2);
        d.epsilon = 1e-5f;
        d.attention_scale = 0.25f;
        if (random.one_in(4)) d.attention_softcap = 50.0f;
        if (random.one_in(4)) d.final_softcap = 30.0f;
        d.embedding_scale = random.one_in(4) ? 8.0f : 1.0f;
        d.residual_scale = random.one_in(4) ? 0.22f : 1.0f;
        d.logit_divisor = random.one_in(4) ? 3.0f : 1.0f;
        d.activation = static_cast<int32_t>(random.below(3));
        d.int8_activations = !random.one_in(4);
        d.fp16_cache = random.one_in(2);
        const bool is_fused = random.one_in(4);
        d.joint_head_norms = !is_fused && random.one_in(3);
        d.rotary_width = random.one_in(4) ? d.head_width / 4 * 2 : d.head_width;
        d.rope_scale = random.one_in(4) ? 1.2f : 1.0f;
        d.max_tokens = static_cast<int32_t>(1 + random.below(20));
        d.final_norm = random_floats(d.hidden, 0.2f, 1.0f);
        const int64_t ffn = random.choose(ffns);
        float *rope_frequencies = memory.allocate<float>(d.rotary_width / 2);
        for (int64_t i = 0; i < d.rotary_width / 2; ++i)
            rope_frequencies[i] = 1.0f / static_cast<float>(1 << i);
        fw_layer *all_layers = memory.allocate<fw_layer>(d.num_layers);
        d.layers = all_layers;
        for (int64_t i = 0; i < d.num_layers; ++i)
            build_layer(all_layers[i], ffn, is_fused, rope_frequencies);
        build_matrix(d.embedding, d.vocabulary, d.hidden, all_layers[0].query.input);
        if (random.one_in(2))
            build_matrix(d.head, d.vocabulary, d.hidden, build_rotation(d.hidden));
    }
};

// The KV cache of one sequence of at least `tokens` tokens.
struct KvCache {
    void *keys, *values;
    int64_t capacity;

    KvCache(GuardedMemory &memory, const fw_description &d, int64_t tokens)
        : capacity(round_up(tokens, 16)) {
        const int64_t numbers =
            d.num_layers * d.num_kv_heads * capacity * round_up(d.head_width, 16);
        keys = memory.allocate<uint8_t>(numbers * (d.fp16_cache ? 2 : 4));
        values = memory.allocate<uint8_t>(numbers * (d.fp16_cache ? 2 : 4));
    }
};

}  // namespace tiny
