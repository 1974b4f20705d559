// A model as the native library sees it: checked matrices with what their kernels need, layers, and scratch space.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "featherweight.h"
#include "kernels.h"
#include "pool.h"

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
    const float *signs = nullptr;
    std::vector<Block> blocks;
    Array<float> kernels;  // padded copies

    // x: [length padded], in place; scratch: 4 rows of the widest kernel.
    void apply(const Kernels &k, float *x, float *scratch) const;
    void undo(const Kernels &k, float *x, float *scratch) const;
    int64_t scratch_floats() const;
};

// The tables of one trellis code, shared by all matrices that use it.
struct TrellisCode {
    const int8_t *source;  // what they were made from
    const uint8_t *source_matrix;
    int32_t state_bits;
    bool split;
    Array<uint64_t> linear;
    Array<uint8_t> table;  // [256], nibble tables [64], columns of M
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
    int64_t groups_read = 0;  // FW_INT: groups of the padded columns

    bool is_float() const { return kind == FW_FLOAT32 || kind == FW_FLOAT16 || kind == FW_BFLOAT16; }
    // Rows row ... of at most 16 (row % 16 == 0) as float32, `padded_columns` apart.
    int64_t decode(const Kernels &k, int64_t row, float *out, float *scratch) const;
    void decode_one(const Kernels &k, int64_t row, float *out, float *scratch) const;
    int64_t scratch_floats() const;  // what either needs
};

// Fills `matrix`; FW_BAD_ARGUMENT when a size does not fit. `shared` owns what more than one matrix uses.
int32_t make_matrix(const fw_matrix &from, bool whole_numbers, Shared &shared, Matrix &matrix);

}  // namespace fw
