// Eight 16-bit words in the compiler's portable vectors: SSE2 on any x86-64, NEON on AArch64, scalars elsewhere.
#pragma once
#include <stdint.h>
#include <string.h>

namespace fw {
namespace {

struct Words {
    static constexpr int lanes = 8;
    typedef uint16_t Vector __attribute__((vector_size(16)));
    typedef int16_t Signed __attribute__((vector_size(16)));
    Vector v;

    static Words load(const uint16_t *p) {
        Words r;
        memcpy(&r.v, p, sizeof r.v);
        return r;
    }
    void store(uint16_t *p) const { memcpy(p, &v, sizeof v); }
    static Words all(uint16_t value) { return {Vector{} + value}; }

    // Each of the first lanes >> K words at p (one when K > 3), 2^K times.
    template <int K>
    static Words expand(const uint16_t *p) {
        if constexpr (K == 1) {
            return {Vector{p[0], p[0], p[1], p[1], p[2], p[2], p[3], p[3]}};
        } else if constexpr (K == 2) {
            constexpr uint64_t repeat = 0x0001000100010001;
            typedef uint64_t Quads __attribute__((vector_size(16)));
            return {reinterpret_cast<Vector>(Quads{p[0] * repeat, p[1] * repeat})};
        } else {
            return all(*p);
        }
    }
    // (d * d + 2^14) >> 15 of d = saturated x - f, from 16-bit products of the two bytes of |d| = 256 h + l:
    // 2 h^2 + (2 h l + l^2 / 256 + 64) / 128, in which no term leaves 16 bits.
    static Words error(Words x, const int16_t *f) {
        Signed table;
        memcpy(&table, f, sizeof table);
        const Vector below = reinterpret_cast<Vector>(reinterpret_cast<Signed>(x.v) < table);
        const Vector distance = ((x.v - reinterpret_cast<Vector>(table)) ^ below) - below;
        const Vector d = smaller(distance, 32767 - below);
        const Vector h = d >> 8;
        const Vector l = d & 255;
        return {2 * h * h + ((2 * h * l + (l * l >> 8) + 64) >> 7)};
    }
    Words plus(Words other) const {
        const Vector sum = v + other.v;
        return {sum | reinterpret_cast<Vector>(sum < v)};
    }
    Words minus(Words other) const { return {v - other.v}; }
    Words lower(Words other) const { return {smaller(v, other.v)}; }
    uint16_t lowest() const {
        uint16_t r = v[0];
        for (int i = 1; i < lanes; ++i) r = v[i] < r ? v[i] : r;
        return r;
    }

private:
    static Vector smaller(Vector a, Vector b) {
        const Vector less = reinterpret_cast<Vector>(a < b);
        return (a & less) | (b & ~less);
    }
};

}  // namespace
}  // namespace fw
