// The C ABI: checks every size, converts what all units share, and cuts the work into units for the pool.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "dispatch.h"
#include "featherweight.h"
#include "pool.h"

namespace {

using fw::Kernels;

constexpr int64_t limit = int64_t{1} << 40;

// Whether rows * columns is more than anything that exists; neither is negative.
bool too_many(int64_t rows, int64_t columns) { return rows > limit || (rows && columns > limit / rows); }

bool bad_trellis(int64_t length, int32_t state_bits, int32_t rate) {
    return rate < 1 || rate > 4 || state_bits < 8 || state_bits > 16 || length < 8 || length % 8 || length > 65536 ||
           rate * length < state_bits;
}

// round(value * scale) in [-32767, 32767]; ties to even, as the reference. Adding 1.5 * 2^23 leaves no bits after the
// point, which is faster than a call of nearbyint.
int16_t fixed(float value, float scale) {
    constexpr float whole = 12582912.0f;
    const float scaled = value * scale;
    const float clipped = scaled < -32767.0f ? -32767.0f : scaled > 32767.0f ? 32767.0f : scaled;
    return static_cast<int16_t>((clipped + whole) - whole);
}

// A copy of a tail-biting stream followed by its own beginning, so that no window has to wrap.
void wrap(uint8_t *stream, int64_t bytes) {
    for (int64_t i = 0; i < 8; ++i) stream[bytes + i] = stream[i % bytes];
}

}  // namespace

int32_t fw_abi(void) { return 4; }

const char *fw_isa(void) { return fw::kernels_for(nullptr)->name; }

const char *fw_isa_message(void) { return fw::isa_message(); }

int32_t fw_isa_available(const char *isa) { return isa && fw::kernels_named(isa) ? 1 : 0; }

int32_t fw_threads(void) { return fw::default_threads(); }

int32_t fw_viterbi_encode(const float *x, int64_t tiles, int64_t length, const float *values, int32_t state_bits,
                          int32_t rate, float scale, const char *isa, int32_t threads, uint8_t *out) {
    if (!x || !values || !out || tiles < 0 || bad_trellis(length, state_bits, rate) ||
        too_many(tiles, length) || !(scale > 0.0f && scale <= 8191.0f))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t num_states = int64_t{1} << state_bits;
    const int64_t groups = num_states >> rate;
    // 32 lanes do not fit 16 groups (8 state bits at 4 bits a weight); the narrower kernels give the same bytes.
    if (groups < 32 && !std::strcmp(kernels->name, "avx512"))
        kernels = fw::kernels_named("avx2") ? fw::kernels_named("avx2") : fw::kernels_named("scalar");

    int16_t *table = static_cast<int16_t *>(std::aligned_alloc(64, static_cast<size_t>(num_states * 2)));
    if (!table) return FW_NO_MEMORY;
    for (int64_t s = 0; s < num_states; ++s) {
        if (!std::isfinite(values[s])) {
            std::free(table);
            return FW_NOT_FINITE;
        }
        table[s] = fixed(values[s], scale);
    }
    const fw::Trellis trellis = {table, state_bits, rate, length};
    const int64_t row_bytes = (length + 1) * groups * 2;
    const int64_t sample_bytes = (length * 2 + 63) / 64 * 64;
    std::atomic<int32_t> status{FW_OK};

    auto encode = [&](int64_t begin, int64_t end) {
        uint8_t *memory = static_cast<uint8_t *>(fw::scratch(row_bytes + 2 * sample_bytes));
        if (!memory) {
            status = FW_NO_MEMORY;
            return;
        }
        uint16_t *rows = reinterpret_cast<uint16_t *>(memory);
        int16_t *samples = reinterpret_cast<int16_t *>(memory + row_bytes);
        uint16_t *states = reinterpret_cast<uint16_t *>(memory + row_bytes + sample_bytes);
        for (int64_t tile = begin; tile < end; ++tile) {
            const float *from = x + tile * length;
            for (int64_t t = 0; t < length; ++t) {
                float value = from[length - 1 - t];
                if (!std::isfinite(value)) {
                    status = FW_NOT_FINITE;
                    value = 0.0f;
                }
                value = value < -4.0f ? -4.0f : value > 4.0f ? 4.0f : value;
                samples[t] = fixed(value, scale);
            }
            kernels->viterbi(trellis, samples, rows, states);
            uint8_t *stream = out + tile * rate * length / 8;
            std::memset(stream, 0, static_cast<size_t>(rate * length / 8));
            for (int64_t t = 0; t < length; ++t) {
                const uint32_t newest = states[length - 1 - t] & ((1u << rate) - 1);
                const int64_t bit = rate * t;
                stream[bit >> 3] = static_cast<uint8_t>(stream[bit >> 3] | (newest << (bit & 7)));
                if ((bit & 7) + rate > 8)
                    stream[(bit >> 3) + 1] = static_cast<uint8_t>(newest >> (8 - (bit & 7)));
            }
        }
    };
    fw::parallel_for(tiles, 1, threads, encode);
    std::free(table);
    return status;
}

