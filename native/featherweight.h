// The C ABI of libfeatherweight: everything Python (ctypes) or C may call.
//
// Every function checks its sizes and returns a status; no exception crosses. Arrays are contiguous, little endian,
// aligned as their types are (codes and fp16 scales, which lie in files, need not be), and only read unless named `out`. `threads` <= 0 means the default (FEATHERWEIGHT_THREADS,
// else the CPUs this process may use); `isa` null means the default (FEATHERWEIGHT_ISA, else the best that runs here).
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

// Raised whenever a signature or a layout below changes; the caller refuses a library with another number.
FW_API int32_t fw_abi(void);
FW_API const char *fw_isa(void);
FW_API const char *fw_isa_message(void);  // why FEATHERWEIGHT_ISA was not followed; "" when it was
FW_API int32_t fw_isa_available(const char *isa);
FW_API int32_t fw_threads(void);

// x: [tiles, length] in units where the code has unit variance; values: [2^state_bits];
// out: [tiles, rate * length / 8] tail-biting streams. `scale`: see ops/trellis/reference.py.
FW_API int32_t fw_viterbi_encode(const float *x, int64_t tiles, int64_t length, const float *values,
                                 int32_t state_bits, int32_t rate, float scale, const char *isa, int32_t threads,
                                 uint8_t *out);

// streams: [tiles, rate * length / 8]; out: [tiles, length].
FW_API int32_t fw_trellis_decode(const uint8_t *streams, int64_t tiles, int64_t length, const float *values,
                                 int32_t state_bits, int32_t rate, const char *isa, int32_t threads, float *out);

// lanes: rows * columns * rate / 8 bytes of 16x16 tiles in lane order (ops/lanes.py); scales: [rows];
// out: [rows, columns] = scale * value. rows % 64 == 0, columns % 64 == 0.
FW_API int32_t fw_trellis_dense(const uint8_t *lanes, int64_t rows, int64_t columns, const float *values,
                                int32_t state_bits, int32_t rate, const float *scales, const char *isa,
                                int32_t threads, float *out);

// lanes: rows * columns * bits / 8 bytes in lane order; scales, zeros: [rows / 16, ceil(columns / group), 16];
// indices: [count] rows to decode, or null for all in order (then count == rows); out: [count, columns]
// = scale * (code - zero). rows % 16 == 0, columns % 32 == 0.
FW_API int32_t fw_int_dense(const uint8_t *lanes, int64_t rows, int64_t columns, int32_t bits, const float *scales,
                            const float *zeros, int64_t group, const int64_t *indices, int64_t count,
                            const char *isa, int32_t threads, float *out);

// In place over `rows` rows of 2^power * order floats, `stride` floats apart: each block of `order` floats times
// `kernel`, the blocks combined by the orthonormal Sylvester matrix of 2^power. kernel: [order, order], or null for
// order 1.
FW_API int32_t fw_hadamard(float *x, int64_t rows, int64_t stride, int32_t power, int64_t order, const float *kernel,
                           const char *isa, int32_t threads);

// A model that runs here: one call a token, one a chunk of a prompt.
//
// The structures below are read once, by fw_model_new; the arrays they point at are used in place and must outlive the
// model (weights are usually a mapped file). `size` is sizeof of the structure, so that a caller compiled against
// another layout is refused.
enum fw_kind {
    FW_NONE = 0,
    FW_FLOAT32 = 1,
    FW_FLOAT16 = 2,
    FW_BFLOAT16 = 3,
    FW_INT = 4,      // integer codes in lane order
    FW_TRELLIS = 5,  // streams of tiles in lane order
};

// H of `num_blocks` diagonal blocks, each H_{2^power} (x) kernel: y = H (signs x), or x = signs H^T y for its inverse.
typedef struct fw_rotation {
    int64_t length;
    const uint8_t *signs;  // [(length + 7) / 8] a bit for each number from the lowest on: set for -1
    int64_t num_blocks;
    const struct fw_rotation_block *blocks;
} fw_rotation;

