#include "kernels.h"
#include "simd_avx512.h"
#include "bytes_avx512.h"
// The headers above choose the vectors; what follows is the same source for every instruction set, but for the walk
// through trellis codes, which each does in its own way.
#include "decode.inc"
#include "hadamard.inc"
#include "int_dots.inc"
#include "numbers.inc"
#include "trellis_dots.inc"
#include "trellis_dots_avx512.inc"
#include "trellis_dispatch.inc"
#include "viterbi.inc"

namespace fw {

const Kernels *kernels_avx512() {
    static const Kernels table = {
        "avx512",   viterbi, trellis_decode, trellis_tile, int_row, hadamard, flip, int_dots,      trellis_dots, float_dots,
        widen,      round_to_codes, norm,  gather,       add,     gated,    softcap,      rope,
        remember,   attend};
    return &table;
}

}  // namespace fw
