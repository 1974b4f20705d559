// The registers of any processor, in the compiler's portable vectors of 16 bytes (SSE2 on x86-64,
// NEON on AArch64, scalar code elsewhere): eight 16-bit words, 16 byte lanes, four accumulators,
// four floats.
#pragma once
#include <stdint.h>
#include <string.h>

#include "../shared/fp16.h"

namespace fw {
namespace {

// Eight unsigned 16-bit words: the costs of the Viterbi search.
struct Words {
    static constexpr int lanes = 8;
    typedef uint16_t Vector __attribute__((vector_size(16)));
    typedef int16_t Signed __attribute__((vector_size(16)));
    Vector v;

    static Words load(const uint16_t *p) {
        Words words;
        memcpy(&words.v, p, sizeof words.v);
        return words;
    }
    void store(uint16_t *p) const { memcpy(p, &v, sizeof v); }
    static Words broadcast(uint16_t value) { return {Vector{} + value}; }

    // The first lanes >> K words at p (one when K > 3), each repeated 2^K times.
    template <int K>
    static Words load_repeated(const uint16_t *p) {
        if constexpr (K == 1) {
            return {Vector{p[0], p[0], p[1], p[1], p[2], p[2], p[3], p[3]}};
        } else if constexpr (K == 2) {
            constexpr uint64_t repeat = 0x0001000100010001;
            typedef uint64_t Quads __attribute__((vector_size(16)));
            return {reinterpret_cast<Vector>(Quads{p[0] * repeat, p[1] * repeat})};
        } else {
            return broadcast(*p);
        }
    }
    // (d * d + 2^14) >> 15 with d = sample - value, saturated, from 16-bit products of the two
    // bytes of |d| = 256 h + l: 2 h^2 + (2 h l + l^2 / 256 + 64) / 128, in which every term fits 16
    // bits.
    static Words squared_error(Words sample, const int16_t *values) {
        Signed table;
        memcpy(&table, values, sizeof table);
        const Vector negative =
            reinterpret_cast<Vector>(reinterpret_cast<Signed>(sample.v) < table);
        const Vector distance =
            ((sample.v - reinterpret_cast<Vector>(table)) ^ negative) - negative;
        const Vector d = minimum_of(distance, 32767 - negative);
        const Vector h = d >> 8;
        const Vector l = d & 255;
        return {2 * h * h + ((2 * h * l + (l * l >> 8) + 64) >> 7)};
    }
    Words add_saturated(Words other) const {
        const Vector sum = v + other.v;
        return {sum | reinterpret_cast<Vector>(sum < v)};
    }
    Words subtract(Words other) const { return {v - other.v}; }
    Words minimum(Words other) const { return {minimum_of(v, other.v)}; }
    uint16_t minimum_lane() const {
        uint16_t lowest = v[0];
        for (int i = 1; i < lanes; ++i) lowest = v[i] < lowest ? v[i] : lowest;
        return lowest;
    }

private:
    static Vector minimum_of(Vector a, Vector b) {
        const Vector less = reinterpret_cast<Vector>(a < b);
        return (a & less) | (b & ~less);
    }
};

// A quarter of a line of codes: 16 byte lanes.
struct Bytes {
    static constexpr int width = 16;
    typedef uint8_t Vector __attribute__((vector_size(16)));
    Vector v;

    static Bytes load(const uint8_t *p) {
        Bytes bytes;
        memcpy(&bytes.v, p, sizeof bytes.v);
        return bytes;
    }
    // Field `index` of the fields of `Width` bits in every byte.
    template <int Width>
    Bytes field(int index) const {
        if constexpr (Width == 8) return *this;
        return {(v >> static_cast<uint8_t>(index * Width)) &
                static_cast<uint8_t>((1 << Width) - 1)};
    }
    // low | this << Shift, for fields that stay inside their bytes.
    template <int Shift>
    Bytes shift_onto(Bytes low) const {
        return {low.v | (v << static_cast<uint8_t>(Shift))};
    }
};

// As many floats as a register holds.
typedef float Floats __attribute__((vector_size(16)));
inline Floats load_fp16(const uint16_t *p) {
    float four[4];
    for (int i = 0; i < 4; ++i) four[i] = fp16_to_float(load_unaligned(p + i));
    return Floats{four[0], four[1], four[2], four[3]};
}

// 32-bit sums of products of bytes.
struct Accumulators {
    static constexpr int lanes = 4;
    typedef int32_t Vector __attribute__((vector_size(16)));
    Vector v;

    static Accumulators broadcast(int32_t value) { return {Vector{} + value}; }
    static Accumulators load(const int32_t *p) {
        Accumulators accumulators;
        memcpy(&accumulators.v, p, sizeof accumulators.v);
        return accumulators;
    }
    void store(int32_t *p) const { memcpy(p, &v, sizeof v); }
    Accumulators add(Accumulators other) const { return {v + other.v}; }
    Floats to_floats() const { return __builtin_convertvector(v, Floats); }
};

// The lowest byte of each of sixteen 32-bit words.
inline void narrow_to_bytes(const int32_t *words, int8_t *out) {
    for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(words[i]);
}

// Sixteen numbers from fp16 to float32, and from float32 to the nearest fp16.
inline void widen_sixteen(const uint16_t *from, float *out) {
    for (int i = 0; i < 16; ++i) out[i] = fp16_to_float(load_unaligned(from + i));
}
inline void narrow_sixteen(const float *from, uint16_t *out) {
    for (int i = 0; i < 16; ++i) out[i] = float_to_fp16(from[i]);
}

}  // namespace
}  // namespace fw
