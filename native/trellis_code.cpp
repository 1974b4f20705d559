#include "trellis_code.h"

namespace fw {
namespace {

constexpr int permuted_offset = 128;

// A permutation of the bits of a hash: bit `selector` becomes the top bit, bit `sign` the one below
// it, and the other bits keep their order.
struct BitPermutation {
    int selector = 7, sign = 6;

    uint8_t apply(uint8_t hash) const {
        uint8_t out = 0;
        for (int bit = 0, next = 0; bit < 8; ++bit) {
            const int target = bit == selector ? 7 : bit == sign ? 6 : next++;
            out |= static_cast<uint8_t>((hash >> bit & 1) << target);
        }
        return out;
    }
};

void permute_table(const int8_t *values, const BitPermutation &permutation, uint8_t *out) {
    for (int h = 0; h < 256; ++h)
        out[permutation.apply(static_cast<uint8_t>(h))] =
            static_cast<uint8_t>(values[h] + permuted_offset);
}

// Writes the table in an order of hash bits for which `TrellisMatrix::select_by_min_max` is true,
// and returns true. If there is none, writes it in its original order and returns false.
bool permute_for_min_max(const int8_t *values, uint8_t *out, BitPermutation &permutation) {
    for (int selector = 7; selector >= 0; --selector)
        for (int sign = 0; sign < 8; ++sign) {
            if (sign == selector) continue;
            permutation = {selector, sign};
            permute_table(values, permutation, out);
            bool suits = true;
            for (int h = 0; h < 128; ++h)
                suits &= h <= out[h] && out[h] <= out[h + 128] && out[h + 128] <= h + 128;
            if (suits) return true;
        }
    permutation = {};
    permute_table(values, permutation, out);
    return false;
}

// The 8 x 8 bit matrix by which byte `byte` of a stream is multiplied for the hash of a state that
// begins at bit position `phase`. It has the order of vgf2p8affineqb: the row for bit i of the
// result is byte 7 - i.
uint64_t byte_matrix(int phase, int byte, int state_bits, const uint8_t *code_matrix,
                     const BitPermutation &permutation) {
    uint64_t matrix = 0;
    for (int bit = 0; bit < 8; ++bit) {
        // The newest eight bits of the state are XORed into the hash directly, each older bit by
        // its column of the code's matrix.
        const int i = 8 * byte + bit - phase;
        const uint8_t column = permutation.apply(i < 0 || i >= state_bits ? 0
                                                 : i < 8 ? static_cast<uint8_t>(1 << i)
                                                         : code_matrix[i - 8]);
        for (int row = 0; row < 8; ++row)
            if (column >> row & 1) matrix |= uint64_t{1} << (8 * (7 - row) + bit);
    }
    return matrix;
}

// Whether table[16 high + low] = B[high] + clamp(A[low], -W[high], W[high]), where only the lowest
// and the highest A reach the limits. Writes A, W and B + 64.
bool split_into_nibbles(const int8_t *table, uint8_t *out) {
    int a[16], b[16], w[16];
    const int middle = table[0] + table[15];
    if (middle % 2) return false;
    for (int high = 0; high < 16; ++high) {
        b[high] = middle / 2 + table[16 * high + 1] - table[1];
        w[high] = table[16 * high + 15] - b[high];
    }
    for (int low = 0; low < 16; ++low)
        a[low] = low == 0 ? -128 : low == 15 ? 127 : table[low] - b[0];
    for (int high = 0; high < 16; ++high) {
        if (w[high] < 0 || w[high] > 127 || b[high] < -64 || b[high] > 63) return false;
        for (int low = 0; low < 16; ++low) {
            const int clamped = a[low] < -w[high] ? -w[high] : a[low] > w[high] ? w[high] : a[low];
            if (clamped + b[high] != table[16 * high + low]) return false;
        }
    }
    for (int i = 0; i < 16; ++i) {
        out[i] = static_cast<uint8_t>(a[i]);
        out[16 + i] = static_cast<uint8_t>(w[i]);
        out[32 + i] = static_cast<uint8_t>(b[i] + 64);
    }
    return true;
}

// The code's matrix times every value of the state's bits 8 to 11 and of its bits 12 to 15.
void multiply_older_bits(const uint8_t *code_matrix, int state_bits, uint8_t *out) {
    for (int i = 0; i < state_bits - 8; ++i)
        for (int value = 0; value < 16; ++value)
            if (value >> (i & 3) & 1) {
                out[(i >> 2) * 16 + value] ^= code_matrix[i] & 15;
                out[(2 + (i >> 2)) * 16 + value] ^= code_matrix[i] >> 4;
            }
}

void list_state_values(const fw_matrix &source, int8_t *out) {
    for (int state = 0; state < 1 << source.state_bits; ++state) {
        int hash = state & 255;
        for (int i = 0; i < source.state_bits - 8; ++i)
            if (state >> (8 + i) & 1) hash ^= source.code_matrix[i];
        out[state] = source.table[hash];
    }
}

}  // namespace

void TrellisCode::describe(TrellisMatrix &w) const {
    w.state_bits = state_bits;
    w.byte0_matrices = byte_matrices.get();
    w.byte1_matrices = byte_matrices.get() + 8;
    w.byte2_matrices = byte_matrices.get() + 16;
    w.permuted_table = permuted_table.get();
    w.permuted_offset = permuted_offset;
    w.select_by_min_max = select_by_min_max;
    w.table = table.get();
    w.nibble_tables = has_nibble_form ? nibble_tables.get() : nullptr;
    w.older_bit_tables = older_bit_tables.get();
    w.state_values = state_values.get();
}

int32_t build_trellis_code(const fw_matrix &source, TrellisCodes &codes, const TrellisCode *&out) {
    for (const auto &code : codes)
        if (code->source_table == source.table && code->source_matrix == source.code_matrix &&
            code->state_bits == source.state_bits) {
            out = code.get();
            return FW_OK;
        }
    auto code = std::make_unique<TrellisCode>();
    code->source_table = source.table;
    code->source_matrix = source.code_matrix;
    code->state_bits = source.state_bits;
    code->table = Array<uint8_t>(256);
    for (int h = 0; h < 256; ++h) {
        if (source.table[h] < -63 || source.table[h] > 63) return FW_BAD_ARGUMENT;
        code->table.get()[h] = static_cast<uint8_t>(source.table[h] + 64);
    }
    code->nibble_tables = Array<uint8_t>(48);
    code->has_nibble_form = split_into_nibbles(source.table, code->nibble_tables.get());
    BitPermutation permutation;
    code->permuted_table = Array<uint8_t>(256);
    code->select_by_min_max =
        permute_for_min_max(source.table, code->permuted_table.get(), permutation);
    code->byte_matrices = Array<uint64_t>(24);
    for (int byte = 0; byte < 3; ++byte)
        for (int phase = 0; phase < 8; ++phase)
            code->byte_matrices.get()[8 * byte + phase] =
                byte_matrix(phase, byte, source.state_bits, source.code_matrix, permutation);
    code->older_bit_tables = Array<uint8_t>(64);
    multiply_older_bits(source.code_matrix, source.state_bits, code->older_bit_tables.get());
    code->state_values = Array<int8_t>(int64_t{1} << source.state_bits);
    list_state_values(source, code->state_values.get());
    out = code.get();
    codes.push_back(std::move(code));
    return FW_OK;
}

}  // namespace fw
