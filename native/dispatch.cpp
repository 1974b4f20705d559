#include "dispatch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fw {
namespace {

#if defined(FEATHERWEIGHT_X86)
// FEATHERWEIGHT_MISSING names features to treat as absent, so that a test can remove any of them.
bool is_hidden(const char *feature) {
    const char *names = std::getenv("FEATHERWEIGHT_MISSING");
    return names && std::strstr(names, feature);
}

#define FW_HAS(feature) (__builtin_cpu_supports(feature) && !is_hidden(feature))

bool supports_avx2() {
    __builtin_cpu_init();
    return FW_HAS("avx2") && FW_HAS("f16c");
}

bool supports_avx512() {
    return supports_avx2() && FW_HAS("avx512f") && FW_HAS("avx512bw") && FW_HAS("avx512dq") &&
           FW_HAS("avx512vl") && FW_HAS("avx512vnni") && FW_HAS("avx512vbmi") && FW_HAS("gfni");
}
#endif

bool always() { return true; }

struct InstructionSet {
    const char *name;
    bool (*is_supported)();
    const Kernels *(*kernels)();
};

// Slowest first: the default is the last one that is supported.
constexpr InstructionSet instruction_sets[] = {
    {"scalar", always, kernels_scalar},
#if defined(FEATHERWEIGHT_EMULATE)
    {"avx512", always, kernels_avx512},
#elif defined(FEATHERWEIGHT_X86)
    {"avx2", supports_avx2, kernels_avx2},
    {"avx512", supports_avx512, kernels_avx512},
#endif
};

struct DefaultKernels {
    const Kernels *kernels;
    char message[160];
};

DefaultKernels choose_default() {
    DefaultKernels choice = {kernels_scalar(), ""};
    for (const InstructionSet &set : instruction_sets)
        if (set.is_supported()) choice.kernels = set.kernels();
    const char *requested = std::getenv("FEATHERWEIGHT_ISA");
    if (!requested || !*requested) return choice;
    if (const Kernels *kernels = kernels_named(requested))
        choice.kernels = kernels;
    else
        std::snprintf(choice.message, sizeof choice.message,
                      "FEATHERWEIGHT_ISA=%.32s cannot run on this machine; using %s (choices: "
                      "scalar, avx2, avx512)",
                      requested, choice.kernels->name);
    return choice;
}

const DefaultKernels &default_kernels() {
    static const DefaultKernels choice = choose_default();
    return choice;
}

}  // namespace

const Kernels *kernels_named(const char *isa) {
    for (const InstructionSet &set : instruction_sets)
        if (!std::strcmp(isa, set.name)) return set.is_supported() ? set.kernels() : nullptr;
    return nullptr;
}

const Kernels *kernels_for(const char *isa) {
    return isa ? kernels_named(isa) : default_kernels().kernels;
}

const char *isa_message() { return default_kernels().message; }

}  // namespace fw
