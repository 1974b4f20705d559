#include "products.h"

#include <algorithm>
#include <cstring>

namespace fw {
namespace {

constexpr int64_t max_vectors = 16;  // of one call of the trellis kernels
constexpr int64_t max_planes = 2;

int64_t block_rows(const Matrix &w, int64_t block) {
    return std::min(w.padded_rows - block * trellis_block_rows, trellis_block_rows);
}
int64_t num_blocks(const Matrix &w) {
    return (w.padded_rows + trellis_block_rows - 1) / trellis_block_rows;
}
int64_t num_column_blocks(const Matrix &w) { return w.padded_columns / trellis_columns; }

// The work of a trellis product: row blocks that are divided into the same number of units. A unit
// of the last row block costs less when this block has fewer rows.
struct TrellisWork {
    static constexpr int64_t full_cost = 8;
    int64_t num_full_units, units_per_block, last_cost;

    TrellisWork(const Matrix &w, int64_t units)
        : num_full_units(w.padded_rows / trellis_block_rows * units), units_per_block(units) {
        // The cost of 64, 128 and 192 rows in eighths of 256 rows, measured on both vector kernels.
        constexpr int64_t costs[4] = {0, 3, 5, full_cost};
        last_cost = costs[w.padded_rows % trellis_block_rows / 64];
    }
    int64_t total_cost() const { return num_full_units * full_cost + last_cost * units_per_block; }
    // The unit whose beginning is nearest to `cost`.
    int64_t unit_at(int64_t cost) const {
        if (cost < full_cost * num_full_units || last_cost == 0)
            return (cost + full_cost / 2) / full_cost;
        return num_full_units + (cost - full_cost * num_full_units + last_cost / 2) / last_cost;
    }
};

}  // namespace

ActivationBuffer::ActivationBuffer(int64_t max_tokens, int64_t columns)
    : width(round_up(columns, vector_padding)), prefix_stride(width / chunk_columns + 1) {
    rotated = Array<float>(max_tokens * width);
    codes = Array<int8_t>(max_planes * max_tokens * width);
    interleaved = Array<int8_t>(max_planes * max_tokens * width);
    prefix_sums = Array<int32_t>(max_planes * max_tokens * prefix_stride);
    scales = Array<float>(max_planes * max_tokens);
}

void ProductBuffer::make_room(const Matrix &w, int64_t max_tokens, int num_threads) {
    width = round_up(w.rows, trellis_block_rows);
    if (w.is_int8(FW_TRELLIS)) {
        const int64_t num_rows = std::max(max_tokens, max_column_split_tokens * num_threads);
        if (!partial_sums) partial_sums = Array<int32_t>(max_planes * num_rows * width);
    } else if (!products) {
        products = Array<float>(max_planes * max_tokens * width);
    }
}

// The beginning of the share of thread `index` when `count` units are divided.
int64_t ProductWorker::share_begin(int64_t count, int index) const {
    return count * shares_.begin(index, num_threads_) / ThreadShares::total;
}

Span ProductWorker::share_of(int64_t count) const {
    return {share_begin(count, index_), share_begin(count, index_ + 1)};
}

void ProductWorker::prepare(const Rotation *rotation, const float *x, int64_t length, int planes,
                            int64_t token, ActivationBuffer &buffer) const {
    float *rotated = buffer.rotated.get() + token * buffer.width;
    if (rotation)
        rotation->apply(k_, x, rotated, scratch_.rotation.get());
    else
        std::memcpy(rotated, x, sizeof(float) * static_cast<size_t>(length));
    std::memset(rotated + length, 0, sizeof(float) * static_cast<size_t>(buffer.width - length));
    if (!planes) return;
    const int64_t vector = token * planes;
    k_.round_activations(rotated, buffer.width, planes, buffer.codes.get() + vector * buffer.width,
                         buffer.interleaved.get() + vector * buffer.width,
                         buffer.prefix_sums.get() + vector * buffer.prefix_stride,
                         buffer.scales.get() + vector);
}

void ProductWorker::multiply(const Matrix &w, const ActivationBuffer &x, int64_t num_tokens,
                             ProductBuffer &out) const {
    if (w.is_int8(FW_TRELLIS)) {
        if (num_tokens > max_column_split_tokens)
            multiply_trellis_by_vectors(w, x, num_tokens * w.planes, out);
        else
            multiply_trellis_by_columns(w, x, num_tokens * w.planes, out);
    } else if (w.is_int8(FW_INT)) {
        const Span blocks = share_of(w.padded_rows / int_block_rows);
        k_.int_dots(w.ints, blocks.begin, blocks.end, x.int8(), 0, num_tokens * w.planes,
                    out.products.get(), out.width);
    } else {
        multiply_floats(w, x, num_tokens, out);
    }
}

// Decodes sixteen rows at a time and multiplies them in float32.
void ProductWorker::multiply_floats(const Matrix &w, const ActivationBuffer &x, int64_t num_tokens,
                                    ProductBuffer &out) const {
    const Span groups = share_of((w.rows + 15) / 16);
    float *decoded = scratch_.decoded.get();
    for (int64_t group = groups.begin; group < groups.end; ++group) {
        const int64_t num_rows =
            w.decode_rows(k_, group * 16, decoded, decoded + 16 * w.padded_columns);
        k_.float_dots(decoded, num_rows, w.padded_columns, x.rotated.get(), x.width, num_tokens,
                      w.padded_columns, out.products.get() + group * 16, out.width);
    }
}

// The first unit of thread `index`; a unit is one column block of one row block.
int64_t ProductWorker::first_trellis_unit(const Matrix &w, int index) const {
    const TrellisWork work(w, num_column_blocks(w));
    return work.unit_at(share_begin(work.total_cost(), index));
}

// A unit is one column block of one row block. When several threads compute columns of the same row
// block, each writes partial sums, which `read` adds.
void ProductWorker::multiply_trellis_by_columns(const Matrix &w, const ActivationBuffer &x,
                                                int64_t num_vectors, ProductBuffer &out) const {
    const int64_t columns = num_column_blocks(w);
    const Span units = {first_trellis_unit(w, index_), first_trellis_unit(w, index_ + 1)};
    int32_t *sums =
        out.partial_sums.get() + index_ * max_planes * max_column_split_tokens * out.width;
    for (int64_t block = units.begin / columns;
         block < num_blocks(w) && block * columns < units.end; ++block) {
        const int64_t begin = std::max<int64_t>(units.begin - block * columns, 0);
        const int64_t end = std::min(units.end - block * columns, columns);
        if (begin < end)
            k_.trellis_dots(w.trellis, block, begin, end, x.int8(), 0, num_vectors,
                            scratch_.sums.get(), sums, out.width);
    }
    // `read` adds the sums of all threads from the first to the last one with units of a row block.
    // A thread between them may have no units; it writes zeros.
    if (units.begin == units.end && units.begin % columns)
        for (int64_t vector = 0; vector < num_vectors; ++vector)
            std::memset(sums + vector * out.width + units.begin / columns * trellis_block_rows, 0,
                        sizeof(int32_t) * trellis_block_rows);
}

// A unit is one row block times sixteen vectors, and is computed by one thread.
void ProductWorker::multiply_trellis_by_vectors(const Matrix &w, const ActivationBuffer &x,
                                                int64_t num_vectors, ProductBuffer &out) const {
    const TrellisWork work(w, 1);
    const int64_t blocks = num_blocks(w), cost = work.total_cost();
    const auto first_unit = [&](int index) {
        const int64_t begin =
            share_begin((num_vectors + max_vectors - 1) / max_vectors * cost, index);
        return begin / cost * blocks + work.unit_at(begin % cost);
    };
    for (int64_t unit = first_unit(index_); unit < first_unit(index_ + 1); ++unit) {
        const int64_t vector = unit / blocks * max_vectors;
        k_.trellis_dots(w.trellis, unit % blocks, 0, num_column_blocks(w), x.int8(), vector,
                        std::min(num_vectors - vector, max_vectors), scratch_.sums.get(),
                        out.partial_sums.get(), out.width);
    }
}

// Adds the partial sums of one vector and scales them.
void ProductWorker::read_trellis_vector(const Matrix &w, float scale, const ProductBuffer &product,
                                        int64_t num_tokens, int64_t vector, float *out) const {
    const int64_t columns = num_column_blocks(w);
    const int64_t thread_stride = max_planes * max_column_split_tokens * product.width;
    const int32_t *sums = product.partial_sums.get() + vector * product.width;
    for (int64_t block = 0; block < num_blocks(w); ++block) {
        // The threads with units of this row block are begin ... begin + num_parts - 1.
        int begin = 0, num_parts = 1;
        if (num_tokens <= max_column_split_tokens) {
            const int64_t first_unit = block * columns, end_unit = first_unit + columns;
            while (first_trellis_unit(w, begin + 1) <= first_unit) ++begin;
            while (begin + num_parts < num_threads_ &&
                   first_trellis_unit(w, begin + num_parts) < end_unit)
                ++num_parts;
        }
        const int64_t row = block * trellis_block_rows;
        k_.scale_sums(sums + begin * thread_stride + row, num_parts, thread_stride, w.scales + row,
                      scale, block_rows(w, block), out + row);
    }
}

void ProductWorker::read(const Matrix &w, const ActivationBuffer &x, const ProductBuffer &product,
                         int64_t num_tokens, int64_t token, float *out) const {
    // The product itself: the sum of the planes.
    const int64_t vector = token * w.planes;
    if (w.is_int8(FW_TRELLIS)) {
        const float *scales = x.scales.get() + vector;
        read_trellis_vector(w, scales[0] * w.table_scale, product, num_tokens, vector, out);
        if (w.planes == 2) {
            float *second = scratch_.second_plane.get();
            read_trellis_vector(w, scales[1] * w.table_scale, product, num_tokens, vector + 1,
                                second);
            k_.add(out, second, w.padded_rows);
        }
    } else if (w.planes == 2) {
        const float *high = product.products.get() + vector * product.width,
                    *low = high + product.width;
        for (int64_t i = 0; i < w.rows; ++i) out[i] = high[i] + low[i];
    } else {
        std::memcpy(out, product.products.get() + token * product.width,
                    sizeof(float) * static_cast<size_t>(w.rows));
    }
    // Then the output rotation, the bias and the padding.
    if (w.output) w.output->apply_inverse(k_, out, scratch_.rotation.get());
    if (w.bias)
        for (int64_t i = 0; i < w.rows; ++i) out[i] += w.bias[i];
    for (int64_t i = w.rows; i < round_up(w.rows, vector_padding); ++i) out[i] = 0.0f;
}

}  // namespace fw
