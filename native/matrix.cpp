// Matrices checked once, when a model is made: sizes against bytes, tables into the forms that kernels read.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "model.h"

namespace fw {
namespace {

constexpr int64_t limit = int64_t{1} << 31, most_numbers = int64_t{1} << 48;

// Another order of the bits of h: bits `chooser` and `sign` become the last and the one before it.
struct BitOrder {
    int chooser = 7, sign = 6;

    uint8_t of(uint8_t h) const {
        uint8_t out = 0;
        for (int bit = 0, to = 0; bit < 8; ++bit) {
            const int place = bit == chooser ? 7 : bit == sign ? 6 : to++;
            out |= static_cast<uint8_t>((h >> bit & 1) << place);
        }
        return out;
    }
};

constexpr int ordered_offset = 128;

// Writes the numbers + 128 in an order of bits that makes `TrellisMatrix::ordered` true, if there is one, else in their own.
bool put_in_order(const int8_t *numbers, uint8_t *table, BitOrder &order) {
    for (int chooser = 7; chooser >= 0; --chooser)
        for (int sign = 0; sign < 8; ++sign) {
            if (sign == chooser) continue;
            order = {chooser, sign};
            for (int h = 0; h < 256; ++h)
                table[order.of(static_cast<uint8_t>(h))] = static_cast<uint8_t>(numbers[h] + ordered_offset);
            bool fits = true;
            for (int h = 0; h < 128; ++h)
                fits &= h <= table[h] && table[h] <= table[h + 128] && table[h + 128] <= h + 128;
            if (fits) return true;
        }
    order = {};
    for (int h = 0; h < 256; ++h) table[h] = static_cast<uint8_t>(numbers[h] + ordered_offset);
    return false;
}

// The code's shift-and-matrix for bit position `at` of a stream: what byte `byte` contributes to h, in the order of
// vgf2p8affineqb (row i of the matrix, which makes bit i of the result, in byte 7 - i).
uint64_t linear(int at, int byte, int state_bits, const uint8_t *columns, const BitOrder &order) {
    uint64_t matrix = 0;
    for (int bit = 0; bit < 8; ++bit) {
        const int i = 8 * byte + bit - at;
        const uint8_t column =
            order.of(i < 0 || i >= state_bits ? 0 : i < 8 ? static_cast<uint8_t>(1 << i) : columns[i - 8]);
        for (int row = 0; row < 8; ++row)
            if (column >> row & 1) matrix |= uint64_t{1} << (8 * (7 - row) + bit);
    }
    return matrix;
}

// Whether table[16 high + low] = B[high] + A[low] held between -W[high] and W[high], where only low 0 and 15 reach them;
// writes A, W, B + 64.
bool split_table(const int8_t *table, uint8_t *out) {
    int a[16], b[16], w[16];
    const int middle = table[0] + table[15];
    if (middle % 2) return false;
    for (int high = 0; high < 16; ++high) {
        b[high] = middle / 2 + table[16 * high + 1] - table[1];
        w[high] = table[16 * high + 15] - b[high];
    }
    for (int low = 0; low < 16; ++low) a[low] = low == 0 ? -128 : low == 15 ? 127 : table[low] - b[0];
    for (int high = 0; high < 16; ++high) {
        if (w[high] < 0 || w[high] > 127 || b[high] < -64 || b[high] > 63) return false;
        for (int low = 0; low < 16; ++low) {
            const int held = a[low] < -w[high] ? -w[high] : a[low] > w[high] ? w[high] : a[low];
            if (held + b[high] != table[16 * high + low]) return false;
        }
    }
    for (int i = 0; i < 16; ++i) {
        out[i] = static_cast<uint8_t>(a[i]);
        out[16 + i] = static_cast<uint8_t>(w[i]);
        out[32 + i] = static_cast<uint8_t>(b[i] + 64);
    }
    return true;
}

// The same block of this or an earlier rotation, whose padded kernels serve again: most rotations share one matrix.
const Rotation::Block *same_block(const fw_rotation_block &b, const Rotation &made, const Shared &shared) {
    const auto look = [&](const Rotation &r) -> const Rotation::Block * {
        for (const Rotation::Block &o : r.blocks)
            if (o.source == b.kernel && o.source_transposed == b.transposed && o.power == b.power && o.order == b.order)
                return &o;
        return nullptr;
    };
    if (const Rotation::Block *found = look(made)) return found;
    for (const auto &rotation : shared.rotations)
        if (const Rotation::Block *found = look(*rotation)) return found;
    return nullptr;
}

int32_t make_rotation(const fw_rotation *from, int64_t length, Shared &shared, const Rotation *&out) {
    auto &rotations = shared.rotations;
    auto &known = shared.known;
    if (!from) return FW_OK;
    if (from->length != length || !from->signs || from->num_blocks < 1 || from->num_blocks > length || !from->blocks)
        return FW_BAD_ARGUMENT;
    for (size_t i = 0; i < known.size(); ++i)
        if (known[i] == from) {
            out = rotations[i].get();
            return FW_OK;
        }
    auto made = std::make_unique<Rotation>();
    made->length = length;
    made->signs = from->signs;
    int64_t sum = 0, floats = 0;
    for (int64_t i = 0; i < from->num_blocks; ++i) {
        const fw_rotation_block &b = from->blocks[i];
        if (b.power < 0 || b.power > 30 || b.order < 1 || b.order > 4096) return FW_BAD_ARGUMENT;
        if ((b.order == 1) != (b.kernel == nullptr) || (b.order == 1) != (b.transposed == nullptr)) return FW_BAD_ARGUMENT;
        sum += int64_t{b.order} << b.power;
        if (sum > length) return FW_BAD_ARGUMENT;
        if (b.kernel && !same_block(b, *made, shared)) floats += 2 * b.order * round_up(b.order, 16);
    }
    if (sum != length) return FW_BAD_ARGUMENT;
    made->kernels = Array<float>(floats);
    float *at = made->kernels.get();
    for (int64_t i = 0; i < from->num_blocks; ++i) {
        const fw_rotation_block &b = from->blocks[i];
        Rotation::Block block = {b.power, b.order, round_up(b.order, 16), nullptr, nullptr, b.kernel, b.transposed};
        const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(int64_t{1} << b.power));
        const Rotation::Block *same = b.kernel ? same_block(b, *made, shared) : nullptr;
        if (same) {
            block.forward = same->forward;
            block.inverse = same->inverse;
        } else if (b.kernel) {
            for (const float *kernel : {b.kernel, b.transposed}) {
                for (int64_t r = 0; r < b.order; ++r)
                    for (int64_t i = 0; i < b.order; ++i) at[r * block.width + i] = kernel[r * b.order + i] * scale;
                (kernel == b.kernel ? block.forward : block.inverse) = at;
                at += b.order * block.width;
            }
        }
        made->blocks.push_back(block);
    }
    out = made.get();
    known.push_back(from);
    rotations.push_back(std::move(made));
    return FW_OK;
}

int32_t make_int(const fw_matrix &from, bool whole_numbers, Matrix &m) {
    m.padded_rows = round_up(from.rows, 16);
    m.padded_columns = round_up(from.columns, 32);
    const int64_t group = from.group;
    if (from.bits < 2 || from.bits > 8 || group < 1 || group > m.padded_columns) return FW_BAD_ARGUMENT;
    const int64_t groups = round_up(m.padded_columns, group) / group;
    if (from.codes_bytes != m.padded_rows * m.padded_columns / 8 * from.bits || !from.scales ||
        from.num_scales != m.padded_rows * groups || from.zero < 0 || from.zero > 255)
        return FW_BAD_ARGUMENT;
    m.ints = {m.codes, from.scales, from.zeros, m.padded_rows, m.padded_columns, group, groups, from.bits, from.zero};
    m.fast = whole_numbers && (groups == 1 || group % 32 == 0) && m.padded_columns <= 65536;
    return FW_OK;
}

int32_t make_code(const fw_matrix &from, Shared &shared, const TrellisCode *&out) {
    for (const auto &code : shared.codes)
        if (code->source == from.table && code->source_matrix == from.code_matrix &&
            code->state_bits == from.state_bits) {
            out = code.get();
            return FW_OK;
        }
    auto code = std::make_unique<TrellisCode>();
    code->source = from.table;
    code->source_matrix = from.code_matrix;
    code->state_bits = from.state_bits;
    code->linear = Array<uint64_t>(24);
    code->table = Array<uint8_t>(256 + 256 + 48 + 64);
    code->states = Array<int8_t>(int64_t{1} << from.state_bits);
    uint8_t *table = code->table.get(), *plain = table + 256, *older = plain + 304;
    for (int h = 0; h < 256; ++h) {
        if (from.table[h] < -63 || from.table[h] > 63) return FW_BAD_ARGUMENT;
        plain[h] = static_cast<uint8_t>(from.table[h] + 64);
    }
    code->split = split_table(from.table, plain + 256);
    BitOrder order;
    code->ordered = put_in_order(from.table, table, order);
    for (int at = 0; at < 8; ++at)
        for (int byte = 0; byte < 3; ++byte)
            code->linear.get()[8 * byte + at] = linear(at, byte, from.state_bits, from.code_matrix, order);
    for (int i = 0; i < from.state_bits - 8; ++i)
        for (int value = 0; value < 16; ++value)
            if (value >> (i & 3) & 1) {
                older[(i >> 2) * 16 + value] ^= from.code_matrix[i] & 15;
                older[(2 + (i >> 2)) * 16 + value] ^= from.code_matrix[i] >> 4;
            }
    for (int s = 0; s < 1 << from.state_bits; ++s) {
        int h = s & 255;
        for (int i = 0; i < from.state_bits - 8; ++i)
            if (s >> (8 + i) & 1) h ^= from.code_matrix[i];
        code->states.get()[s] = from.table[h];
    }
    out = code.get();
    shared.codes.push_back(std::move(code));
    return FW_OK;
}

int32_t make_trellis(const fw_matrix &from, bool whole_numbers, Shared &shared, Matrix &m) {
    m.padded_rows = round_up(from.rows, 64);
    m.padded_columns = round_up(from.columns, 64);
    if (from.bits < 1 || from.bits > 4 || from.state_bits < 8 || from.state_bits > 16 || !from.values ||
        from.codes_bytes != m.padded_rows * m.padded_columns / 8 * from.bits || !from.scales ||
        from.num_scales != m.padded_rows || m.padded_columns > 65536)
        return FW_BAD_ARGUMENT;
    m.state_bits = from.state_bits;
    m.rate = from.bits;
    m.values = from.values;
    m.unit = from.unit;
    if (!from.table || !whole_numbers) return FW_OK;
    if (!from.code_matrix && from.state_bits > 8) return FW_BAD_ARGUMENT;
    const TrellisCode *code = nullptr;
    if (int32_t status = make_code(from, shared, code)) return status;
    const uint64_t *l = code->linear.get();
    const uint8_t *table = code->table.get(), *plain = table + 256;
    m.trellis = {m.codes, m.padded_rows, m.padded_columns, from.bits, from.state_bits, l, l + 8, l + 16,
                 table, ordered_offset, code->ordered, plain, code->split ? plain + 256 : nullptr, plain + 304,
                 code->states.get()};
    m.fast = true;
    return FW_OK;
}

}  // namespace

