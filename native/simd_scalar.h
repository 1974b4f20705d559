// Eight 16-bit words as plain loops: the baseline every compiler and architecture understands.
#pragma once
#include <stdint.h>
#include <string.h>

namespace fw {
namespace {

struct Words {
    static constexpr int lanes = 8;
    uint16_t lane[lanes];

    static Words load(const uint16_t *p) {
        Words r;
        memcpy(r.lane, p, sizeof r.lane);
        return r;
    }
    void store(uint16_t *p) const { memcpy(p, lane, sizeof lane); }
    static Words all(uint16_t value) {
        Words r;
        for (int i = 0; i < lanes; ++i) r.lane[i] = value;
        return r;
    }
    // Each of the first lanes >> K words at p, 2^K times.
    template <int K>
    static Words expand(const uint16_t *p) {
        Words r;
        for (int i = 0; i < lanes; ++i) r.lane[i] = p[i >> K];
        return r;
    }
    // (d * d + 2^14) >> 15 of d = saturated x - f.
    static Words error(Words x, const int16_t *f) {
        Words r;
        for (int i = 0; i < lanes; ++i) {
            int32_t d = static_cast<int16_t>(x.lane[i]) - f[i];
            d = d < -32768 ? -32768 : d > 32767 ? 32767 : d;
            r.lane[i] = static_cast<uint16_t>((d * d + 0x4000) >> 15);
        }
        return r;
    }
    Words plus(Words other) const {
        Words r;
        for (int i = 0; i < lanes; ++i) {
            uint32_t sum = static_cast<uint32_t>(lane[i]) + other.lane[i];
            r.lane[i] = static_cast<uint16_t>(sum > 65535 ? 65535 : sum);
        }
        return r;
    }
    Words minus(Words other) const {
        Words r;
        for (int i = 0; i < lanes; ++i) r.lane[i] = static_cast<uint16_t>(lane[i] - other.lane[i]);
        return r;
    }
    Words lower(Words other) const {
        Words r;
        for (int i = 0; i < lanes; ++i) r.lane[i] = lane[i] < other.lane[i] ? lane[i] : other.lane[i];
        return r;
    }
    uint16_t lowest() const {
        uint16_t r = lane[0];
        for (int i = 1; i < lanes; ++i) r = lane[i] < r ? lane[i] : r;
        return r;
    }
};

}  // namespace
}  // namespace fw
