// What the parts of the fuzzer share: edge values, guarded arrays, and the report of a finding.
#pragma once
#include <stdint.h>

#include "featherweight.h"
#include "../tiny_model.h"

namespace fuzz {

using tiny::GuardedMemory;
using tiny::Random;
using tiny::round_up;

enum Group { functions, models };  // of the calls that are counted

// Prints the input that repeats a finding.
void report_input();
// Reports a finding and ends the process.
[[noreturn]] void fail(const char *finding);
// Counts the status of a call; returns it.
int32_t count_status(Group group, int32_t status);

// The name of an instruction set that runs here, null for the default, or now and then a name that
// does not exist.
const char *any_isa(Random &r);
// The same, but never a name that does not exist.
const char *available_isa(Random &r);
// A number next to `original`, or one at which sizes overflow or formats end.
int64_t edge_number(Random &r, int64_t original);
float edge_float(Random &r);

// Whether rows * columns is more than the library takes; neither is negative.
bool exceeds_limit(int64_t rows, int64_t columns);
// Whether it is more than is worth the time.
bool takes_long(int64_t rows, int64_t columns);

// `count` floats where the call may read them (`is_valid`), else an array of nothing, so that
// reading is a finding. With `has_edges` some of them are not finite or very large.
float *random_floats(Random &r, GuardedMemory &memory, bool is_valid, int64_t count,
                     bool has_edges);
// Whether two arrays have the same bits; all NaNs are equal.
bool are_equal(const float *a, const float *b, int64_t count);

// One kind of input each.
void fuzz_viterbi(Random &r);
void fuzz_trellis_dense(Random &r);
void fuzz_int_dense(Random &r);
void fuzz_hadamard(Random &r);
void fuzz_model(Random &r);

// Changes a size whose array cannot grow: to a smaller, negative or absurd one.
template <typename T>
void mutate_size(Random &r, T &field) {
    static const int64_t absurd[] = {0, -1, -64, INT32_MIN, INT32_MAX};
    field = static_cast<T>(r.one_in(2) && field > 0 ? r.below(field) : r.choose(absurd));
}

template <typename T>
void clear_pointer(Random &r, T *&pointer) {
    if (!r.one_in(3)) pointer = nullptr;
}

// Change one field of a description that was valid.
void mutate(Random &r, fw_matrix &matrix);
void mutate(Random &r, tiny::Model &model);

}  // namespace fuzz
