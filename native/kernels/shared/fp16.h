// Conversion between fp16 and float32 without special instructions. To float32 it is exact; to fp16
// it rounds to nearest even, like the instructions.
#pragma once
#include <stdint.h>
#include <string.h>

namespace fw {
namespace {

inline float fp16_to_float(uint16_t fp16) {
    const uint32_t sign = static_cast<uint32_t>(fp16 & 0x8000) << 16;
    uint32_t bits = static_cast<uint32_t>(fp16 & 0x7fff) << 13;
    float value;
    if ((fp16 & 0x7c00) == 0x7c00) {
        bits |= 0x7f800000u | (fp16 & 0x3ff ? 0x400000u : 0u);
        memcpy(&value, &bits, 4);
    } else {
        // These bits are a float32 whose exponent is 112 too small. Multiplying by 2^112 corrects
        // it, for subnormal numbers too.
        memcpy(&value, &bits, 4);
        value *= 5.192296858534828e33f;  // 2^112
    }
    memcpy(&bits, &value, 4);
    bits |= sign;
    memcpy(&value, &bits, 4);
    return value;
}

// Arrays in files may begin at any address, so their words are copied and not read through a
// pointer, for which the compiler would assume alignment.
inline uint16_t load_unaligned(const uint16_t *p) {
    uint16_t word;
    memcpy(&word, p, 2);
    return word;
}

inline uint16_t float_to_fp16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)  // not a number
        return static_cast<uint16_t>(sign | 0x7e00 | ((bits >> 13) & 0x3ff));
    if (bits >= 0x477ff000)  // rounds to 2^16 or more: infinity
        return static_cast<uint16_t>(sign | 0x7c00);
    if (bits < 0x38800000) {
        // Below 2^-14 the result is subnormal: adding 1/2 aligns its last bit with that of a
        // float32.
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
