// The AVX-512 operations that simd_avx512.h uses, as loops over bytes and words, so that any processor can run and test
// the AVX-512 kernels (-DFEATHERWEIGHT_EMULATE). Each follows the vendor's pseudo-code; tests/ops/test_emulation.py
// holds them against independent vectors and, on a processor that has them, against the instructions themselves.
#pragma once
#include <stdint.h>
#include <string.h>

#define FW512(name) fw_emulated_##name

namespace fw {
namespace {

struct fw_m128i {
    uint8_t byte[16];
};
struct fw_m256i {
    uint8_t byte[32];
};
struct fw_m512i {
    uint8_t byte[64];

    uint16_t word(int i) const { return static_cast<uint16_t>(byte[2 * i] | byte[2 * i + 1] << 8); }
    int16_t number(int i) const { return static_cast<int16_t>(word(i)); }
    void set(int i, uint32_t value) {
        byte[2 * i] = static_cast<uint8_t>(value);
        byte[2 * i + 1] = static_cast<uint8_t>(value >> 8);
    }
};

template <typename Wide>
inline Wide fw_emulated_load(const void *p) {
    Wide r;
    memcpy(r.byte, p, sizeof r.byte);
    return r;
}
inline fw_m128i fw_emulated_load128(const void *p) { return fw_emulated_load<fw_m128i>(p); }
inline fw_m256i fw_emulated_load256(const void *p) { return fw_emulated_load<fw_m256i>(p); }
inline fw_m512i fw_emulated_loadu_si512(const void *p) { return fw_emulated_load<fw_m512i>(p); }
inline fw_m512i fw_emulated_load_si512(const void *p) { return fw_emulated_load<fw_m512i>(p); }
inline void fw_emulated_storeu_si512(void *p, const fw_m512i &a) { memcpy(p, a.byte, 64); }

// `part` over and over.
template <typename Part>
inline fw_m512i fw_emulated_repeat(const Part &part) {
    fw_m512i r;
    for (size_t i = 0; i < 64; i += sizeof part) memcpy(r.byte + i, &part, sizeof part);
    return r;
}
inline fw_m512i fw_emulated_set1_epi16(int16_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_set1_epi32(int32_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_set1_epi64(int64_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_broadcast_i32x4(const fw_m128i &a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_broadcast_i64x4(const fw_m256i &a) { return fw_emulated_repeat(a); }

// Words anywhere: the low five bits of each index.
inline fw_m512i fw_emulated_permutexvar_epi16(const fw_m512i &index, const fw_m512i &a) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, a.word(index.word(i) & 31));
    return r;
}
// Bytes inside each 128-bit lane: the low four bits of each index, zero where its top bit is set.
inline fw_m512i fw_emulated_shuffle_epi8(const fw_m512i &a, const fw_m512i &index) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i)
        r.byte[i] = index.byte[i] & 0x80 ? 0 : a.byte[(i & ~15) | (index.byte[i] & 15)];
    return r;
}
inline fw_m512i fw_emulated_subs_epi16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) {
        const int32_t d = a.number(i) - b.number(i);
        r.set(i, static_cast<uint32_t>(d < -32768 ? -32768 : d > 32767 ? 32767 : d));
    }
    return r;
}
// ((a * b >> 14) + 1) >> 1, the low 16 bits.
inline fw_m512i fw_emulated_mulhrs_epi16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, static_cast<uint32_t>(((a.number(i) * b.number(i) >> 14) + 1) >> 1));
    return r;
}
inline fw_m512i fw_emulated_adds_epu16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) {
        const uint32_t sum = static_cast<uint32_t>(a.word(i)) + b.word(i);
        r.set(i, sum > 65535 ? 65535 : sum);
    }
    return r;
}
inline fw_m512i fw_emulated_sub_epi16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, static_cast<uint32_t>(a.word(i)) - b.word(i));
    return r;
}
inline fw_m512i fw_emulated_min_epu16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, a.word(i) < b.word(i) ? a.word(i) : b.word(i));
    return r;
}
inline uint16_t fw_emulated_lowest(const fw_m512i &a) {
    uint16_t r = a.word(0);
    for (int i = 1; i < 32; ++i) r = a.word(i) < r ? a.word(i) : r;
    return r;
}

}  // namespace
}  // namespace fw
