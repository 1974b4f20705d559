// The functions of the C ABI that need no model. Each one checks every size, converts the arguments
// that all units of work use, and divides the units among the threads of the pool.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "dispatch.h"
#include "featherweight.h"
#include "pool.h"

namespace {

using fw::Kernels;

constexpr int64_t max_elements = int64_t{1} << 40;
constexpr int64_t encoder_alignment = 64;

// Whether rows * columns is more than max_elements, without overflow; neither is negative.
bool exceeds_limit(int64_t rows, int64_t columns) {
    return rows > max_elements || (rows && columns > max_elements / rows);
}

bool is_invalid_trellis(int64_t length, int32_t state_bits, int32_t rate) {
    return rate < 1 || rate > 4 || state_bits < 8 || state_bits > 16 || length < 8 || length % 8 ||
           length > 65536 || rate * length < state_bits;
}

// round(value * scale) in [-32767, 32767], ties to even as in the reference. Adding 1.5 * 2^23
// leaves no bits for a fraction, which is faster than a call of nearbyint.
int16_t to_fixed_point(float value, float scale) {
    constexpr float no_fraction = 12582912.0f;
    const float scaled = value * scale;
    const float clamped = scaled < -32767.0f ? -32767.0f : scaled > 32767.0f ? 32767.0f : scaled;
    return static_cast<int16_t>((clamped + no_fraction) - no_fraction);
}

// Copies the first bytes of a tail-biting stream behind its end, so that a decoder can read past
// the end instead of wrapping around.
void append_beginning(uint8_t *stream, int64_t bytes) {
    for (int64_t i = 0; i < 8; ++i) stream[bytes + i] = stream[i % bytes];
}

struct Free {
    void operator()(void *p) const { std::free(p); }
};

// The scratch memory of one thread's Viterbi search.
struct EncoderScratch {
    uint16_t *cost_rows = nullptr;
    int16_t *samples = nullptr;
    uint16_t *states = nullptr;

    explicit EncoderScratch(const fw::Trellis &trellis) {
        const int64_t num_groups = int64_t{1} << (trellis.state_bits - trellis.rate);
        const int64_t row_bytes = (trellis.length + 1) * num_groups * 2;
        const int64_t sample_bytes =
            (trellis.length * 2 + encoder_alignment - 1) / encoder_alignment * encoder_alignment;
        uint8_t *memory = static_cast<uint8_t *>(fw::scratch(row_bytes + 2 * sample_bytes));
        if (!memory) return;
        cost_rows = reinterpret_cast<uint16_t *>(memory);
        samples = reinterpret_cast<int16_t *>(memory + row_bytes);
        states = reinterpret_cast<uint16_t *>(memory + row_bytes + sample_bytes);
    }
};

// Converts the samples of a tile to fixed point, in the order of the trellis (from last to first).
// Returns false when a sample is not finite.
bool convert_samples(const float *x, int64_t length, float scale, int16_t *samples) {
    bool are_finite = true;
    for (int64_t t = 0; t < length; ++t) {
        float value = x[length - 1 - t];
        if (!std::isfinite(value)) {
            are_finite = false;
            value = 0.0f;
        }
        value = value < -4.0f ? -4.0f : value > 4.0f ? 4.0f : value;
        samples[t] = to_fixed_point(value, scale);
    }
    return are_finite;
}

// Writes the newest `rate` bits of each state.
void pack_states(const uint16_t *states, int64_t length, int32_t rate, uint8_t *stream) {
    std::memset(stream, 0, static_cast<size_t>(rate * length / 8));
    for (int64_t t = 0; t < length; ++t) {
        const uint32_t newest = states[length - 1 - t] & ((1u << rate) - 1);
        const int64_t bit = rate * t;
        stream[bit >> 3] = static_cast<uint8_t>(stream[bit >> 3] | (newest << (bit & 7)));
        if ((bit & 7) + rate > 8)
            stream[(bit >> 3) + 1] = static_cast<uint8_t>(newest >> (8 - (bit & 7)));
    }
}

}  // namespace

int32_t fw_abi(void) { return 7; }

const char *fw_isa(void) { return fw::kernels_for(nullptr)->name; }

const char *fw_isa_message(void) { return fw::isa_message(); }

int32_t fw_isa_available(const char *isa) { return isa && fw::kernels_named(isa) ? 1 : 0; }