int32_t fw_trellis_decode(const uint8_t *streams, int64_t tiles, int64_t length, const float *values,
                          int32_t state_bits, int32_t rate, const char *isa, int32_t threads, float *out) {
    if (!streams || !values || !out || tiles < 0 || bad_trellis(length, state_bits, rate) ||
        too_many(tiles, length))
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
            wrap(stream, bytes);
            kernels->decode(stream, length, values, state_bits, rate, out + tile * length);
        }
    };
    fw::parallel_for(tiles, 64, threads, decode);
    return status;
}

int32_t fw_trellis_dense(const uint8_t *lanes, int64_t rows, int64_t columns, const float *values,
                         int32_t state_bits, int32_t rate, const float *scales, const char *isa, int32_t threads,
                         float *out) {
    if (!lanes || !values || !scales || !out || rows < 0 || columns < 0 || too_many(rows, columns) ||
        rows % 64 || columns % 64 || bad_trellis(256, state_bits, rate))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t bytes = 32 * rate;
    const int64_t padded = bytes + 8;
    const int64_t column_blocks = columns / 64;
    std::atomic<int32_t> status{FW_OK};
    // A unit is 256 rows (the last may be fewer) by 64 columns: at most 64 streams, byte by byte side by side.
    auto decode = [&](int64_t begin, int64_t end) {
        uint8_t *streams = static_cast<uint8_t *>(fw::scratch(64 * padded));
        if (!streams) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t row = unit / column_blocks * 256;
            const int64_t block = unit % column_blocks;
            const int64_t width = (rows - row < 256 ? rows - row : 256) / 4;
            const uint8_t *from = lanes + row * columns * rate / 8 + block * bytes * width;
            for (int64_t i = 0; i < bytes; ++i)
                for (int64_t lane = 0; lane < width; ++lane) streams[lane * padded + i] = from[i * width + lane];
            for (int64_t lane = 0; lane < width; ++lane) {
                const int64_t top = row + lane / 4 * 16;
                wrap(streams + lane * padded, bytes);
                kernels->tile(streams + lane * padded, values, state_bits, rate, scales + top,
                              out + top * columns + block * 64 + lane % 4 * 16, columns);
            }
        }
    };
    fw::parallel_for((rows + 255) / 256 * column_blocks, 1, threads, decode);
    return status;
}

int32_t fw_int_dense(const uint8_t *lanes, int64_t rows, int64_t columns, int32_t bits, const float *scales,
                     const float *zeros, int64_t group, const int64_t *indices, int64_t count, const char *isa,
                     int32_t threads, float *out) {
    if (!lanes || !scales || !zeros || !out || rows < 0 || columns < 0 || too_many(rows, columns) ||
        rows % 16 || columns % 32 || bits < 2 || bits > 8 || group < 1 || group > limit || count < 0 || (!indices && count != rows))
        return FW_BAD_ARGUMENT;
    for (int64_t i = 0; indices && i < count; ++i)
        if (indices[i] < 0 || indices[i] >= rows) return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t groups = (columns + group - 1) / group;
    auto decode = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t row = indices ? indices[i] : i;
            const int64_t block = row / 16;
            const int64_t first = block * groups * 16 + row % 16;
            kernels->int_row(lanes + block * 2 * columns * bits + row % 16 * 4, columns, bits, scales + first,
                             zeros + first, group, out + i * columns);
        }
    };
    fw::parallel_for(count, 16, threads, decode);
    return FW_OK;
}

int32_t fw_hadamard(float *x, int64_t rows, int64_t stride, int32_t power, int64_t order, const float *kernel,
                    const char *isa, int32_t threads) {
    if (!x || rows < 0 || power < 0 || power > 30 || order < 1 || order > 4096 ||
        (kernel == nullptr) != (order == 1) || stride < (order << power) || too_many(rows, stride))
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    const int64_t width = (order + 15) / 16 * 16;
    const int64_t n = order << power;
    const float scale = 1.0f / std::sqrt(static_cast<float>(int64_t{1} << power));
    float *padded = nullptr;
    if (kernel) {
        padded = static_cast<float *>(std::calloc(static_cast<size_t>(order * width), sizeof(float)));
        if (!padded) return FW_NO_MEMORY;
        for (int64_t j = 0; j < order; ++j)
            for (int64_t i = 0; i < order; ++i) padded[j * width + i] = kernel[j * order + i] * scale;
    }
    std::atomic<int32_t> status{FW_OK};
    auto rotate = [&](int64_t begin, int64_t end) {
        float *scratch = static_cast<float *>(fw::scratch((n + width) * 4));
        if (!scratch) {
            status = FW_NO_MEMORY;
            return;
        }
        for (int64_t row = begin; row < end; ++row) {
            float *from = x + row * stride;
            kernels->hadamard(from, power, order, padded, width, scratch);
            if (!padded)
                for (int64_t i = 0; i < n; ++i) from[i] *= scale;
        }
    };
    const int64_t grain = n > 8192 ? 1 : 8192 / n;
    fw::parallel_for(rows, grain, threads, rotate);
    std::free(padded);
    return status;
}
