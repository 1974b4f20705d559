// What one instruction set offers: a table of plain functions on one unit of work (a tile, a row, a line of lanes).
//
// kernels.inc fills the table once per instruction set; dispatch.cpp picks a table; abi.cpp cuts the work into units.
// No standard library header may be included here: an inline template instantiated in the AVX-512 object could win at
// link time and run on a machine without AVX-512.
#pragma once
#include <stdint.h>

namespace fw {

// One Viterbi problem: `table` holds round(values * scale) for all states, 64-byte aligned.
struct Trellis {
    const int16_t *table;
    int32_t state_bits;
    int32_t rate;
    int64_t length;
};

struct Kernels {
    const char *name;
    // x: [length] scaled samples in trellis order; rows: scratch of (length + 1) * 2^(state_bits - rate) words, 64-byte
    // aligned; states: [length] in trellis order.
    void (*viterbi)(const Trellis &trellis, const int16_t *x, uint16_t *rows, uint16_t *states);
    // stream: rate * length / 8 bytes followed by the same again (at least 8 bytes); out: [length].
    void (*decode)(const uint8_t *stream, int64_t length, const float *values, int32_t state_bits, int32_t rate,
                   float *out);
    // The same for a 16 x 16 tile, scaled: scales: [16]; out: 16 rows of 16, `stride` floats apart.
    void (*tile)(const uint8_t *stream, const float *values, int32_t state_bits, int32_t rate, const float *scales,
                 float *out, int64_t stride);
    // One row of a row block: base points at its lane in the first line, scales and zeros at its own in the first
    // group (16 floats a group). out: [columns].
    void (*int_row)(const uint8_t *base, int64_t columns, int32_t bits, const float *scales, const float *zeros,
                    int64_t group, float *out);
    // x: [2^power, order] in place; kernel: [order, width], zero from column `order` on, or null for none;
    // scratch: [4, width]. Not normalised.
    void (*hadamard)(float *x, int32_t power, int64_t order, const float *kernel, int64_t width, float *scratch);
};

const Kernels *kernels_scalar();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();

}  // namespace fw
