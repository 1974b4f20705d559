// Which kernels run here: decided once, feature by feature, and never an illegal instruction.
#pragma once
#include "kernels.h"

namespace fw {

// Null when `isa` is unknown or this processor lacks a feature it needs.
const Kernels *kernels_named(const char *isa);
// `isa`, or the default when null; null when it cannot run here.
const Kernels *kernels_for(const char *isa);
// Why FEATHERWEIGHT_ISA was not followed; empty when it was.
const char *isa_message();

}  // namespace fw
