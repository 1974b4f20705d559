// What one instruction set offers: a table of plain functions on one unit of work (a tile, a row, a line of lanes).
//
// The .inc files fill the table once per instruction set; dispatch.cpp picks a table; abi.cpp and model.cpp cut the work
// into units. Every table gives the same bits: integer sums are exact, and floats are added in one order that does not
// depend on the width of a register (sixteen lanes, then a fixed tree).
// No standard library header may be included here: an inline template instantiated in the AVX-512 object could win at
// link time and run on a machine without AVX-512.
#pragma once
#include <stdint.h>

// For what must not become a call: whether compilers see that by themselves depends on the size of the whole file.
#define FW_INLINE inline __attribute__((always_inline))

namespace fw {

// One Viterbi problem: `table` holds round(values * scale) for all states, 64-byte aligned.
struct Trellis {
    const int16_t *table;
    int32_t state_bits;
    int32_t rate;
    int64_t length;
};

// Integer codes in lane order (ops/lanes.py): rows % 16 == 0, columns % 32 == 0, group % 32 == 0 or one for all columns.
struct IntMatrix {
    const uint8_t *codes;
    const uint16_t *scales;  // fp16, [rows / 16, groups, 16]
    const uint8_t *zeros;    // the same shape, or null: `zero` for all
    int64_t rows, columns, group, groups;
    int32_t bits;
    int32_t zero;
};

// Streams of 16 x 16 tiles in lane order: rows % 64 == 0, columns % 64 == 0. The code is GF(2)-linear: from the bits
// behind position rate * t of a stream, h = first[p] byte + second[p] next byte + third[p] the one after, with p the
// position modulo 8, as 8 x 8 bit matrices in the order of vgf2p8affineqb; the number is table[h] - offset.
// `ordered`: the bits of h are in such an order that max(h mod 128, table[h mod 128]) = table[h mod 128] <=
// table[h mod 128 + 128] <= h mod 128 + 128: the last bit chooses the greater of two, the one before tells the sign.
struct TrellisMatrix {
    const uint8_t *codes;
    int64_t rows, columns;
    int32_t rate;
    int32_t state_bits;
    const uint64_t *first, *second, *third;  // [8]
    const uint8_t *table;                    // [256], 64-byte aligned
    int32_t offset;
    bool ordered;
    const uint8_t *plain_table;              // [256] value + 64, where bits of h are as the code's matrix M has them
    const uint8_t *nibbles;                  // A, W, B + 64 of 16 each where that is the plain table, else null
    const uint8_t *older;                    // M times older bits 0-3 and 4-7: low nibbles of both, then high ones, 16 each
    const int8_t *states;                    // [2^state_bits] value of every state
};

// Activations rounded to whole numbers: x = scale * code. One vector may be two of these `tokens`, 128 times a code plus
// another, where eight bits are too coarse.
struct Codes {
    const int8_t *natural;    // [tokens, columns], zero beyond the matrix's own
    const int8_t *segments;   // the same with 4 x 16 columns transposed to 16 x 4 in every 64 (what tiles walk)
    const int32_t *prefix;    // [tokens, columns / 32 + 1] sums of the codes before each chunk of 32
    const float *scales;      // [tokens]
    int64_t columns;          // % 64 == 0
    int64_t chunks;           // columns / 32 + 1
};

// Queries against what is remembered of one key-value head: of one token's heads, or of consecutive tokens.
struct Attention {
    const float *query;       // [rows, width] already scaled
    int64_t query_stride;
    const void *keys;         // [blocks of 16 positions, width, 16]
    const void *values;       // [positions, width]
    int64_t width;            // % 16 == 0
    int64_t begin, end;       // positions that the first row reads
    int64_t more;             // how many more each further row reads: 0 or 1
    int64_t window;           // at most so many positions a row; 0: all
    float softcap;            // 0: none
    float *scores;            // scratch [rows, end + rows + 32]
    int64_t score_stride;     // % 16 == 0
    float *out;               // [rows, width]
    int64_t out_stride;
    int32_t half;             // keys and values are fp16, else fp32
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
    // scratch: order * 2^power + width floats. Not normalised.
    void (*hadamard)(float *x, int32_t power, int64_t order, const float *kernel, int64_t width, float *scratch);
    // out = x, negative where a bit of `signs` is set (from the lowest of the first byte on); any count, out may be x.
    void (*flip)(const float *x, const uint8_t *signs, int64_t count, float *out);

    // out[token * stride + row] = the product with row blocks begin .. end - 1 (16 rows each).
    void (*int_dots)(const IntMatrix &w, int64_t begin, int64_t end, const Codes &x, int64_t token, int64_t tokens,
                     float *out, int64_t stride);
    // out[token * stride + row] = exact sums over column blocks first .. last - 1 (64 columns each) of row block `block`
    // (256 rows, the last fewer); sums: scratch of 16 x 16 x 16 words, 64-byte aligned.
    void (*trellis_dots)(const TrellisMatrix &w, int64_t block, int64_t first, int64_t last, const Codes &x,
                         int64_t token, int64_t tokens, int32_t *sums, int32_t *out, int64_t stride);
    // out[token * stride + r] = rows[r] . x[token] for 16 or fewer rows; row_stride, x_stride % 16 == 0, zero beyond.
    void (*float_dots)(const float *rows, int64_t count, int64_t row_stride, const float *x, int64_t x_stride,
                       int64_t tokens, int64_t columns, float *out, int64_t stride);
    // Float32 from fp16 (kind 1) or bf16 (kind 2); count % 16 == 0 is not needed.
    void (*widen)(const uint16_t *from, int32_t kind, int64_t count, float *out);

    // x -> whole numbers of one or two digits: natural and segments [digits, columns], prefix [digits, columns / 32 + 1],
    // scales [digits]; columns % 64 == 0.
    void (*round)(const float *x, int64_t columns, int digits, int8_t *natural, int8_t *segments, int32_t *prefix,
                  float *scales);
    // out = x / sqrt(mean(x^2) + eps) * weight; count numbers of a row padded with zeros to % 16 == 0.
    void (*norm)(const float *x, const float *weight, int64_t count, float eps, float *out);
    // out = (sum of `parts` integer vectors, part_stride apart) * (scales[r] * unit * scale); scales fp16; count % 16 == 0.
    void (*gather)(const int32_t *parts, int64_t num_parts, int64_t part_stride, const uint16_t *scales, float factor,
                   int64_t count, float *out);
    void (*add)(float *x, const float *y, int64_t count);             // x += y
    void (*gate)(const float *gate, const float *up, int32_t activation, int64_t count, float *out);
    void (*softcap)(float *x, float cap, int64_t count);              // cap tanh(x / cap); any count
    // In place on [heads, width] with cos and sin of [width / 2]: first and second half are the two coordinates.
    void (*rope)(float *x, int64_t heads, int64_t stride, const float *cosines, const float *sines, int64_t half);
    // Keep one token's key and value of one head at `position`.
    void (*remember)(const float *key, const float *value, int64_t width, int64_t position, int32_t half, void *keys,
                     void *values);
    void (*attend)(const Attention &a, int64_t rows);                 // rows 1 .. 4
};

const Kernels *kernels_scalar();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();

}  // namespace fw
