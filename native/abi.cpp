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

bool bad_trellis(int64_t length, int32_t state_bits, int32_t rate) {
    return rate < 1 || rate > 4 || state_bits < 8 || state_bits > 16 || length < 8 || length % 8 || length > 65536 ||
           rate * length < state_bits;
}

// round(value * scale) in [-limit, limit]; ties to even, as the reference.
int16_t fixed(float value, float scale, float bound) {
    const float scaled = std::nearbyint(value * scale);
    return static_cast<int16_t>(scaled < -bound ? -bound : scaled > bound ? bound : scaled);
}

// A copy of a tail-biting stream followed by its own beginning, so that no window has to wrap.
void wrap(uint8_t *stream, int64_t bytes) {
    for (int64_t i = 0; i < 8; ++i) stream[bytes + i] = stream[i % bytes];
}

}  // namespace

int32_t fw_abi(void) { return 1; }

const char *fw_isa(void) { return fw::kernels_for(nullptr)->name; }

const char *fw_isa_message(void) { return fw::isa_message(); }

int32_t fw_isa_available(const char *isa) { return isa && fw::kernels_named(isa) ? 1 : 0; }

int32_t fw_threads(void) { return fw::default_threads(); }

int32_t fw_viterbi_encode(const float *x, int64_t tiles, int64_t length, const float *values, int32_t state_bits,
                          int32_t rate, float scale, const char *isa, int32_t threads, uint8_t *out) {
    if (!x || !values || !out || tiles < 0 || tiles > limit || bad_trellis(length, state_bits, rate) ||
        !(scale > 0.0f && scale <= 8191.0f))
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
        table[s] = fixed(values[s], scale, 32767.0f);
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
                samples[t] = fixed(value, scale, 32767.0f);
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
    if (!streams || !values || !out || tiles < 0 || tiles > limit || bad_trellis(length, state_bits, rate))
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
