// The C ABI of libfeatherweight: everything Python (ctypes) or C may call.
//
// Every function checks its sizes and returns a status; no exception crosses. Arrays are contiguous, little endian,
// need no alignment, and are only read unless named `out`. `threads` <= 0 means the default (FEATHERWEIGHT_THREADS,
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
