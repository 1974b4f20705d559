#include "kernels.h"
#include "simd_avx2.h"
// The simd header chooses the vector; everything below is the same source for every instruction set.
#include "decode.inc"
#include "hadamard.inc"
#include "viterbi.inc"

namespace fw {

const Kernels *kernels_avx2() {
    static const Kernels table = {"avx2", viterbi, trellis_decode, trellis_tile, int_row, hadamard};
    return &table;
}

}  // namespace fw
