// The kernels of one instruction set: a table of plain functions, each for one unit of work (a
// tile, a row of numbers, a block of rows).
//
// Where to find a kernel:
//
//     scalar/  avx2/  avx512/   the code that is specific to an instruction set
//         simd.h                its registers: 16-bit words, bytes, 32-bit accumulators, floats
//         int_dot.inc           integer codes times int8 activations, one chunk of 32 columns
//         trellis_dot.inc       trellis codes times int8 activations, one row block
//         kernels.cpp           the translation unit of the instruction set
//     shared/                   code for all instruction sets, written with the types of simd.h
//         <format>_dot.inc      products with codes of a format
//         <format>_decode.inc   codes of a format to float32
//         table.inc             gives every field of `Kernels` its function, by name
//
// A new instruction set needs a folder with these four files (they may include files of another
// folder), a line in dispatch.cpp and one in CMakeLists.txt. A new format needs
// shared/<format>_dot.inc, a file of the same name in each folder whose instruction set has special
// code for it, a field of `Kernels`, and its line in shared/table.inc.
//
// All instruction sets give the same bits: integer sums are exact, and floats are added in an order
// that does not depend on the width of a register (sixteen lanes, then a fixed tree).
//
// No C++ standard library header may be included here or in any kernel source: an inline template
// that is instantiated in the AVX-512 object could be the copy that the linker keeps, and a machine
// without AVX-512 would then run it.
#pragma once
#include <stdint.h>

// For functions that must be inlined. Without it, the compiler's decision depends on the size of
// the whole file.
#define FW_INLINE inline __attribute__((always_inline))

