#include "kernels.h"
#include "simd_avx512.h"
// The simd header chooses the vector; everything below is the same source for every instruction set.
#include "decode.inc"
#include "hadamard.inc"
#include "viterbi.inc"

namespace fw {

const Kernels *kernels_avx512() {
    static const Kernels table = {"avx512", viterbi, trellis_decode, trellis_tile, int_row, hadamard};
    return &table;
}

}  // namespace fw