int32_t fw_threads(void) { return fw::default_threads(); }

int32_t fw_viterbi_encode(const float *x, int64_t tiles, int64_t length, const float *state_values,
                          int32_t state_bits, int32_t rate, float scale, const char *isa,
                          int32_t threads, uint8_t *out) {
    if (!x || !state_values || !out || tiles < 0 || is_invalid_trellis(length, state_bits, rate) ||
        exceeds_limit(tiles, length) || !(scale > 0.0f && scale <= 8191.0f))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t num_states = int64_t{1} << state_bits;
    // With 8 state bits at 4 bits a weight there are only 16 groups, fewer than the 32 lanes of
    // AVX-512. Kernels with fewer lanes give the same bytes.
    if (num_states >> rate < 32 && !std::strcmp(kernels->name, "avx512"))
        kernels =
            fw::kernels_named("avx2") ? fw::kernels_named("avx2") : fw::kernels_named("scalar");

    const std::unique_ptr<int16_t, Free> fixed_values(static_cast<int16_t *>(
        std::aligned_alloc(encoder_alignment, static_cast<size_t>(num_states * 2))));
    if (!fixed_values) return FW_NO_MEMORY;
    for (int64_t s = 0; s < num_states; ++s) {
        if (!std::isfinite(state_values[s])) return FW_NOT_FINITE;
        fixed_values.get()[s] = to_fixed_point(state_values[s], scale);
    }
    const fw::Trellis trellis = {fixed_values.get(), state_bits, rate, length};
    std::atomic<int32_t> status{FW_OK};
    auto encode = [&](int64_t begin, int64_t end) {
        const EncoderScratch scratch(trellis);
        if (!scratch.cost_rows) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t tile = begin; tile < end; ++tile) {
            if (!convert_samples(x + tile * length, length, scale, scratch.samples))
                status = FW_NOT_FINITE;
            kernels->encode_trellis(trellis, scratch.samples, scratch.cost_rows, scratch.states);
            pack_states(scratch.states, length, rate, out + tile * rate * length / 8);
        }
    };
    fw::parallel_for(tiles, 1, threads, encode);
    return status;
}

int32_t fw_trellis_decode(const uint8_t *streams, int64_t tiles, int64_t length,
                          const float *state_values, int32_t state_bits, int32_t rate,
                          const char *isa, int32_t threads, float *out) {
    if (!streams || !state_values || !out || tiles < 0 ||
        is_invalid_trellis(length, state_bits, rate) || exceeds_limit(tiles, length))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t bytes = rate * length / 8;
    std::atomic<int32_t> status{FW_OK};
    auto decode = [&](int64_t begin, int64_t end) {
        uint8_t *stream = static_cast<uint8_t *>(fw::scratch(bytes + 8));
        if (!stream) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t tile = begin; tile < end; ++tile) {
            std::memcpy(stream, streams + tile * bytes, static_cast<size_t>(bytes));
            append_beginning(stream, bytes);
            kernels->decode_trellis(stream, length, state_values, state_bits, rate,
                                    out + tile * length);
        }
    };
    fw::parallel_for(tiles, 64, threads, decode);
    return status;
}

