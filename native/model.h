// A model as the native library sees it: checked matrices with what their kernels need, layers, and working memory.
#pragma once
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "featherweight.h"
#include "kernels.h"
#include "pool.h"
#include "shares.h"

namespace fw {

constexpr int64_t wide = 64;  // rows of numbers are padded to whole lines of lanes

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Memory in lines of 64 bytes, zeroed; pages that are never written cost nothing.
template <typename T>
class Array {
public:
    Array() = default;
    explicit Array(int64_t count)
        : memory_(std::calloc(static_cast<size_t>(count) * sizeof(T) + 128, 1)) {
        if (!memory_) throw std::bad_alloc();
    }
    T *get() const {
        return reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64);
    }
    explicit operator bool() const { return static_cast<bool>(memory_); }

private:
    struct Free {
        void operator()(void *p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
};

struct Rotation {
    struct Block {
        int32_t power;
        int64_t order, width;
        const float *forward, *inverse;
        const float *source, *source_transposed;  // what these were copied from
    };
    int64_t length = 0;
    const uint8_t *signs = nullptr;
    std::vector<Block> blocks;
    Array<float> kernels;  // padded copies

    // x, to: [length padded]; undo in place; scratch: `scratch_floats()`.
    void apply(const Kernels &k, const float *x, float *to, float *scratch) const;
    void undo(const Kernels &k, float *x, float *scratch) const;
    int64_t scratch_floats() const;
};

// The tables of one trellis code, shared by all matrices that use it.
struct TrellisCode {
    const int8_t *source;  // what they were made from
    const uint8_t *source_matrix;
    int32_t state_bits;
    bool split, ordered;
    Array<uint64_t> linear;
    Array<uint8_t> table;  // [256] in the order of `linear`, [256] as it came, nibble tables [48], older bits [64]
    Array<int8_t> states;
};

// What the matrices of a model share.
struct Shared {
    std::vector<std::unique_ptr<Rotation>> rotations;
    std::vector<const fw_rotation *> known;
    std::vector<std::unique_ptr<TrellisCode>> codes;
};

struct Matrix {
    int32_t kind = FW_NONE;
    int64_t rows = 0, columns = 0;                // as the model means them
    int64_t padded_rows = 0, padded_columns = 0;  // as the codes hold them
    bool fast = false;                            // whole-number activations and a kernel for them
    IntMatrix ints = {};
    TrellisMatrix trellis = {};
    float unit = 0.0f;
    int32_t state_bits = 0, rate = 0;
    const float *values = nullptr;
    const uint8_t *codes = nullptr;
    const uint16_t *scales = nullptr;
    const float *bias = nullptr;
    const Rotation *input = nullptr, *output = nullptr;

    bool is_float() const { return kind == FW_FLOAT32 || kind == FW_FLOAT16 || kind == FW_BFLOAT16; }
    // Rows row ... of at most 16 (row % 16 == 0) as float32, `padded_columns` apart.
    int64_t decode(const Kernels &k, int64_t row, float *out, float *scratch) const;
    void decode_one(const Kernels &k, int64_t row, float *out, float *scratch) const;
    int64_t scratch_floats() const;  // what either needs
};

// Fills `matrix`; FW_BAD_ARGUMENT when a size does not fit. `shared` owns what more than one matrix uses.
int32_t make_matrix(const fw_matrix &from, bool whole_numbers, Shared &shared, Matrix &matrix);

constexpr int64_t repeated = 2;  // rows whose vector work every thread does for itself
constexpr int64_t few = 8;       // rows whose trellis codes are divided by columns too, and logits that are made at once

struct Span {
    int64_t begin, end;
};

// Part `index` of `count` units cut into `parts`.
inline Span part_of(int64_t count, int64_t index, int64_t parts) {
    return {count * index / parts, count * (index + 1) / parts};
}

// Some rows' activations on their way into matrices that share a rotation. Rotated ones are spread evenly and take one
// digit of eight bits; others have outliers, and take two.
struct Input {
    Array<float> numbers;  // [rows, width] rotated
    Array<int8_t> natural, segments;
    Array<int32_t> prefix;
    Array<float> scales;
    int64_t width = 0, chunks = 0;

    Input() = default;
    Input(int64_t rows, int64_t columns)
        : width(round_up(columns, wide)), chunks(width / 32 + 1) {
        numbers = Array<float>(rows * width);
        natural = Array<int8_t>(2 * rows * width);
        segments = Array<int8_t>(2 * rows * width);
        prefix = Array<int32_t>(2 * rows * chunks);
        scales = Array<float>(2 * rows);
    }
    Codes codes() const { return {natural.get(), segments.get(), prefix.get(), scales.get(), width, chunks}; }
};

// Products of all rows with one matrix, finished by whoever reads them.
struct Output {
    Array<float> numbers;   // [rows, width]
    Array<int32_t> parts;   // [threads, few or rows, width]: sums of each thread's columns
    int64_t width = 0;
};

struct Layer {
    Matrix query, key, value, out, gate, up, down;
    const float *attention_norm, *ffn_norm, *after_attention_norm, *after_ffn_norm, *query_norm, *key_norm;
    int64_t window;
    int32_t rope;  // which table of angles
};

// What is kept of every row between phases: of repeated rows each thread has its own, of more all share one.
struct Rows {
    Array<float> residual, queries;
    // Query, key, value or gate and up; the last for out and down, so that no thread overwrites the scales with which
    // another still finishes a product of the phase before.
    Input inputs[4];
};

// What a thread needs while it works on one row.
struct Space {
    Array<float> normed, keys, values, temporary, low, scratch, decoded;
    Array<int32_t> sums;
    Rows rows;
};

}  // namespace fw

struct fw_model {
    fw_description d;
    const fw::Kernels *kernels;
    int threads;
    fw::Shared parts;
    std::vector<fw::Layer> layers;
    fw::Matrix embedding, head;
    const fw::Matrix *table = nullptr;  // of the head
    fw::Array<float> final_norm;
    std::vector<fw::Array<float>> norms;  // padded copies
    std::vector<const float *> frequencies;
    int64_t head_width = 0, padded_hidden = 0, ffn = 0, padded_ffn = 0, query_width = 0, key_width = 0, max_rows = 0;
    std::vector<fw::Space> spaces;
    std::vector<fw::Spent> spent;  // by each thread in this call
    fw::Shares shares[2];          // of products: of many rows, of repeated ones (`Run::alone`)
    fw::Rows shared;
    fw::Output query_out, key_out, value_out, out_out, gate_out, up_out, down_out;
    fw::Array<float> mixed;                    // attention's result, shared by all
    std::vector<fw::Array<float>> angles;      // cosines and sines [rows, head_width / 2] for each rope
    fw::Input head_input;
    fw::Output head_out;
    std::mutex busy;
};
