// Chooses the kernels for this machine. Every feature that a set of kernels needs is checked, so
// that no illegal instruction is executed.
#pragma once
#include "kernels/kernels.h"

namespace fw {

// The kernels of `isa`; null when it is unknown or this processor lacks a feature that it needs.
const Kernels *kernels_named(const char *isa);
// The kernels of `isa`, or of the default when it is null; null when it cannot run here.
const Kernels *kernels_for(const char *isa);
// The reason why the instruction set in FEATHERWEIGHT_ISA is not used; empty when it is used.
const char *isa_message();

}  // namespace fw
