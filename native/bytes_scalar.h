// Sixteen byte lanes in plain C, for any processor; the compiler makes of it what it can.
#pragma once
#include <stdint.h>
#include <string.h>

#include "half.h"

namespace fw {
namespace {

struct Bytes {
    static constexpr int width = 16;
    typedef uint8_t Vector __attribute__((vector_size(16)));
    Vector v;

    static Bytes load(const uint8_t *p) {
        Bytes r;
        memcpy(&r.v, p, sizeof r.v);
        return r;
    }
    template <int Width>
    Bytes field(int p) const {
        if constexpr (Width == 8) return *this;
        return {(v >> static_cast<uint8_t>(p * Width)) & static_cast<uint8_t>((1 << Width) - 1)};
    }
    template <int Shift>
    Bytes above(Bytes low) const {
        return {low.v | (v << static_cast<uint8_t>(Shift))};
    }
};

// As many floats as a register holds, for sums that each lane makes for itself.
typedef float Reals __attribute__((vector_size(16)));
inline Reals reals_of_halfs(const uint16_t *p) {
    float four[4];
    for (int i = 0; i < 4; ++i) four[i] = half_to_float(load_half(p + i));
    return Reals{four[0], four[1], four[2], four[3]};
}

struct Sums {
    static constexpr int lanes = 4;
    typedef int32_t Vector __attribute__((vector_size(16)));
    Vector v;

    static Sums all(int32_t value) { return {Vector{} + value}; }
    static Sums load(const int32_t *p) {
        Sums r;
        memcpy(&r.v, p, sizeof r.v);
        return r;
    }
    void store(int32_t *p) const { memcpy(p, &v, sizeof v); }
    Sums plus(Sums other) const { return {v + other.v}; }
    Reals reals() const { return __builtin_convertvector(v, Reals); }
};

template <int Bits>
FW_INLINE Sums chunk(Sums acc, const Bytes *u, const int8_t *x) {
    int32_t sums[4];
    acc.store(sums);
    for (int i = 0; i < 8; ++i) {
        uint8_t code[16];
        memcpy(code, &u[i].v, 16);
        for (int row = 0; row < 4; ++row)
            for (int b = 0; b < 4; ++b) sums[row] += code[4 * row + b] * x[4 * i + b];
    }
    return Sums::load(sums);
}

// The lowest byte of each of sixteen words.
inline void lowest_bytes(const int32_t *words, int8_t *out) {
    for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(words[i]);
}

inline void halfs(const uint16_t *p, float *out) {
    for (int i = 0; i < 16; ++i) out[i] = half_to_float(load_half(p + i));
}
inline void to_halfs(const float *p, uint16_t *out) {
    for (int i = 0; i < 16; ++i) out[i] = float_to_half(p[i]);
}

}  // namespace
}  // namespace fw
