// Which kernels run on this machine: decided feature by feature, so that no illegal instruction is
// ever executed.
#pragma once
#include "kernels/kernels.h"

namespace fw {

// Null when `isa` is unknown or this processor lacks a feature that it needs.
const Kernels *kernels_named(const char *isa);
// The kernels of `isa`, or of the default when it is null; null when it cannot run here.
const Kernels *kernels_for(const char *isa);
// Why FEATHERWEIGHT_ISA was not followed; empty when it was.
const char *isa_message();

}  // namespace fw
