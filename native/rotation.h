// Rotations of activations: signs, then a block-diagonal matrix with blocks H_{2^power} (x) kernel.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "array.h"
#include "featherweight.h"
#include "kernels/kernels.h"

namespace fw {

struct Rotation {
    struct Block {
        int32_t power;
        int64_t order, kernel_stride;
        // Scaled and padded kernels [order, kernel_stride]; null for order 1.
        const float *forward, *inverse;
        // The kernels of the caller, from which `forward` and `inverse` were copied.
        const float *source, *source_transposed;
    };
    const fw_rotation *source = nullptr;
    int64_t length = 0;
    const uint8_t *signs = nullptr;
    std::vector<Block> blocks;
    Array<float> kernels;  // the copies that no earlier rotation of the model has

    // out = the rotation of x. x: [length]; out: [length, padded]; scratch: [scratch_floats()].
    void apply(const Kernels &k, const float *x, float *out, float *scratch) const;
    // The inverse, in place.
    void apply_inverse(const Kernels &k, float *x, float *scratch) const;
    int64_t scratch_floats() const;
};

using Rotations = std::vector<std::unique_ptr<Rotation>>;

// Finds the rotation of `source` among `rotations`, or checks, builds and adds it. If `source` is
// null, `out` is not changed. Returns FW_BAD_ARGUMENT when a size contradicts `length`.
int32_t build_rotation(const fw_rotation *source, int64_t length, Rotations &rotations,
                       const Rotation *&out);

}  // namespace fw