int64_t Rotation::scratch_floats() const {
    int64_t most = 16;
    for (const Block &block : blocks) most = std::max(most, (block.order << block.power) + block.width);
    return most;
}

namespace {

void rotate_blocks(const Kernels &k, const std::vector<Rotation::Block> &blocks, bool inverse, float *x,
                   float *scratch) {
    for (const Rotation::Block &block : blocks) {
        k.hadamard(x, block.power, block.order, inverse ? block.inverse : block.forward, block.width, scratch);
        const int64_t n = block.order << block.power;
        if (block.order == 1 && n > 1) {
            const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(n));
            for (int64_t i = 0; i < n; ++i) x[i] *= scale;
        }
        x += n;
    }
}

}  // namespace

void Rotation::apply(const Kernels &k, const float *x, float *to, float *scratch) const {
    k.flip(x, signs, length, to);
    rotate_blocks(k, blocks, false, to, scratch);
}

void Rotation::undo(const Kernels &k, float *x, float *scratch) const {
    rotate_blocks(k, blocks, true, x, scratch);
    k.flip(x, signs, length, x);
}

int32_t make_matrix(const fw_matrix &from, bool whole_numbers, Shared &shared, Matrix &m) {
    if (from.size != sizeof(fw_matrix) || from.rows < 1 || from.columns < 1 || from.rows > limit ||
        from.columns > limit || from.rows * from.columns > most_numbers || !from.codes || from.codes_bytes < 1)
        return FW_BAD_ARGUMENT;
    m.kind = from.kind;
    m.rows = from.rows;
    m.columns = from.columns;
    m.codes = static_cast<const uint8_t *>(from.codes);
    m.scales = from.scales;
    m.bias = from.bias;
    int32_t status = FW_OK;
    if (from.kind == FW_INT) {
        status = make_int(from, whole_numbers, m);
    } else if (from.kind == FW_TRELLIS) {
        status = make_trellis(from, whole_numbers, shared, m);
    } else if (m.is_float()) {
        m.padded_rows = m.rows;
        m.padded_columns = round_up(m.columns, 16);
        if (from.codes_bytes != m.rows * m.columns * (from.kind == FW_FLOAT32 ? 4 : 2)) status = FW_BAD_ARGUMENT;
    } else {
        status = FW_BAD_ARGUMENT;
    }
    if (status == FW_OK) status = make_rotation(from.input, from.columns, shared, m.input);
    if (status == FW_OK) status = make_rotation(from.output, from.rows, shared, m.output);
    return status;
}

