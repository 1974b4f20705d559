// Hostile sizes and contents for the functions that need no model.
#include "fuzz.h"

namespace fuzz {
namespace {

// Changes one of these sizes in every second call.
template <size_t N>
void mutate_one_of(Random &r, int64_t *const (&fields)[N]) {
    if (!r.one_in(2)) return;
    int64_t &field = *r.choose(fields);
    field = edge_number(r, field);
}

// What the call gets: 32 bits of the number.
int32_t to_int32(int64_t &field) {
    field = static_cast<int32_t>(field);
    return static_cast<int32_t>(field);
}

uint8_t *random_bytes(Random &r, GuardedMemory &memory, int64_t count) {
    uint8_t *bytes = memory.allocate<uint8_t>(count);
    for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(r.next());
    return bytes;
}

// Compares the results of a decoder on the portable kernels and on others.
void compare_decoders(const int32_t (&status)[2], float *const (&out)[2], bool is_valid,
                      int64_t size) {
    if (status[0] != status[1]) fail("instruction sets disagree on what is valid");
    if (status[0] == FW_OK && !is_valid) fail("a dense decoder took sizes that it cannot take");
    if (status[0] == FW_OK && !are_equal(out[0], out[1], size))
        fail("a dense decoder's instruction sets differ");
}

}  // namespace

void fuzz_viterbi(Random &r) {
    GuardedMemory memory;
    int64_t tiles = r.below(3), length = 8 * (1 + r.below(5)), state_bits = 8 + r.below(3),
            rate = 1 + r.below(4);
    mutate_one_of(r, {&tiles, &length, &state_bits, &rate});
    const int32_t state_bits32 = to_int32(state_bits), rate32 = to_int32(rate);
    const float scale = r.one_in(8) ? edge_float(r) : 1000.0f;
    const bool has_valid_sizes = tiles >= 0 && rate >= 1 && rate <= 4 && state_bits >= 8 &&
                                 state_bits <= 16 && length >= 8 && length <= 65536 &&
                                 length % 8 == 0 && rate * length >= state_bits &&
                                 !exceeds_limit(tiles, length);
    const bool is_valid = has_valid_sizes && scale > 0.0f && scale <= 8191.0f;
    if (has_valid_sizes &&
        (takes_long(tiles, length) || tiles * length > 4096 || (length << state_bits) > 1 << 17))
        return;

    const bool has_edges = r.one_in(4);
    const float *x = random_floats(r, memory, is_valid, is_valid ? tiles * length : 0, has_edges);
    const float *values = random_floats(
        r, memory, is_valid, is_valid ? int64_t{1} << state_bits : 0, has_edges && r.one_in(8));
    uint8_t *streams = memory.allocate<uint8_t>(is_valid ? tiles * length * rate / 8 : 0);
    if (r.one_in(50)) x = nullptr;
    const int32_t status = fw_viterbi_encode(x, tiles, length, values, state_bits32, rate32, scale,
                                             any_isa(r), 1, streams);
    if (count_status(functions, status) == FW_OK && !is_valid)
        fail("fw_viterbi_encode took sizes that it cannot take");
    if (has_valid_sizes != is_valid) return;
    float *decoded = memory.allocate<float>(is_valid ? tiles * length : 0);
    count_status(functions, fw_trellis_decode(streams, tiles, length, values, state_bits32, rate32,
                                              any_isa(r), 1, decoded));
}

void fuzz_trellis_dense(Random &r) {
    GuardedMemory memory;
    int64_t rows = 64 * r.below(6), columns = 64 * r.below(3), rate = 1 + r.below(4),
            state_bits = 8 + r.below(4);
    mutate_one_of(r, {&rows, &columns, &rate, &state_bits});
    const int32_t state_bits32 = to_int32(state_bits), rate32 = to_int32(rate);
    const bool is_valid = rows >= 0 && columns >= 0 && !exceeds_limit(rows, columns) &&
                          rows % 64 == 0 && columns % 64 == 0 && rate >= 1 && rate <= 4 &&
                          state_bits >= 8 && state_bits <= 16;
    if (is_valid && takes_long(rows, columns)) return;

    const uint8_t *codes = random_bytes(r, memory, is_valid ? rows * columns * rate / 8 : 0);
    const float *scales = random_floats(r, memory, is_valid, rows, r.one_in(4));
    const float *values =
        random_floats(r, memory, is_valid, is_valid ? int64_t{1} << state_bits : 0, false);
    const int64_t size = is_valid ? rows * columns : 0;
    float *const out[2] = {memory.allocate<float>(size), memory.allocate<float>(size)};
    const char *const isas[2] = {"scalar", available_isa(r)};
    int32_t status[2];
    for (int i = 0; i < 2; ++i)
        status[i] =
            count_status(functions, fw_trellis_dense(codes, rows, columns, values, state_bits32,
                                                     rate32, scales, isas[i], 1, out[i]));
    compare_decoders(status, out, is_valid, size);
}

void fuzz_int_dense(Random &r) {
    GuardedMemory memory;
    int64_t rows = 16 * r.below(4), columns = 32 * r.below(3), bits = 2 + r.below(7),
            group = 1 + r.below(80);
    const bool has_indices = r.one_in(2);
    int64_t count = has_indices ? r.below(9) : rows;
    mutate_one_of(r, {&rows, &columns, &bits, &group, &count});
    const int32_t bits32 = to_int32(bits);
    const bool is_valid = rows >= 0 && columns >= 0 && !exceeds_limit(rows, columns) &&
                          rows % 16 == 0 && columns % 32 == 0 && bits >= 2 && bits <= 8 &&
                          group >= 1 && group <= 1ll << 40 && count >= 0 &&
                          (has_indices || count == rows);
    if (is_valid && (takes_long(rows, columns) || takes_long(count, columns))) return;

    int64_t *indices = has_indices ? memory.allocate<int64_t>(is_valid ? count : 0) : nullptr;
    for (int64_t i = 0; has_indices && is_valid && i < count; ++i)
        indices[i] = r.one_in(60) || rows == 0 ? edge_number(r, rows) : r.below(rows);
    const int64_t num_groups = is_valid ? columns / group + (columns % group != 0) : 0;
    const uint8_t *codes = random_bytes(r, memory, is_valid ? rows * columns * bits / 8 : 0);
    const float *scales = random_floats(r, memory, is_valid, rows * num_groups, r.one_in(4));
    const float *zero_points = random_floats(r, memory, is_valid, rows * num_groups, false);
    const int64_t size = is_valid ? count * columns : 0;
    float *const out[2] = {memory.allocate<float>(size), memory.allocate<float>(size)};
    const char *const isas[2] = {"scalar", available_isa(r)};
    int32_t status[2];
    for (int i = 0; i < 2; ++i)
        status[i] =
            count_status(functions, fw_int_dense(codes, rows, columns, bits32, scales, zero_points,
                                                 group, indices, count, isas[i], 1, out[i]));
    compare_decoders(status, out, is_valid, size);
}

void fuzz_hadamard(Random &r) {
    GuardedMemory memory;
    int64_t rows = r.below(4), power = r.below(6), order = r.one_in(2) ? 1 : 1 + r.below(20);
    int64_t stride = (order << power) + r.below(3);
    mutate_one_of(r, {&rows, &power, &order, &stride});
    const int32_t power32 = to_int32(power);
    const bool is_valid = rows >= 0 && power >= 0 && power <= 30 && order >= 1 && order <= 4096 &&
                          stride >= (order << power) && !exceeds_limit(rows, stride);
    if (is_valid && (takes_long(rows, stride) || order > 256)) return;

    const int64_t size = is_valid && rows ? (rows - 1) * stride + (order << power) : 0;
    float *x = random_floats(r, memory, is_valid, size, r.one_in(4));
    float *copy = memory.allocate<float>(size);
    memcpy(copy, x, sizeof(float) * static_cast<size_t>(size));
    const float *kernel =
        order == 1 && !r.one_in(30)
            ? nullptr
            : random_floats(r, memory, is_valid, is_valid ? order * order : 0, false);
    const int32_t status = fw_hadamard(x, rows, stride, power32, order, kernel, "scalar", 1);
    if (count_status(functions, status) == FW_OK && !is_valid)
        fail("fw_hadamard took sizes that it cannot take");
    count_status(functions,
                 fw_hadamard(copy, rows, stride, power32, order, kernel, available_isa(r), 1));
    if (status == FW_OK && !are_equal(x, copy, size)) fail("fw_hadamard's instruction sets differ");
}

}  // namespace fuzz
