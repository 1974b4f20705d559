#include "dispatch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace fw {
namespace {

// FEATHERWEIGHT_MISSING names features to treat as absent, so that a test can take any one away.
[[maybe_unused]] bool missing(const char *feature) {
    const char *names = std::getenv("FEATHERWEIGHT_MISSING");
    return names && std::strstr(names, feature);
}

#if defined(FEATHERWEIGHT_X86)
#define FW_HAS(feature) (__builtin_cpu_supports(feature) && !missing(feature))

bool runs_avx2() {
    __builtin_cpu_init();
    return FW_HAS("avx2") && FW_HAS("f16c");
}

bool runs_avx512() {
    return runs_avx2() && FW_HAS("avx512f") && FW_HAS("avx512bw") && FW_HAS("avx512dq") && FW_HAS("avx512vl") &&
           FW_HAS("avx512vnni") && FW_HAS("avx512vbmi") && FW_HAS("gfni");
}
#endif

struct Choice {
    const Kernels *kernels;
    char message[160];
};

Choice choose() {
    Choice choice = {kernels_scalar(), ""};
    for (const char *name : {"avx2", "avx512"})
        if (const Kernels *k = kernels_named(name)) choice.kernels = k;
    const char *wanted = std::getenv("FEATHERWEIGHT_ISA");
    if (!wanted || !*wanted) return choice;
    if (const Kernels *k = kernels_named(wanted))
        choice.kernels = k;
    else
        std::snprintf(choice.message, sizeof choice.message,
                      "FEATHERWEIGHT_ISA=%.32s cannot run on this machine; using %s (choices: scalar, avx2, avx512)",
                      wanted, choice.kernels->name);
    return choice;
}

const Choice &choice() {
    static const Choice chosen = choose();
    return chosen;
}

}  // namespace

const Kernels *kernels_named(const char *isa) {
    if (!std::strcmp(isa, "scalar")) return kernels_scalar();
#if defined(FEATHERWEIGHT_EMULATE)
    if (!std::strcmp(isa, "avx512")) return kernels_avx512();
#elif defined(FEATHERWEIGHT_X86)
    if (!std::strcmp(isa, "avx2") && runs_avx2()) return kernels_avx2();
    if (!std::strcmp(isa, "avx512") && runs_avx512()) return kernels_avx512();
#endif
    return nullptr;
}

const Kernels *kernels_for(const char *isa) { return isa ? kernels_named(isa) : choice().kernels; }

const char *isa_message() { return choice().message; }

}  // namespace fw
