// The C ABI of libfeatherweight: all functions that Python (ctypes) or C may call.
//
// Every function checks its sizes and returns a status; no exception leaves the library. Arrays are
// contiguous, little endian and aligned to their element type, except codes and fp16 scales, which
// may be parts of mapped files and begin at any address. Arrays are only read, except `out`.
// `threads` <= 0 means the default (FEATHERWEIGHT_THREADS, else the CPUs that this process may
// use); `isa` null means the default (FEATHERWEIGHT_ISA, else the best that runs here).
#pragma once
#include <stdint.h>

#if defined(__GNUC__)
#define FW_API extern "C" __attribute__((visibility("default")))
#else
#define FW_API extern "C"
#endif

enum fw_status {
    FW_OK = 0,
    FW_BAD_ARGUMENT = 1,
    FW_NOT_FINITE = 2,
    FW_NO_MEMORY = 3,
    FW_NO_ISA = 4,
    FW_BUSY = 5,  // another thread is using this model
};

// The version of this interface. It is increased whenever a signature or a structure below changes,
// and the caller refuses a library with another version.
FW_API int32_t fw_abi(void);
FW_API const char *fw_isa(void);
// The reason why the instruction set in FEATHERWEIGHT_ISA is not used; "" when it is used.
FW_API const char *fw_isa_message(void);
FW_API int32_t fw_isa_available(const char *isa);
FW_API int32_t fw_threads(void);

// Encodes tiles with a trellis code. x: [tiles, length] in units where the code has unit variance;
// state_values: [2^state_bits]; out: [tiles, rate * length / 8] tail-biting streams. `scale`: see
// ops/trellis/reference.py.
FW_API int32_t fw_viterbi_encode(const float *x, int64_t tiles, int64_t length,
                                 const float *state_values, int32_t state_bits, int32_t rate,
                                 float scale, const char *isa, int32_t threads, uint8_t *out);

// Decodes trellis streams. streams: [tiles, rate * length / 8]; out: [tiles, length].
FW_API int32_t fw_trellis_decode(const uint8_t *streams, int64_t tiles, int64_t length,
                                 const float *state_values, int32_t state_bits, int32_t rate,
                                 const char *isa, int32_t threads, float *out);

// Decodes a matrix of trellis codes. codes: rows * columns * rate / 8 bytes of 16x16 tiles in lane
// order (ops/lanes.py); scales: [rows]; out: [rows, columns] = scale * value. rows % 64 == 0,
// columns % 64 == 0.
FW_API int32_t fw_trellis_dense(const uint8_t *codes, int64_t rows, int64_t columns,
                                const float *state_values, int32_t state_bits, int32_t rate,
                                const float *scales, const char *isa, int32_t threads, float *out);

// Decodes rows of a matrix of integer codes. codes: rows * columns * bits / 8 bytes in lane order;
// scales, zero_points: [rows / 16, ceil(columns / group), 16]; indices: [count] rows to decode, or
// null for all in order (then count == rows); out: [count, columns] = scale * (code - zero point).
// rows % 16 == 0, columns % 32 == 0.
FW_API int32_t fw_int_dense(const uint8_t *codes, int64_t rows, int64_t columns, int32_t bits,
                            const float *scales, const float *zero_points, int64_t group,
                            const int64_t *indices, int64_t count, const char *isa, int32_t threads,
                            float *out);

// Rotates `rows` rows of 2^power * order floats in place, `stride` floats apart: each block of
// `order` floats is multiplied by `kernel`, and the blocks are combined by the orthonormal
// Sylvester matrix of 2^power. kernel: [order, order], or null for order 1.
FW_API int32_t fw_hadamard(float *x, int64_t rows, int64_t stride, int32_t power, int64_t order,
                           const float *kernel, const char *isa, int32_t threads);

// A model that runs in the library. Each call of fw_forward computes one or several tokens.
//
// The structures below are read once, by fw_model_new. The arrays that they point to are not copied
// and must live longer than the model (weights are usually in a mapped file). `size` is the sizeof
// of the structure, so that a caller that was compiled with another definition is refused.
enum fw_kind {
    FW_NONE = 0,
    FW_FLOAT32 = 1,
    FW_FLOAT16 = 2,
    FW_BFLOAT16 = 3,
    FW_INT = 4,      // integer codes in lane order
    FW_TRELLIS = 5,  // streams of tiles in lane order
};

// A rotation y = H (signs x); its inverse is x = signs H^T y. H has `num_blocks` diagonal blocks
// H_{2^power} (x) kernel.
typedef struct fw_rotation {
    int64_t length;
    const uint8_t *signs;  // [(length + 7) / 8] a bit for each number, lowest bit first; 1 means -1
    int64_t num_blocks;
    const struct fw_rotation_block *blocks;
} fw_rotation;

// A block of 2^power * order numbers. kernel: [order, order] orthonormal, multiplies `order`
// numbers; null for order 1.
typedef struct fw_rotation_block {
    int32_t power, order;
    const float *kernel;
    const float *kernel_transposed;  // for the inverse
} fw_rotation_block;

