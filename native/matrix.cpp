#include "matrix.h"

#include <cstring>

namespace fw {
namespace {

constexpr int64_t max_length = int64_t{1} << 31;    // of rows and of columns
constexpr int64_t max_elements = int64_t{1} << 48;  // of a matrix
constexpr int64_t max_int8_columns = 65536;         // sums of products of bytes must fit 32 bits

int32_t build_int(const fw_matrix &source, bool int8_activations, Matrix &m) {
    m.padded_rows = round_up(source.rows, int_block_rows);
    m.padded_columns = round_up(source.columns, chunk_columns);
    const int64_t group = source.group;
    if (source.bits < 2 || source.bits > 8 || group < 1 || group > m.padded_columns)
        return FW_BAD_ARGUMENT;
    const int64_t num_groups = round_up(m.padded_columns, group) / group;
    if (source.codes_bytes != m.padded_rows * m.padded_columns / 8 * source.bits ||
        !source.scales || source.num_scales != m.padded_rows * num_groups ||
        source.zero_point < 0 || source.zero_point > 255)
        return FW_BAD_ARGUMENT;
    m.ints.codes = m.codes;
    m.ints.scales = source.scales;
    m.ints.zero_points = source.zero_points;
    m.ints.rows = m.padded_rows;
    m.ints.columns = m.padded_columns;
    m.ints.group = group;
    m.ints.num_groups = num_groups;
    m.ints.bits = source.bits;
    m.ints.zero_point = source.zero_point;
    const bool has_kernel =
        (num_groups == 1 || group % chunk_columns == 0) && m.padded_columns <= max_int8_columns;
    m.planes = int8_activations && has_kernel ? 2 : 0;
    return FW_OK;
}

int32_t build_trellis(const fw_matrix &source, bool int8_activations, SharedTables &tables,
                      Matrix &m) {
    m.padded_rows = round_up(source.rows, 64);
    m.padded_columns = round_up(source.columns, trellis_columns);
    if (source.bits < 1 || source.bits > 4 || source.state_bits < 8 || source.state_bits > 16 ||
        !source.state_values ||
        source.codes_bytes != m.padded_rows * m.padded_columns / 8 * source.bits ||
        !source.scales || source.num_scales != m.padded_rows || m.padded_columns > max_int8_columns)
        return FW_BAD_ARGUMENT;
    m.state_bits = source.state_bits;
    m.rate = source.bits;
    m.state_values = source.state_values;
    m.table_scale = source.table_scale;
    // A code that is not GF(2)-linear has no table, and no kernel for int8 activations.
    if (!source.table || !int8_activations) return FW_OK;
    if (!source.code_matrix && source.state_bits > 8) return FW_BAD_ARGUMENT;
    const TrellisCode *code = nullptr;
    if (int32_t status = build_trellis_code(source, tables.codes, code)) return status;
    m.trellis.codes = m.codes;
    m.trellis.rows = m.padded_rows;
    m.trellis.columns = m.padded_columns;
    m.trellis.rate = source.bits;
    code->describe(m.trellis);
    m.planes = 2;
    return FW_OK;
}

int32_t build_float(const fw_matrix &source, Matrix &m) {
    m.padded_rows = m.rows;
    m.padded_columns = round_up(m.columns, 16);
    return source.codes_bytes == m.rows * m.columns * (source.kind == FW_FLOAT32 ? 4 : 2)
               ? FW_OK
               : FW_BAD_ARGUMENT;
}

}  // namespace

int32_t build_matrix(const fw_matrix &source, bool int8_activations, SharedTables &tables,
                     Matrix &m) {
    if (source.size != sizeof(fw_matrix) || source.rows < 1 || source.columns < 1 ||
        source.rows > max_length || source.columns > max_length ||
        source.rows * source.columns > max_elements || !source.codes || source.codes_bytes < 1)
        return FW_BAD_ARGUMENT;
    m.kind = source.kind;
    m.rows = source.rows;
    m.columns = source.columns;
    m.codes = static_cast<const uint8_t *>(source.codes);
    m.scales = source.scales;
    m.bias = source.bias;
    int32_t status = FW_BAD_ARGUMENT;
    if (m.kind == FW_INT)
        status = build_int(source, int8_activations, m);
    else if (m.kind == FW_TRELLIS)
        status = build_trellis(source, int8_activations, tables, m);
    else if (m.is_float())
        status = build_float(source, m);
    if (status == FW_OK)
        status = build_rotation(source.input, source.columns, tables.rotations, m.input);
    if (status == FW_OK)
        status = build_rotation(source.output, source.rows, tables.rotations, m.output);
    if (m.planes && m.input) m.planes = 1;
    return status;
}

int64_t Matrix::scratch_floats() const {
    return kind == FW_INT ? 32 * ints.num_groups : kind == FW_TRELLIS ? 16 * padded_columns : 0;
}

int64_t Matrix::decode_rows(const Kernels &k, int64_t row, float *out, float *scratch) const {
    const int64_t count = rows - row < 16 ? rows - row : 16;
    if (kind == FW_TRELLIS)
        decode_trellis_rows(k, row, out);
    else
        for (int64_t i = 0; i < count; ++i)
            decode_row(k, row + i, out + i * padded_columns, scratch);
    return count;
}

void Matrix::decode_row(const Kernels &k, int64_t row, float *out, float *scratch) const {
    if (kind == FW_FLOAT32) {
        std::memcpy(out, codes + row * columns * 4, static_cast<size_t>(columns) * 4);
    } else if (kind == FW_FLOAT16 || kind == FW_BFLOAT16) {
        // The numbers may begin at any address; the kernel copies them before it reads them.
        k.widen(reinterpret_cast<const uint16_t *>(codes) + row * columns,
                kind == FW_FLOAT16 ? ShortFloat::fp16 : ShortFloat::bf16, columns, out);
    } else if (kind == FW_INT) {
        decode_int_row(k, row, out, scratch);
    } else {
        decode_trellis_rows(k, row / 16 * 16, scratch);
        std::memcpy(out, scratch + row % 16 * padded_columns,
                    static_cast<size_t>(padded_columns) * 4);
    }
}

// The sixteen rows of a group, tile by tile.
void Matrix::decode_trellis_rows(const Kernels &k, int64_t row, float *out) const {
    const int64_t block = row / trellis_block_rows, first_row = block * trellis_block_rows;
    const int64_t block_rows =
        padded_rows - first_row < trellis_block_rows ? padded_rows - first_row : trellis_block_rows;
    const int64_t line_lanes = block_rows / 4, first_lane = row % trellis_block_rows / 4;
    float row_scales[16];
    k.widen(scales + row, ShortFloat::fp16, 16, row_scales);
    const uint8_t *block_codes = codes + block * 32 * padded_columns * rate;
    uint8_t stream[32 * 4 + 8];
    for (int64_t column = 0; column < padded_columns; column += 16) {
        const int64_t line = column / trellis_columns * 32 * rate;
        const uint8_t *lane =
            block_codes + line * line_lanes + first_lane + column % trellis_columns / 16;
        for (int64_t i = 0; i < 32 * rate; ++i) stream[i] = lane[i * line_lanes];
        std::memcpy(stream + 32 * rate, stream, 8);
        k.decode_trellis_tile(stream, state_values, state_bits, rate, row_scales, out + column,
                              padded_columns);
    }
}

void Matrix::decode_int_row(const Kernels &k, int64_t row, float *out, float *scratch) const {
    // The scales and zero points of the row's block, as floats.
    const int64_t num_scales = ints.num_groups * 16;
    const int64_t first_scale = row / int_block_rows * num_scales;
    float *zero_points = scratch + num_scales;
    k.widen(scales + first_scale, ShortFloat::fp16, num_scales, scratch);
    for (int64_t i = 0; i < num_scales; ++i) {
        const int32_t zero_point =
            ints.zero_points ? ints.zero_points[first_scale + i] : ints.zero_point;
        zero_points[i] = static_cast<float>(zero_point);
    }
    const uint8_t *block_codes = codes + row / int_block_rows * 2 * padded_columns * ints.bits;
    const int64_t row_in_block = row % int_block_rows;
    k.decode_int_row(block_codes + row_in_block * 4, padded_columns, ints.bits,
                     scratch + row_in_block, zero_points + row_in_block, ints.group, out);
}

}  // namespace fw
