// What a machine gives: bytes a second from memory, and seconds of one product.
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>

#include "dispatch.h"
#include "model.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

typedef uint64_t Line __attribute__((vector_size(64)));

// One member's part as `streams` walks side by side, each asking for its bytes `ahead` of time (0: the processor guesses).
template <int streams, int ahead>
uint64_t read_all(const uint8_t *from, int64_t bytes) {
    const int64_t part = bytes / streams / 256 * 256;
    Line a = {}, b = {}, c = {}, d = {};
    for (int64_t i = 0; i < part; i += 256)
        for (int s = 0; s < streams; ++s) {
            const uint8_t *at = from + s * part + i;
            Line v[4];
            std::memcpy(v, at, 256);
            if (ahead)
                for (int line = 0; line < 4; ++line) __builtin_prefetch(at + ahead + 64 * line);
            a ^= v[0], b ^= v[1], c ^= v[2], d ^= v[3];
        }
    a ^= b ^ c ^ d;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

// Which walk is fastest differs between processors; a bandwidth is the best of them.
using Read = uint64_t (*)(const uint8_t *from, int64_t bytes);
const Read ways[] = {read_all<1, 0>, read_all<1, 4096>, read_all<2, 0>, read_all<4, 0>, read_all<4, 2048>};

}  // namespace

double fw_bandwidth(const uint8_t *memory, int64_t bytes, int32_t threads, int32_t repeats) {
    if (!memory || bytes < 4096 || repeats < 1) return -FW_BAD_ARGUMENT;
    struct Pass {
        const uint8_t *memory;
        int64_t bytes;
        Read read;
        std::atomic<uint64_t> sum{0};
    } pass = {memory, bytes, nullptr};
    double best = 0.0;
    for (int32_t i = 0; i < repeats; ++i)
        for (const Read read : ways) {
            pass.read = read;
            const auto start = Clock::now();
            fw::together(
                threads,
                [](void *context, int index, int members) {
                    Pass &p = *static_cast<Pass *>(context);
                    const int64_t pages = p.bytes / 4096;
                    const int64_t begin = pages * index / members, end = pages * (index + 1) / members;
                    p.sum += p.read(p.memory + begin * 4096, (end - begin) * 4096);
                },
                &pass);
            const double rate = static_cast<double>(bytes) / seconds_since(start);
            best = rate > best ? rate : best;
        }
    return best;
}

double fw_time_product(const fw_matrix *matrix, int64_t tokens, const char *isa, int32_t threads, int32_t repeats) {
    if (!matrix || tokens < 1 || tokens > 64 || repeats < 1) return -FW_BAD_ARGUMENT;
    const fw::Kernels *k = fw::kernels_for(isa);
    if (!k) return -FW_NO_ISA;
    try {
        fw::Shared shared;
        fw::Matrix w;
        if (int32_t status = fw::make_matrix(*matrix, true, shared, w)) return -status;
        if (!w.fast) return -FW_BAD_ARGUMENT;
        const int64_t width = fw::round_up(w.columns, 64), chunks = width / 32 + 1;
        fw::Array<float> x(tokens * width), scales(tokens), out(tokens * fw::round_up(w.rows, 256));
        fw::Array<int8_t> natural(tokens * width), segments(tokens * width);
        fw::Array<int32_t> prefix(tokens * chunks);
        for (int64_t j = 0; j < tokens; ++j) {
            for (int64_t i = 0; i < w.columns; ++i) x.get()[j * width + i] = static_cast<float>((i * 37 + j) % 255 - 127);
            k->round(x.get() + j * width, width, 1, natural.get() + j * width, segments.get() + j * width,
                     prefix.get() + j * chunks, scales.get() + j);
        }
        const fw::Codes codes = {natural.get(), segments.get(), prefix.get(), scales.get(), width, chunks};
        struct Pass {
            const fw::Kernels *k;
            const fw::Matrix &w;
            const fw::Codes &codes;
            int64_t tokens;
            float *out;
        } pass = {k, w, codes, tokens, out.get()};
        double best = 1e30;
        for (int32_t i = 0; i < repeats; ++i) {
            const auto start = Clock::now();
            fw::together(
                threads,
                [](void *context, int index, int members) {
                    Pass &p = *static_cast<Pass *>(context);
                    const int64_t height = p.w.kind == FW_INT ? 16 : 256;
                    const int64_t blocks = (p.w.padded_rows + height - 1) / height;
                    const int64_t begin = blocks * index / members, end = blocks * (index + 1) / members;
                    const int64_t stride = fw::round_up(p.w.rows, 256);
                    if (p.w.kind == FW_INT) {
                        p.k->int_dots(p.w.ints, begin, end, p.codes, 0, p.tokens, p.out, stride);
                        return;
                    }
                    int32_t *sums = static_cast<int32_t *>(fw::scratch(16 * 256 * 4));
                    for (int64_t block = begin; block < end && sums; ++block)
                        p.k->trellis_dots(p.w.trellis, block, 0, p.w.padded_columns / 64, p.codes, 0, p.tokens, sums,
                                          reinterpret_cast<int32_t *>(p.out), stride);
                },
                &pass);
            const double seconds = seconds_since(start);
            best = seconds < best ? seconds : best;
        }
        return best;
    } catch (const std::bad_alloc &) {
        return -FW_NO_MEMORY;
    }
}