int64_t Matrix::scratch_floats() const {
    return kind == FW_INT ? 32 * ints.groups : kind == FW_TRELLIS ? 16 * padded_columns : 0;
}

int64_t Matrix::decode(const Kernels &k, int64_t row, float *out, float *scratch) const {
    const int64_t count = rows - row < 16 ? rows - row : 16;
    if (kind == FW_TRELLIS) {
        const int64_t block = row / 256, height = padded_rows - block * 256 < 256 ? padded_rows - block * 256 : 256;
        const int64_t width = height / 4, first = row % 256 / 4;
        float scale[16];
        k.widen(scales + row, 1, 16, scale);
        const uint8_t *base = codes + block * 32 * padded_columns * rate;
        uint8_t stream[32 * 4 + 8];
        for (int64_t column = 0; column < padded_columns; column += 16) {
            const uint8_t *from = base + column / 64 * 32 * rate * width + first + column % 64 / 16;
            for (int64_t i = 0; i < 32 * rate; ++i) stream[i] = from[i * width];
            std::memcpy(stream + 32 * rate, stream, 8);
            k.tile(stream, values, state_bits, rate, scale, out + column, padded_columns);
        }
    } else {
        for (int64_t i = 0; i < count; ++i) decode_one(k, row + i, out + i * padded_columns, scratch);
    }
    return count;
}

