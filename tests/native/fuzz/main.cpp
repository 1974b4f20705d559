// Hostile inputs for every function of the C ABI: each is a valid call, made from a seed, with a
// few fields changed.
//
//     fuzz [--inputs N] [--seed S] [--from I]
//
// A call must answer with a status, touch nothing outside its arrays (each ends at a guard), and,
// where it answers FW_OK, give the same bits on every instruction set. What the library cannot
// check (how long an array without a size of its own is) is not changed: that is the caller's
// contract. A crash prints its input; --from I --inputs 1 repeats it.
#include <math.h>
#include <signal.h>
#include <stdio.h>

#include "fuzz.h"

extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());

namespace fuzz {
namespace {

uint64_t seed = 0, input = 0;
int64_t counts[2][6] = {};  // by Group and status

uint64_t num_calls() {
    uint64_t sum = 0;
    for (const auto &group : counts)
        for (int64_t count : group) sum += static_cast<uint64_t>(count);
    return sum;
}

void handle_signal(int signal_number) {
    report_input();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void report_crashes() {
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(report_input);
    else
        for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(number, handle_signal);
}

void run_input() {
    Random r(seed * 1000003 + input);
    switch (r.below(4)) {
        case 0: fuzz_viterbi(r); break;
        case 1: r.one_in(2) ? fuzz_trellis_dense(r) : fuzz_int_dense(r); break;
        case 2: fuzz_hadamard(r); break;
        default: fuzz_model(r);
    }
}

void print_counts() {
    static const char *const names[] = {"functions", "models"};
    for (int group = 0; group < 2; ++group) {
        const int64_t *count = counts[group];
        printf("%s: %lld ok, %lld refused, %lld not finite, %lld no memory, %lld no such isa\n",
               names[group], static_cast<long long>(count[FW_OK]),
               static_cast<long long>(count[FW_BAD_ARGUMENT]),
               static_cast<long long>(count[FW_NOT_FINITE]),
               static_cast<long long>(count[FW_NO_MEMORY]),
               static_cast<long long>(count[FW_NO_ISA]));
    }
    printf("%llu inputs, no crash\n", static_cast<unsigned long long>(num_calls()));
}

int run(int argc, char **argv) {
    uint64_t inputs = 10000, first_input = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        const uint64_t value = strtoull(argv[i + 1], nullptr, 10);
        if (!strcmp(argv[i], "--inputs"))
            inputs = value;
        else if (!strcmp(argv[i], "--seed"))
            seed = value;
        else if (!strcmp(argv[i], "--from"))
            first_input = value;
        else
            return fprintf(stderr, "fuzz: unknown option %s\n", argv[i]), 2;
    }
    report_crashes();
    for (input = first_input; num_calls() < inputs; ++input)
        run_input();  // --inputs counts calls of the library
    print_counts();
    return 0;
}

}  // namespace

void report_input() {
    fprintf(stderr,
            "fuzz: crashed in input %llu; repeat it with --seed %llu --from %llu --inputs 1\n",
            static_cast<unsigned long long>(input), static_cast<unsigned long long>(seed),
            static_cast<unsigned long long>(input));
}

void fail(const char *finding) {
    fprintf(stderr, "fuzz: %s\n", finding);
    report_input();
    abort();
}

int32_t count_status(Group group, int32_t status) {
    if (status < FW_OK || status > FW_BUSY) fail("a status that does not exist");
    ++counts[group][status];
    return status;
}

const char *any_isa(Random &r) {
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    const char *name = r.choose(names);
    if (r.one_in(200)) return "mmx";
    return fw_isa_available(name) ? name : nullptr;
}

const char *available_isa(Random &r) {
    const char *name = any_isa(r);
    return name && fw_isa_available(name) ? name : nullptr;
}

int64_t edge_number(Random &r, int64_t original) {
    static const int64_t block_edges[] = {0,  1,  2,   15,  16,  17,  31,  32,  33,   63,
                                          64, 65, 100, 127, 128, 255, 256, 257, 4096, 65536};
    static const int64_t limits[] = {
        -1,        -16,       -64,       0x100000,  INT32_MIN, INT32_MAX, INT32_MAX + 1ll,
        1ll << 32, 1ll << 40, 1ll << 41, INT64_MAX, INT64_MIN};
    switch (r.below(4)) {
        case 0: return static_cast<int64_t>(static_cast<uint64_t>(original) + 1);
        case 1: return static_cast<int64_t>(static_cast<uint64_t>(original) - 1);
        case 2: return original > 0 && original < 1 << 20 ? original * 2 : ~original;
        default: return r.below(3) ? r.choose(block_edges) : r.choose(limits);
    }
}

float edge_float(Random &r) {
    static const float edges[] = {0.0f,  -0.0f,  1.0f,     -1.0f,     1e-45f, 1e-38f,
                                  3e38f, -3e38f, INFINITY, -INFINITY, NAN,    8191.0f};
    return r.choose(edges);
}

bool exceeds_limit(int64_t rows, int64_t columns) {
    return rows > 1ll << 40 || (rows && columns > (1ll << 40) / rows);
}

bool takes_long(int64_t rows, int64_t columns) {
    return rows > 1 << 16 || columns > 1 << 16 || rows * columns > 1 << 16;
}

float *random_floats(Random &r, GuardedMemory &memory, bool is_valid, int64_t count,
                     bool has_edges) {
    float *floats = memory.allocate<float>(is_valid ? count : 0);
    for (int64_t i = 0; is_valid && i < count; ++i)
        floats[i] = has_edges && r.one_in(16) ? edge_float(r) : 3.0f * r.uniform();
    return floats;
}

bool are_equal(const float *a, const float *b, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        if (memcmp(a + i, b + i, 4) && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

}  // namespace fuzz

int main(int argc, char **argv) { return fuzz::run(argc, argv); }
