// The kernels of AVX-512 (F, BW, DQ, VL, VNNI, VBMI) and GFNI, or of their emulation.
#include "../kernels.h"
#include "simd.h"
#include "int_dot.inc"
#include "trellis_dot.inc"
#include "../shared/table.inc"

namespace fw {

const Kernels *kernels_avx512() {
    static constexpr Kernels table = kernel_table("avx512");
    return &table;
}

}  // namespace fw
