// Measurements for benchmarks: the memory bandwidth, and the time of one product.
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>

#include "dispatch.h"
#include "pool.h"
#include "products.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t page_bytes = 4096;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

typedef uint64_t Line __attribute__((vector_size(64)));

// Reads one thread's part of the memory as `num_streams` streams at once, each with software
// prefetches `prefetch_bytes` ahead (0: only the hardware prefetches). The result depends on all
// bytes.
template <int num_streams, int prefetch_bytes>
uint64_t read_streams(const uint8_t *memory, int64_t bytes) {
    const int64_t stream_bytes = bytes / num_streams / 256 * 256;
    Line a = {}, b = {}, c = {}, d = {};
    for (int64_t i = 0; i < stream_bytes; i += 256)
        for (int stream = 0; stream < num_streams; ++stream) {
            const uint8_t *from = memory + stream * stream_bytes + i;
            Line v[4];
            std::memcpy(v, from, 256);
            if (prefetch_bytes)
                for (int line = 0; line < 4; ++line)
                    __builtin_prefetch(from + prefetch_bytes + 64 * line);
            a ^= v[0], b ^= v[1], c ^= v[2], d ^= v[3];
        }
    a ^= b ^ c ^ d;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

// The fastest access pattern differs between processors. The bandwidth is that of the fastest one.
using Reader = uint64_t (*)(const uint8_t *memory, int64_t bytes);
const Reader readers[] = {read_streams<1, 0>, read_streams<1, 4096>, read_streams<2, 0>,
                          read_streams<4, 0>, read_streams<4, 2048>};

struct BandwidthPass {
    const uint8_t *memory;
    int64_t bytes;
    Reader read = nullptr;
    std::atomic<uint64_t> sum{0};  // used, so that no read is optimised away

    static void run(void *context, int index, int num_threads) {
        BandwidthPass &pass = *static_cast<BandwidthPass *>(context);
        const fw::Span pages = fw::even_part(pass.bytes / page_bytes, index, num_threads);
        pass.sum += pass.read(pass.memory + pages.begin * page_bytes,
                              (pages.end - pages.begin) * page_bytes);
    }
};

struct ProductPass {
    const fw::Kernels &kernels;
    const fw::Matrix &w;
    const fw::Int8Activations activations;
    int64_t num_tokens, out_stride;
    float *out;

    // Row blocks are divided evenly.
    static void run(void *context, int index, int num_threads) {
        const ProductPass &pass = *static_cast<ProductPass *>(context);
        const int64_t height = pass.w.kind == FW_INT ? fw::int_block_rows : fw::trellis_block_rows;
        const fw::Span blocks =
            fw::even_part((pass.w.padded_rows + height - 1) / height, index, num_threads);
        if (pass.w.kind == FW_INT) {
            pass.kernels.int_dots(pass.w.ints, blocks.begin, blocks.end, pass.activations, 0,
                                  pass.num_tokens, pass.out, pass.out_stride);
            return;
        }
        int32_t *sums = static_cast<int32_t *>(fw::scratch(16 * fw::trellis_block_rows * 4));
        for (int64_t block = blocks.begin; block < blocks.end && sums; ++block)
            pass.kernels.trellis_dots(pass.w.trellis, block, 0,
                                      pass.w.padded_columns / fw::trellis_columns, pass.activations,
                                      0, pass.num_tokens, sums,
                                      reinterpret_cast<int32_t *>(pass.out), pass.out_stride);
    }
};

// Activations that are integers, so that rounding does not change them.
fw::ActivationBuffer integer_activations(const fw::Kernels &kernels, int64_t num_tokens,
                                         int64_t columns) {
    fw::ActivationBuffer buffer(num_tokens, columns);
    for (int64_t token = 0; token < num_tokens; ++token) {
        const int64_t first = token * buffer.width;
        float *x = buffer.rotated.get() + first;
        for (int64_t i = 0; i < columns; ++i)
            x[i] = static_cast<float>((i * 37 + token) % 255 - 127);
        kernels.round_activations(
            x, buffer.width, 1, buffer.codes.get() + first, buffer.interleaved.get() + first,
            buffer.prefix_sums.get() + token * buffer.prefix_stride, buffer.scales.get() + token);
    }
    return buffer;
}

}  // namespace

double fw_bandwidth(const uint8_t *memory, int64_t bytes, int32_t threads, int32_t repeats) {
    if (!memory || bytes < page_bytes || repeats < 1) return -FW_BAD_ARGUMENT;
    BandwidthPass pass{memory, bytes};
    double best = 0.0;
    for (int32_t i = 0; i < repeats; ++i)
        for (const Reader read : readers) {
            pass.read = read;
            const auto start = Clock::now();
            fw::run_on_threads(threads, BandwidthPass::run, &pass);
            const double rate = static_cast<double>(bytes) / seconds_since(start);
            best = rate > best ? rate : best;
        }
    return best;
}

double fw_time_product(const fw_matrix *matrix, int64_t tokens, const char *isa, int32_t threads,
                       int32_t repeats) {
    if (!matrix || tokens < 1 || tokens > 64 || repeats < 1) return -FW_BAD_ARGUMENT;
    const fw::Kernels *kernels = fw::kernels_for(isa);
    if (!kernels) return -FW_NO_ISA;
    try {
        fw::SharedTables tables;
        fw::Matrix w;
        if (int32_t status = fw::build_matrix(*matrix, true, tables, w)) return -status;
        if (!w.planes) return -FW_BAD_ARGUMENT;
        const fw::ActivationBuffer activations = integer_activations(*kernels, tokens, w.columns);
        const int64_t out_stride = fw::round_up(w.rows, fw::trellis_block_rows);
        const fw::Array<float> out(tokens * out_stride);
        ProductPass pass{*kernels, w, activations.int8(), tokens, out_stride, out.get()};
        double best = 1e30;
        for (int32_t i = 0; i < repeats; ++i) {
            const auto start = Clock::now();
            fw::run_on_threads(threads, ProductPass::run, &pass);
            const double seconds = seconds_since(start);
            best = seconds < best ? seconds : best;
        }
        return best;
    } catch (const std::bad_alloc &) {
        return -FW_NO_MEMORY;
    }
}