typedef struct fw_rotation_block {
    int32_t power, order;     // 2^power * order numbers
    const float *kernel;      // [order, order] orthonormal: a block of `order` numbers times it; null for order 1
    const float *transposed;  // the same for the inverse
} fw_rotation_block;

typedef struct fw_matrix {
    int64_t size;
    int32_t kind, bits;
    int64_t rows, columns;        // of the matrix; codes hold them rounded up to what the kind needs
    const void *codes;            // FW_FLOAT*: [rows, columns]
    int64_t codes_bytes;
    const uint16_t *scales;       // fp16; FW_INT: [rows / 16, groups, 16], FW_TRELLIS: [rows]
    int64_t num_scales;
    const uint8_t *zeros;         // FW_INT: like scales, or null for `zero`
    int64_t group;                // FW_INT: columns a scale, at most the padded ones; groups = padded columns / group, up
    int32_t zero, state_bits;
    const float *values;          // FW_TRELLIS: [2^state_bits]
    const int8_t *table;          // FW_TRELLIS of a GF(2)-linear code: [256] whole numbers, |.| <= 63; else null
    const uint8_t *code_matrix;   // [state_bits - 8]
    float unit;                   // what one step of the table is worth
    const fw_rotation *input, *output;  // or null
    const float *bias;            // [rows] or null
} fw_matrix;

typedef struct fw_layer {
    int64_t size;
    fw_matrix query, key, value, out, gate, up, down;
    const float *attention_norm, *ffn_norm;            // [hidden]
    const float *after_attention_norm, *after_ffn_norm;  // [hidden] or null
    const float *query_norm, *key_norm;                // [head_width] or null
    const float *frequencies;                          // [head_width / 2] of rotary positions
    int64_t window;                                    // positions a token sees; 0: all
} fw_layer;

typedef struct fw_description {
    int64_t size;
    int64_t hidden, vocabulary, num_heads, num_key_heads, head_width, num_layers;
    const fw_layer *layers;
    fw_matrix embedding, head;  // head.kind == FW_NONE: the embedding's table
    const float *final_norm;
    float epsilon, attention_scale, attention_softcap, final_softcap, embedding_scale;
    int32_t activation;         // of the gate: 0 SiLU, 1 GELU by tanh, 2 ReLU squared
    int32_t whole_numbers;      // activations of compressed layers are rounded to int8; else everything is float32
    int32_t half_cache;         // keys and values are kept as fp16, else float32
    int32_t max_rows;           // tokens of one call, at most
} fw_description;

typedef struct fw_row {
    int32_t token;
    int32_t reserved;
    int64_t position;  // == number of tokens of its sequence that came before
    int64_t capacity;  // positions that `keys` and `values` hold, a multiple of 16
    void *keys;        // [layers, key heads, capacity / 16, width, 16], width = head_width rounded up to 16
    void *values;      // [layers, key heads, capacity, width]
    float *logits;     // [vocabulary] or null
} fw_row;

typedef struct fw_model fw_model;

FW_API int32_t fw_model_new(const fw_description *description, const char *isa, int32_t threads, fw_model **out);
FW_API void fw_model_free(fw_model *model);
// Runs `count` tokens: of one sequence in order, or of several. Rows of one sequence lie together and count up.
FW_API int32_t fw_forward(fw_model *model, const fw_row *rows, int64_t count);

// out [count, rows] = the matrix times x [count, columns], on this thread. `digits`: bytes an activation is rounded to
// (a model takes 1 behind a rotation, else 2), 0 for none.
FW_API int32_t fw_product(const fw_matrix *matrix, const float *x, int64_t count, int32_t digits, const char *isa,
                          float *out);

// Bytes a second that `threads` threads read together from `bytes` bytes, best of `repeats` passes.
FW_API double fw_bandwidth(const uint8_t *memory, int64_t bytes, int32_t threads, int32_t repeats);
// Seconds of the best of `repeats` products of one vector with `matrix` (FW_INT or FW_TRELLIS); negative: a status.
FW_API double fw_time_product(const fw_matrix *matrix, int64_t tokens, const char *isa, int32_t threads, int32_t repeats);
