// Matrices of a model: their sizes, pointers to their codes, and the tables of their kernels. They
// are checked once, when the model is built.
#pragma once
#include <cstdint>

#include "featherweight.h"
#include "kernels/kernels.h"
#include "rotation.h"
#include "trellis_code.h"

namespace fw {

struct Matrix {
    int32_t kind = FW_NONE;
    int64_t rows = 0, columns = 0;                // of the matrix itself
    int64_t padded_rows = 0, padded_columns = 0;  // of its codes
    int32_t planes = 0;  // int8 planes that its activations are rounded to; 0: float32 activations
    IntMatrix ints = {};
    TrellisMatrix trellis = {};
    float table_scale = 0.0f;
    int32_t state_bits = 0, rate = 0;
    const float *state_values = nullptr;
    const uint8_t *codes = nullptr;
    const uint16_t *scales = nullptr;
    const float *bias = nullptr;
    const Rotation *input = nullptr, *output = nullptr;

    bool is_float() const {
        return kind == FW_FLOAT32 || kind == FW_FLOAT16 || kind == FW_BFLOAT16;
    }
    bool is_int8(int32_t of_kind) const { return planes > 0 && kind == of_kind; }

    // Decodes at most 16 rows from `row` on (row % 16 == 0) to float32, `padded_columns` apart.
    // Returns their number. scratch: [scratch_floats()].
    int64_t decode_rows(const Kernels &k, int64_t row, float *out, float *scratch) const;
    void decode_row(const Kernels &k, int64_t row, float *out, float *scratch) const;
    int64_t scratch_floats() const;

private:
    void decode_trellis_rows(const Kernels &k, int64_t row, float *out) const;
    void decode_int_row(const Kernels &k, int64_t row, float *out, float *scratch) const;
};

// The rotations and trellis codes that several matrices of a model use.
struct SharedTables {
    Rotations rotations;
    TrellisCodes codes;
};

// Fills `matrix`; returns FW_BAD_ARGUMENT when sizes contradict each other. If `int8_activations`
// is true and a kernel for int8 activations exists, rotated activations are rounded to one plane
// and others to two, because activations without a rotation have outliers.
int32_t build_matrix(const fw_matrix &source, bool int8_activations, SharedTables &tables,
                     Matrix &matrix);

}  // namespace fw
