#include "rotation.h"

#include <algorithm>

namespace fw {
namespace {

// An equal block of this or of an earlier rotation, whose padded kernels can be used again; null
// when there is none. Most rotations of a model have the same blocks.
const Rotation::Block *find_block(const fw_rotation_block &b, const Rotation &rotation,
                                  const Rotations &rotations) {
    const auto find_in = [&](const Rotation &r) -> const Rotation::Block * {
        for (const Rotation::Block &block : r.blocks)
            if (block.source == b.kernel && block.source_transposed == b.kernel_transposed &&
                block.power == b.power && block.order == b.order)
                return &block;
        return nullptr;
    };
    if (const Rotation::Block *block = find_in(rotation)) return block;
    for (const auto &earlier_rotation : rotations)
        if (const Rotation::Block *block = find_in(*earlier_rotation)) return block;
    return nullptr;
}

// Checks the blocks of `source` and counts the floats of their kernels.
int32_t check_blocks(const fw_rotation &source, int64_t length, const Rotation &rotation,
                     const Rotations &rotations, int64_t &num_floats) {
    int64_t sum = 0;
    num_floats = 0;
    for (int64_t i = 0; i < source.num_blocks; ++i) {
        const fw_rotation_block &b = source.blocks[i];
        if (b.power < 0 || b.power > 30 || b.order < 1 || b.order > 4096) return FW_BAD_ARGUMENT;
        if ((b.order == 1) != (b.kernel == nullptr) ||
            (b.order == 1) != (b.kernel_transposed == nullptr))
            return FW_BAD_ARGUMENT;
        sum += int64_t{b.order} << b.power;
        if (sum > length) return FW_BAD_ARGUMENT;
        if (b.kernel && !find_block(b, rotation, rotations))
            num_floats += 2 * b.order * round_up(b.order, 16);
    }
    return sum == length ? FW_OK : FW_BAD_ARGUMENT;
}

// Copies a kernel to padded rows and scales it so that its block is orthonormal.
void copy_kernel(const float *kernel, const Rotation::Block &block, float *out) {
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(int64_t{1} << block.power));
    for (int64_t row = 0; row < block.order; ++row)
        for (int64_t i = 0; i < block.order; ++i)
            out[row * block.kernel_stride + i] = kernel[row * block.order + i] * scale;
}

void rotate_blocks(const Kernels &k, const std::vector<Rotation::Block> &blocks, bool inverse,
                   float *x, float *scratch) {
    for (const Rotation::Block &block : blocks) {
        k.hadamard(x, block.power, block.order, inverse ? block.inverse : block.forward,
                   block.kernel_stride, scratch);
        const int64_t n = block.order << block.power;
        // Kernels include the scale; blocks without a kernel are scaled here.
        if (block.order == 1 && n > 1) {
            const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(n));
            for (int64_t i = 0; i < n; ++i) x[i] *= scale;
        }
        x += n;
    }
}

}  // namespace

int32_t build_rotation(const fw_rotation *source, int64_t length, Rotations &rotations,
                       const Rotation *&out) {
    if (!source) return FW_OK;
    if (source->length != length || !source->signs || source->num_blocks < 1 ||
        source->num_blocks > length || !source->blocks)
        return FW_BAD_ARGUMENT;
    for (const auto &earlier_rotation : rotations)
        if (earlier_rotation->source == source) {
            out = earlier_rotation.get();
            return FW_OK;
        }
    auto rotation = std::make_unique<Rotation>();
    rotation->source = source;
    rotation->length = length;
    rotation->signs = source->signs;
    int64_t num_floats = 0;
    if (int32_t status = check_blocks(*source, length, *rotation, rotations, num_floats))
        return status;
    rotation->kernels = Array<float>(num_floats);
    float *next_kernel = rotation->kernels.get();
    for (int64_t i = 0; i < source->num_blocks; ++i) {
        const fw_rotation_block &b = source->blocks[i];
        Rotation::Block block = {b.power, b.order,  round_up(b.order, 16), nullptr,
                                 nullptr, b.kernel, b.kernel_transposed};
        const Rotation::Block *earlier_block =
            b.kernel ? find_block(b, *rotation, rotations) : nullptr;
        if (earlier_block) {
            block.forward = earlier_block->forward;
            block.inverse = earlier_block->inverse;
        } else if (b.kernel) {
            const int64_t kernel_floats = b.order * block.kernel_stride;
            copy_kernel(b.kernel, block, next_kernel);
            copy_kernel(b.kernel_transposed, block, next_kernel + kernel_floats);
            block.forward = next_kernel;
            block.inverse = next_kernel + kernel_floats;
            next_kernel += 2 * kernel_floats;
        }
        rotation->blocks.push_back(block);
    }
    out = rotation.get();
    rotations.push_back(std::move(rotation));
    return FW_OK;
}

int64_t Rotation::scratch_floats() const {
    int64_t largest = 16;
    for (const Block &block : blocks)
        largest = std::max(largest, (block.order << block.power) + block.kernel_stride);
    return largest;
}

void Rotation::apply(const Kernels &k, const float *x, float *out, float *scratch) const {
    k.flip_signs(x, signs, length, out);
    rotate_blocks(k, blocks, false, out, scratch);
}

void Rotation::apply_inverse(const Kernels &k, float *x, float *scratch) const {
    rotate_blocks(k, blocks, true, x, scratch);
    k.flip_signs(x, signs, length, x);
}

}  // namespace fw
