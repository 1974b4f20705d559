#include "kernels.h"
#include "simd_scalar.h"
// The simd header chooses the vector; everything below is the same source for every instruction set.
#include "decode.inc"
#include "hadamard.inc"
#include "viterbi.inc"

namespace fw {

const Kernels *kernels_scalar() {
    static const Kernels table = {"scalar", viterbi, trellis_decode, trellis_tile, int_row, hadamard};
    return &table;
}

}  // namespace fw
