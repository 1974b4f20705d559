// One matrix times some vectors, outside any model: the kernels of a layer, for tests and for a self-test of the machine.
#include <cstring>
#include <new>

#include "dispatch.h"
#include "model.h"

namespace {

using namespace fw;

struct Product {
    const Kernels &k;
    const Matrix &w;
    int64_t count, digits, width, chunks, out_width;
    Array<float> numbers, scales, out;
    Array<int8_t> natural, segments;
    Array<int32_t> prefix;

    Product(const Kernels &kernels, const Matrix &matrix, int64_t vectors, int64_t how)
        : k(kernels),
          w(matrix),
          count(vectors),
          digits(matrix.fast ? how : 1),
          width(round_up(matrix.columns, wide)),
          chunks(width / 32 + 1),
          out_width(round_up(matrix.rows, 256)),
          numbers(count * width),
          scales(count * digits),
          out(count * digits * out_width),
          natural(count * digits * width),
          segments(count * digits * width),
          prefix(count * digits * chunks) {}

    void prepare(const float *x) {
        Array<float> scratch(w.input ? w.input->scratch_floats() : 0);
        for (int64_t i = 0; i < count; ++i) {
            float *to = numbers.get() + i * width;
            if (w.input)
                w.input->apply(k, x + i * w.columns, to, scratch.get());
            else
                std::memcpy(to, x + i * w.columns, sizeof(float) * static_cast<size_t>(w.columns));
            const int64_t at = i * digits;
            if (w.fast)
                k.round(to, width, static_cast<int>(digits), natural.get() + at * width, segments.get() + at * width,
                        prefix.get() + at * chunks, scales.get() + at);
        }
    }

    void multiply() {
        const Codes codes = {natural.get(), segments.get(), prefix.get(), scales.get(), width, chunks};
        if (w.kind == FW_INT && w.fast)
            k.int_dots(w.ints, 0, w.padded_rows / 16, codes, 0, count * digits, out.get(), out_width);
        else if (w.fast)
            trellis(codes);
        else
            floats();
    }

    void trellis(const Codes &codes) {
        Array<int32_t> sums(16 * 256), parts(count * digits * out_width);
        for (int64_t block = 0; block * 256 < w.padded_rows; ++block) {
            const int64_t left = w.padded_rows - block * 256, height = left < 256 ? left : 256;
            for (int64_t token = 0; token < count * digits; token += 16) {
                const int64_t more = count * digits - token;
                k.trellis_dots(w.trellis, block, 0, w.padded_columns / 64, codes, token, more < 16 ? more : 16,
                               sums.get(), parts.get(), out_width);
            }
            for (int64_t token = 0; token < count * digits; ++token) {
                const int64_t at = token * out_width + block * 256;
                k.gather(parts.get() + at, 1, 0, w.scales + block * 256, scales.get()[token] * w.unit, height,
                         out.get() + at);
            }
        }
    }

    void floats() {
        Array<float> dense(16 * w.padded_columns), scratch(w.scratch_floats());
        for (int64_t row = 0; row < w.rows; row += 16) {
            const int64_t found = w.decode(k, row, dense.get(), scratch.get());
            k.float_dots(dense.get(), found, w.padded_columns, numbers.get(), width, count, w.padded_columns,
                         out.get() + row, out_width);
        }
    }

    void finish(float *to) {
        Array<float> scratch(w.output ? w.output->scratch_floats() : 0);
        for (int64_t i = 0; i < count; ++i, to += w.rows) {
            float *high = out.get() + i * digits * out_width;
            if (digits == 2)
                for (int64_t r = 0; r < w.rows; ++r) high[r] += high[out_width + r];
            if (w.output) w.output->undo(k, high, scratch.get());
            for (int64_t r = 0; r < w.rows; ++r) to[r] = w.bias ? high[r] + w.bias[r] : high[r];
        }
    }
};

}  // namespace

int32_t fw_product(const fw_matrix *matrix, const float *x, int64_t count, int32_t digits, const char *isa, float *out) {
    if (!matrix || !x || !out || count < 1 || count > 4096 || digits < 0 || digits > 2) return FW_BAD_ARGUMENT;
    const Kernels *k = kernels_for(isa);
    if (!k) return FW_NO_ISA;
    try {
        Shared shared;
        Matrix w;
        if (int32_t status = make_matrix(*matrix, digits > 0, shared, w)) return status;
        Product product(*k, w, count, digits);
        product.prepare(x);
        product.multiply();
        product.finish(out);
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
    return FW_OK;
}