typedef struct fw_matrix {
    int64_t size;
    int32_t kind, bits;
    int64_t rows, columns;  // of the matrix; codes are padded to the multiples that the kind needs
    const void *codes;      // FW_FLOAT*: [rows, columns]
    int64_t codes_bytes;
    // fp16. FW_INT: [padded rows / 16, groups, 16]; FW_TRELLIS: [padded rows].
    const uint16_t *scales;
    int64_t num_scales;
    const uint8_t *zero_points;  // FW_INT: like scales, or null: `zero_point` for all
    // FW_INT: columns of a scale, at most the padded ones; groups = ceil(padded columns / group).
    int64_t group;
    int32_t zero_point, state_bits;
    const float *state_values;  // FW_TRELLIS: [2^state_bits]
    // For FW_TRELLIS with a GF(2)-linear code, else null. table: [256] integers from -63 to 63.
    // code_matrix: [state_bits - 8] for each of the state's older bits the byte that it XORs into
    // the hash.
    const int8_t *table;
    const uint8_t *code_matrix;
    float table_scale;  // a weight is its table entry * table_scale * the scale of its row
    const fw_rotation *input, *output;  // or null
    const float *bias;                  // [rows] or null
} fw_matrix;

// `key` and `value` may both be absent (FW_NONE): the rows of `query` are then those of query, key
// and value. `up` may be absent: the rows of `gate` are then those of gate and up. All layers of a
// model have the same matrices.
typedef struct fw_layer {
    int64_t size;
    fw_matrix query, key, value, out, gate, up, down;
    const float *attention_norm, *ffn_norm;            // [hidden] or null
    const float *post_attention_norm, *post_ffn_norm;  // [hidden] or null
    // [head_width], or [rows of the matrix] with `joint_head_norms`; or null.
    const float *query_norm, *key_norm;
    const float *rope_frequencies;  // [rotary_width / 2]
    int64_t window;                 // positions that a token attends to; 0: all
} fw_layer;

typedef struct fw_description {
    int64_t size;
    int64_t hidden, vocabulary, num_heads, num_kv_heads, head_width, num_layers;
    int64_t rotary_width;  // the first numbers of each head, which turn with the position; even
    const fw_layer *layers;
    fw_matrix embedding, head;  // head.kind == FW_NONE: the embedding's table
    const float *final_norm;    // [hidden]
    float epsilon, attention_scale, attention_softcap, final_softcap, embedding_scale;
    float rope_scale;          // of the cosines and sines of rotary positions
    float residual_scale;      // of the products of `out` and `down` where the residual takes them
    float logit_divisor;       // logits are divided by it before `final_softcap`
    int32_t activation;        // of the gate: 0 SiLU, 1 GELU by tanh, 2 ReLU squared
    int32_t int8_activations;  // 1: those of compressed layers are rounded to int8; 0: all float32
    int32_t fp16_cache;        // 1: the KV cache holds fp16; 0: float32
    int32_t joint_head_norms;  // 1: norms of queries and keys are over all heads, 0: over each
    int32_t max_tokens;        // of one call
} fw_description;

// One token of a call, and the KV cache of its sequence; width: head_width rounded up to 16.
typedef struct fw_row {
    int32_t token;
    int32_t reserved;
    int64_t position;  // the number of tokens that precede it in its sequence
    int64_t capacity;  // positions that `keys` and `values` have room for, a multiple of 16
    void *keys;        // [layers, kv heads, capacity / 16, width, 16]
    void *values;      // [layers, kv heads, capacity, width]
    float *logits;     // [vocabulary] or null
} fw_row;

typedef struct fw_model fw_model;

FW_API int32_t fw_model_new(const fw_description *description, const char *isa, int32_t threads,
                            fw_model **out);
FW_API void fw_model_free(fw_model *model);
// Runs `count` tokens of one or of several sequences. Tokens of one sequence are adjacent, in order
// of their positions.
FW_API int32_t fw_forward(fw_model *model, const fw_row *tokens, int64_t count);

// out [count, rows] = the matrix times x [count, columns], on this thread. `planes`: the number of
// int8 planes to which activations are rounded (a model uses 1 for rotated activations, else 2);
// 0: float32 activations.
FW_API int32_t fw_product(const fw_matrix *matrix, const float *x, int64_t count, int32_t planes,
                          const char *isa, float *out);

// Bytes a second at which `threads` threads together read `bytes` bytes of memory, the best of
// `repeats` passes.
FW_API double fw_bandwidth(const uint8_t *memory, int64_t bytes, int32_t threads, int32_t repeats);
// Seconds of a product of `tokens` vectors with `matrix` (FW_INT or FW_TRELLIS), the best of
// `repeats`; a negative result is minus a status.
FW_API double fw_time_product(const fw_matrix *matrix, int64_t tokens, const char *isa,
                              int32_t threads, int32_t repeats);