int32_t fw_trellis_dense(const uint8_t *codes, int64_t rows, int64_t columns,
                         const float *state_values, int32_t state_bits, int32_t rate,
                         const float *scales, const char *isa, int32_t threads, float *out) {
    if (!codes || !state_values || !scales || !out || rows < 0 || columns < 0 ||
        exceeds_limit(rows, columns) || rows % 64 || columns % 64 ||
        is_invalid_trellis(256, state_bits, rate))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t bytes = 32 * rate;
    const int64_t padded_bytes = bytes + 8;
    const int64_t column_blocks = columns / fw::trellis_columns;
    std::atomic<int32_t> status{FW_OK};
    // A unit is one column block of one row block. It has at most 64 streams, whose bytes are
    // interleaved in memory.
    auto decode = [&](int64_t begin, int64_t end) {
        uint8_t *streams = static_cast<uint8_t *>(fw::scratch(64 * padded_bytes));
        if (!streams) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t row = unit / column_blocks * fw::trellis_block_rows;
            const int64_t block = unit % column_blocks;
            const int64_t block_rows =
                rows - row < fw::trellis_block_rows ? rows - row : fw::trellis_block_rows;
            const int64_t line_lanes = block_rows / 4;
            const uint8_t *lines = codes + row * columns * rate / 8 + block * bytes * line_lanes;
            for (int64_t i = 0; i < bytes; ++i)
                for (int64_t lane = 0; lane < line_lanes; ++lane)
                    streams[lane * padded_bytes + i] = lines[i * line_lanes + lane];
            for (int64_t lane = 0; lane < line_lanes; ++lane) {
                const int64_t tile_row = row + lane / 4 * 16;
                const int64_t tile_column = block * fw::trellis_columns + lane % 4 * 16;
                uint8_t *stream = streams + lane * padded_bytes;
                append_beginning(stream, bytes);
                kernels->decode_trellis_tile(stream, state_values, state_bits, rate,
                                             scales + tile_row,
                                             out + tile_row * columns + tile_column, columns);
            }
        }
    };
    const int64_t row_blocks = (rows + fw::trellis_block_rows - 1) / fw::trellis_block_rows;
    fw::parallel_for(row_blocks * column_blocks, 1, threads, decode);
    return status;
}

int32_t fw_int_dense(const uint8_t *codes, int64_t rows, int64_t columns, int32_t bits,
                     const float *scales, const float *zero_points, int64_t group,
                     const int64_t *indices, int64_t count, const char *isa, int32_t threads,
                     float *out) {
    if (!codes || !scales || !zero_points || !out || rows < 0 || columns < 0 ||
        exceeds_limit(rows, columns) || rows % 16 || columns % 32 || bits < 2 || bits > 8 ||
        group < 1 || group > max_elements || count < 0 || (!indices && count != rows))
        return FW_BAD_ARGUMENT;
    for (int64_t i = 0; indices && i < count; ++i)
        if (indices[i] < 0 || indices[i] >= rows) return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t num_groups = (columns + group - 1) / group;
    auto decode = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t row = indices ? indices[i] : i;
            const int64_t block = row / fw::int_block_rows, row_in_block = row % fw::int_block_rows;
            const int64_t first_scale = block * num_groups * 16 + row_in_block;
            kernels->decode_int_row(codes + block * 2 * columns * bits + row_in_block * 4, columns,
                                    bits, scales + first_scale, zero_points + first_scale, group,
                                    out + i * columns);
        }
    };
    fw::parallel_for(count, 16, threads, decode);
    return FW_OK;
}

int32_t fw_hadamard(float *x, int64_t rows, int64_t stride, int32_t power, int64_t order,
                    const float *kernel, const char *isa, int32_t threads) {
    if (!x || rows < 0 || power < 0 || power > 30 || order < 1 || order > 4096 ||
        (kernel == nullptr) != (order == 1) || stride < (order << power) ||
        exceeds_limit(rows, stride))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t kernel_stride = (order + 15) / 16 * 16;
    const int64_t n = order << power;
    const float scale = 1.0f / std::sqrt(static_cast<float>(int64_t{1} << power));
    // A padded copy of the kernel, scaled so that the rotation is orthonormal.
    std::unique_ptr<float, Free> padded_kernel;
    if (kernel) {
        padded_kernel.reset(static_cast<float *>(
            std::calloc(static_cast<size_t>(order * kernel_stride), sizeof(float))));
        if (!padded_kernel) return FW_NO_MEMORY;
        for (int64_t j = 0; j < order; ++j)
            for (int64_t i = 0; i < order; ++i)
                padded_kernel.get()[j * kernel_stride + i] = kernel[j * order + i] * scale;
    }
    std::atomic<int32_t> status{FW_OK};
    auto rotate = [&](int64_t begin, int64_t end) {
        float *scratch = static_cast<float *>(fw::scratch((n + kernel_stride) * 4));
        if (!scratch) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t row = begin; row < end; ++row) {
            float *numbers = x + row * stride;
            kernels->hadamard(numbers, power, order, padded_kernel.get(), kernel_stride, scratch);
            if (!padded_kernel)
                for (int64_t i = 0; i < n; ++i) numbers[i] *= scale;
        }
    };
    constexpr int64_t grain_numbers = 8192;
    fw::parallel_for(rows, n > grain_numbers ? 1 : grain_numbers / n, threads, rotate);
    return status;
}
