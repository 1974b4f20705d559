// The kernels of any processor.
#include "../kernels.h"
#include "simd.h"
#include "int_dot.inc"
#include "trellis_dot.inc"
#include "../shared/table.inc"

namespace fw {

const Kernels *kernels_scalar() {
    static constexpr Kernels table = kernel_table("scalar");
    return &table;
}

}  // namespace fw
