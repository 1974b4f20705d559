// fp16 <-> fp32 without instructions for it: exact one way, round to nearest even the other, as the instructions do.
#pragma once
#include <stdint.h>
#include <string.h>

namespace fw {
namespace {

inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
    float value;
    if ((half & 0x7c00) == 0x7c00) {
        bits |= 0x7f800000u | (half & 0x3ff ? 0x400000u : 0u);
        memcpy(&value, &bits, 4);
    } else {
        // Read with an exponent 112 too small, which also makes subnormal numbers of the right size once multiplied.
        memcpy(&value, &bits, 4);
        value *= 5.192296858534828e33f;  // 2^112
    }
    memcpy(&bits, &value, 4);
    bits |= sign;
    memcpy(&value, &bits, 4);
    return value;
}

// Files may begin anywhere, so what lies in them is copied, not read through a pointer that promises alignment.
inline uint16_t load_half(const uint16_t *p) {
    uint16_t half;
    memcpy(&half, p, 2);
    return half;
}

inline uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | ((bits >> 13) & 0x3ff));
    if (bits >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 2^16 or more
    if (bits < 0x38800000) {                                             // below 2^-14: adding 1/2 aligns the last bit
        memcpy(&value, &bits, 4);
        value += 0.5f;
        memcpy(&bits, &value, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    const uint32_t odd = (bits >> 13) & 1;
    return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfff + odd) >> 13));
}

}  // namespace
}  // namespace fw