namespace fw {

// The sizes of lane order (ops/lanes.py).
constexpr int64_t line_bytes = 64;           // byte lanes that lie side by side
constexpr int64_t tile_rows = 16;            // a trellis tile is 16 x 16, one stream
constexpr int64_t trellis_block_rows = 256;  // rows of a row block of trellis codes
constexpr int64_t trellis_columns = 64;  // columns of a column block of trellis codes: four tiles
constexpr int64_t int_block_rows = 16;   // rows of a row block of integer codes
constexpr int64_t chunk_columns = 32;    // columns of a chunk of integer codes

// One Viterbi problem. `state_values` holds round(value * scale) of every state, 64-byte aligned.
struct Trellis {
    const int16_t *state_values;
    int32_t state_bits;
    int32_t rate;
    int64_t length;
};

// Integer codes in lane order: rows % 16 == 0, columns % 32 == 0; group % 32 == 0, or one group
// holds all columns.
struct IntMatrix {
    const uint8_t *codes;
    const uint16_t *scales;      // fp16, [rows / 16, num_groups, 16]
    const uint8_t *zero_points;  // the same shape, or null: `zero_point` for all
    int64_t rows, columns, group, num_groups;
    int32_t bits;
    int32_t zero_point;
};

// Streams of 16 x 16 tiles in lane order: rows % 64 == 0, columns % 64 == 0.
//
// The code is GF(2)-linear: the state at step t of a stream is hashed to eight bits, and the weight
// is the entry of a table of 256 at that hash, minus an offset. The hash is a linear function of
// the bits of the stream. Let byte k be the byte at (rate * t) / 8 + k, and p = (rate * t) mod 8:
//
//     hash = byte0_matrices[p] byte 0  ^  byte1_matrices[p] byte 1  ^  byte2_matrices[p] byte 2
//
// as 8 x 8 bit matrices in the order of vgf2p8affineqb.
//
// These matrices give the hash with its bits permuted, as `permuted_table` expects it. If
// `select_by_min_max` is true, the permutation is such that for every h < 128
//
//     h  <=  permuted_table[h]  <=  permuted_table[h + 128]  <=  h + 128,
//
// so that min(max(hash, table[hash mod 128]), table[hash mod 128 + 128]) is the entry at `hash`.
struct TrellisMatrix {
    const uint8_t *codes;
    int64_t rows, columns;
    int32_t rate;
    int32_t state_bits;
    const uint64_t *byte0_matrices, *byte1_matrices, *byte2_matrices;  // [8] each
    const uint8_t *permuted_table;  // [256] value + permuted_offset, 64-byte aligned
    int32_t permuted_offset;
    bool select_by_min_max;
    const uint8_t *table;  // [256] value + 64, for hashes whose bits are not permuted
    // A, W and B + 64, of 16 bytes each, where the table is B[high] + clamp(A[low], -W[high],
    // W[high]) with the low and the high nibble of the hash; else null.
    const uint8_t *nibble_tables;
    // The code's matrix times the state's bits 8 to 11, and times its bits 12 to 15: the low
    // nibbles of both products, then the high ones, 16 bytes each.
    const uint8_t *older_bit_tables;
    const int8_t *state_values;  // [2^state_bits] value of every state
};

// Activations rounded to int8: x = scale * code. A token has one vector of codes. When eight bits
// are too coarse it has two, the planes high and low: x = scales[0] * high + scales[1] * low with
// scales[0] = 128 * scales[1].
struct Int8Activations {
    const int8_t *codes;        // [vectors, columns], zero beyond the matrix's own columns
    const int8_t *interleaved;  // the same, the four segments of 16 columns in every 64 interleaved
    // [vectors, prefix_stride] sums of the codes before each chunk of 32 columns, and of all.
    const int32_t *prefix_sums;
    const float *scales;    // [vectors]
    int64_t columns;        // % 64 == 0
    int64_t prefix_stride;  // columns / 32 + 1
};

// How keys and values are stored in the KV cache.
enum class CacheType : int32_t { float32 = 0, fp16 = 1 };

// Queries against the KV cache of one key-value head: queries of several heads of one token, or of
// one head of consecutive tokens.
struct Attention {
    const float *queries;  // [num_queries, query_stride] already scaled
    int64_t query_stride;
    const void *keys;      // [blocks of 16 positions, head_width, 16]
    const void *values;    // [positions, head_width]
    int64_t head_width;    // % 16 == 0
    int64_t begin, end;    // positions that the first query reads
    int64_t causal_step;   // each further query reads this many positions more: 0 or 1
    int64_t window;        // the largest number of positions that a query reads; 0: no limit
    float softcap;         // 0: none
    float *scores;         // scratch [num_queries, score_stride]
    int64_t score_stride;  // % 16 == 0, at least end + num_queries + 15
    float *out;            // [num_queries, out_stride]
    int64_t out_stride;
    CacheType cache_type;
};

// The nonlinear function of a gated feed-forward layer.
enum class Activation : int32_t { silu = 0, gelu_tanh = 1, relu_squared = 2 };

// Floating-point types of 16 bits.
enum class ShortFloat : int32_t { fp16 = 1, bf16 = 2 };

struct Kernels {
    const char *name;

    // The states of the cheapest tail-biting path. samples: [length] scaled, in trellis order;
    // cost_rows: scratch of (length + 1) * 2^(state_bits - rate) words, 64-byte aligned; states:
    // [length] in trellis order.
    void (*encode_trellis)(const Trellis &trellis, const int16_t *samples, uint16_t *cost_rows,
                           uint16_t *states);
    // stream: rate * length / 8 bytes followed by its own first 8 bytes; out: [length].
    void (*decode_trellis)(const uint8_t *stream, int64_t length, const float *state_values,
                           int32_t state_bits, int32_t rate, float *out);
    // The same for a 16 x 16 tile, scaled. scales: [16]; out: 16 rows of 16, `stride` floats apart.
    void (*decode_trellis_tile)(const uint8_t *stream, const float *state_values,
                                int32_t state_bits, int32_t rate, const float *scales, float *out,
                                int64_t stride);
    // One row of a row block. row_codes points at the row's lanes in the block's first line, scales
    // and zero_points at its own in the first group (16 floats a group). out: [columns].
    void (*decode_int_row)(const uint8_t *row_codes, int64_t columns, int32_t bits,
                           const float *scales, const float *zero_points, int64_t group,
                           float *out);
    // In place on x [2^power, order], not normalised. kernel: [order, kernel_stride], zero from
    // column `order` on, or null for order 1; scratch: order * 2^power + kernel_stride floats.
    void (*hadamard)(float *x, int32_t power, int64_t order, const float *kernel,
                     int64_t kernel_stride, float *scratch);
    // out = x, negated where a bit of `signs` is set (from the lowest of the first byte on); any
    // count, out may be x.
    void (*flip_signs)(const float *x, const uint8_t *signs, int64_t count, float *out);

