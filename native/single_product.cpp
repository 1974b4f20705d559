// Product of one matrix with several vectors, without a model but with the same code as in a model.
// Tests and the self-test of `doctor` use it.
#include <cstring>
#include <new>

#include "dispatch.h"
#include "products.h"

namespace {

using namespace fw;

constexpr int64_t max_count = 4096;

void multiply(const Kernels &kernels, const Matrix &w, const float *x, int64_t count, float *out) {
    ProductScratch scratch;
    int64_t rotation_floats = 16;
    for (const Rotation *rotation : {w.input, w.output})
        if (rotation && rotation->scratch_floats() > rotation_floats)
            rotation_floats = rotation->scratch_floats();
    scratch.rotation = Array<float>(rotation_floats);
    scratch.decoded = Array<float>(16 * w.padded_columns + w.scratch_floats());
    scratch.second_plane = Array<float>(round_up(w.rows, trellis_block_rows));
    scratch.sums = Array<int32_t>(16 * trellis_block_rows);
    ActivationBuffer activations(count, w.columns);
    ProductBuffer product;
    product.make_room(w, count, 1);
    Array<float> row(round_up(w.rows, trellis_block_rows));

    const ThreadShares shares;
    const ProductWorker worker(kernels, shares, 0, 1, scratch);
    for (int64_t i = 0; i < count; ++i)
        worker.prepare(w.input, x + i * w.columns, w.columns, w.planes, i, activations);
    worker.multiply(w, activations, count, product);
    for (int64_t i = 0; i < count; ++i) {
        worker.read(w, activations, product, count, i, row.get());
        std::memcpy(out + i * w.rows, row.get(), sizeof(float) * static_cast<size_t>(w.rows));
    }
}

}  // namespace

int32_t fw_product(const fw_matrix *matrix, const float *x, int64_t count, int32_t planes,
                   const char *isa, float *out) {
    if (!matrix || !x || !out || count < 1 || count > max_count || planes < 0 || planes > 2)
        return FW_BAD_ARGUMENT;
    const Kernels *kernels = kernels_for(isa);
    if (!kernels) return FW_NO_ISA;
    try {
        SharedTables tables;
        Matrix w;
        if (int32_t status = build_matrix(*matrix, planes > 0, tables, w)) return status;
        if (w.planes) w.planes = planes;
        multiply(*kernels, w, x, count, out);
    } catch (const std::bad_alloc &) {
        return FW_NO_MEMORY;
    }
    return FW_OK;
}