void Matrix::decode_one(const Kernels &k, int64_t row, float *out, float *scratch) const {
    if (kind == FW_FLOAT32) {
        std::memcpy(out, codes + row * columns * 4, static_cast<size_t>(columns) * 4);
    } else if (kind == FW_FLOAT16 || kind == FW_BFLOAT16) {
        // The file may begin anywhere; kernels copy, they do not cast.
        k.widen(reinterpret_cast<const uint16_t *>(codes) + row * columns, kind == FW_FLOAT16 ? 1 : 2, columns, out);
    } else if (kind == FW_INT) {
        const int64_t block = row / 16, first = block * ints.groups * 16;
        float *zero = scratch + ints.groups * 16;
        k.widen(scales + first, 1, ints.groups * 16, scratch);
        for (int64_t i = 0; i < ints.groups * 16; ++i)
            zero[i] = static_cast<float>(ints.zeros ? ints.zeros[first + i] : ints.zero);
        k.int_row(codes + block * 2 * padded_columns * ints.bits + row % 16 * 4, padded_columns, ints.bits,
                  scratch + row % 16, zero + row % 16, ints.group, out);
    } else {
        decode(k, row / 16 * 16, scratch, nullptr);
        std::memcpy(out, scratch + row % 16 * padded_columns, static_cast<size_t>(padded_columns) * 4);
    }
}

}  // namespace fw
