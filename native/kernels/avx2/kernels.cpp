// The kernels of AVX2 and F16C.
#include "../kernels.h"
#include "simd.h"
#include "int_dot.inc"
#include "trellis_dot.inc"
#include "../shared/table.inc"

namespace fw {

const Kernels *kernels_avx2() {
    static constexpr Kernels table = kernel_table("avx2");
    return &table;
}

}  // namespace fw