    // out[vector * out_stride + row] = the product with row blocks block_begin .. block_end - 1.
    void (*int_dots)(const IntMatrix &w, int64_t block_begin, int64_t block_end,
                     const Int8Activations &x, int64_t first_vector, int64_t num_vectors,
                     float *out, int64_t out_stride);
    // out[vector * out_stride + row] = exact sums over column blocks column_begin .. column_end - 1
    // of row block `block` (256 rows, the last block fewer). sums: scratch of 16 x 16 x 16 words,
    // 64-byte aligned; at most 16 vectors.
    void (*trellis_dots)(const TrellisMatrix &w, int64_t block, int64_t column_begin,
                         int64_t column_end, const Int8Activations &x, int64_t first_vector,
                         int64_t num_vectors, int32_t *sums, int32_t *out, int64_t out_stride);
    // out[token * out_stride + row] = rows[row] . x[token] for at most 16 rows; row_stride and
    // x_stride are multiples of 16, and both operands are zero beyond `columns`.
    void (*float_dots)(const float *rows, int64_t num_rows, int64_t row_stride, const float *x,
                       int64_t x_stride, int64_t num_tokens, int64_t columns, float *out,
                       int64_t out_stride);
    // float32 from a type of 16 bits; any count.
    void (*widen)(const uint16_t *from, ShortFloat type, int64_t count, float *out);

    // Rounds a vector to one or two planes of int8. codes, interleaved: [planes, columns];
    // prefix_sums: [planes, columns / 32 + 1]; scales: [planes]; columns % 64 == 0.
    void (*round_activations)(const float *x, int64_t columns, int planes, int8_t *codes,
                              int8_t *interleaved, int32_t *prefix_sums, float *scales);
    // out = x / sqrt(mean(x^2) + epsilon) * weight, for `count` numbers padded with zeros to % 16
    // == 0.
    void (*rms_norm)(const float *x, const float *weight, int64_t count, float epsilon, float *out);
    // out = (sum of num_parts integer vectors, part_stride apart) * (scales[i] * factor); scales
    // are fp16; count % 16 == 0.
    void (*scale_sums)(const int32_t *partial_sums, int64_t num_parts, int64_t part_stride,
                       const uint16_t *scales, float factor, int64_t count, float *out);
    // x += y; count % 16 == 0.
    void (*add)(float *x, const float *y, int64_t count);
    // out = activation(gate) * up; count % 16 == 0.
    void (*apply_gate)(const float *gate, const float *up, Activation activation, int64_t count,
                       float *out);
    // x = cap * tanh(x / cap); any count.
    void (*apply_softcap)(float *x, float cap, int64_t count);
    // Rotary positions, in place on x [heads, stride] with cosines and sines [half_width]: the
    // first and the second half of a head are the two coordinates.
    void (*apply_rope)(float *x, int64_t num_heads, int64_t stride, const float *cosines,
                       const float *sines, int64_t half_width);
    // Writes one token's key and value of one head into the KV cache at `position`.
    void (*store_kv)(const float *key, const float *value, int64_t head_width, int64_t position,
                     CacheType cache_type, void *keys, void *values);
    // Softmax attention of 1 to 4 queries.
    void (*attend)(const Attention &a, int64_t num_queries);
};

const Kernels *kernels_scalar();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();

}  // namespace fw
