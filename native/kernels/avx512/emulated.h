// The AVX-512 operations that the kernels use, as loops over bytes and words, so that any processor
// can run and test the AVX-512 kernels (-DFEATHERWEIGHT_EMULATE).
//
// Each operation follows the vendor's pseudo-code. tests/ops/test_emulation.py compares them with
// independent vectors and, on a processor that has the instructions, with the instructions
// themselves.
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
    int16_t signed_word(int i) const { return static_cast<int16_t>(word(i)); }
    void set(int i, uint32_t value) {
        byte[2 * i] = static_cast<uint8_t>(value);
        byte[2 * i + 1] = static_cast<uint8_t>(value >> 8);
    }
};

template <typename Register>
inline Register fw_emulated_load(const void *p) {
    Register r;
    memcpy(r.byte, p, sizeof r.byte);
    return r;
}
inline fw_m128i fw_emulated_load128(const void *p) { return fw_emulated_load<fw_m128i>(p); }
inline fw_m256i fw_emulated_load256(const void *p) { return fw_emulated_load<fw_m256i>(p); }
inline fw_m512i fw_emulated_loadu_si512(const void *p) { return fw_emulated_load<fw_m512i>(p); }
inline fw_m512i fw_emulated_load_si512(const void *p) { return fw_emulated_load<fw_m512i>(p); }
inline void fw_emulated_storeu_si512(void *p, const fw_m512i &a) { memcpy(p, a.byte, 64); }

// A register filled with copies of `element`.
template <typename Element>
inline fw_m512i fw_emulated_repeat(const Element &element) {
    fw_m512i r;
    for (size_t i = 0; i < 64; i += sizeof element) memcpy(r.byte + i, &element, sizeof element);
    return r;
}
inline fw_m512i fw_emulated_set1_epi16(int16_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_set1_epi32(int32_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_set1_epi64(int64_t a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_broadcast_i32x4(const fw_m128i &a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_broadcast_i64x4(const fw_m256i &a) { return fw_emulated_repeat(a); }

// Permutes the words of the whole register by the low five bits of each index.
inline fw_m512i fw_emulated_permutexvar_epi16(const fw_m512i &index, const fw_m512i &a) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, a.word(index.word(i) & 31));
    return r;
}
// Permutes the bytes inside each 128-bit lane by the low four bits of each index; zero where the
// top bit of the index is set.
inline fw_m512i fw_emulated_shuffle_epi8(const fw_m512i &a, const fw_m512i &index) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i)
        r.byte[i] = index.byte[i] & 0x80 ? 0 : a.byte[(i & ~15) | (index.byte[i] & 15)];
    return r;
}
inline fw_m512i fw_emulated_subs_epi16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) {
        const int32_t d = a.signed_word(i) - b.signed_word(i);
        r.set(i, static_cast<uint32_t>(d < -32768 ? -32768 : d > 32767 ? 32767 : d));
    }
    return r;
}
// The low 16 bits of ((a * b >> 14) + 1) >> 1.
inline fw_m512i fw_emulated_mulhrs_epi16(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) {
        const int32_t product = a.signed_word(i) * b.signed_word(i);
        r.set(i, static_cast<uint32_t>(((product >> 14) + 1) >> 1));
    }
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
// The smallest of all words.
inline uint16_t fw_emulated_minimum_epu16(const fw_m512i &a) {
    uint16_t r = a.word(0);
    for (int i = 1; i < 32; ++i) r = a.word(i) < r ? a.word(i) : r;
    return r;
}

typedef uint64_t fw_mask64;

inline fw_m512i fw_emulated_set1_epi8(char a) { return fw_emulated_repeat(a); }
inline fw_m512i fw_emulated_maskz_loadu_epi8(fw_mask64 mask, const void *p) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = mask >> i & 1 ? static_cast<const uint8_t *>(p)[i] : 0;
    return r;
}
inline fw_m512i fw_emulated_and_si512(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] & b.byte[i];
    return r;
}
inline fw_m512i fw_emulated_or_si512(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] | b.byte[i];
    return r;
}
inline fw_m512i fw_emulated_xor_si512(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] ^ b.byte[i];
    return r;
}
inline fw_m512i fw_emulated_srli_epi16(const fw_m512i &a, int count) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, static_cast<uint32_t>(a.word(i)) >> count);
    return r;
}
inline fw_m512i fw_emulated_slli_epi16(const fw_m512i &a, int count) {
    fw_m512i r;
    for (int i = 0; i < 32; ++i) r.set(i, static_cast<uint32_t>(a.word(i)) << count);
    return r;
}
inline fw_m512i fw_emulated_add_epi32(const fw_m512i &a, const fw_m512i &b) {
    uint32_t x[16], y[16];
    memcpy(x, a.byte, 64);
    memcpy(y, b.byte, 64);
    for (int i = 0; i < 16; ++i) x[i] += y[i];
    return fw_emulated_load<fw_m512i>(x);
}
// Adds to each 32-bit word the products of four unsigned bytes of a and four signed bytes of b.
inline fw_m512i fw_emulated_dpbusd_epi32(const fw_m512i &sum, const fw_m512i &a,
                                         const fw_m512i &b) {
    uint32_t word[16];
    memcpy(word, sum.byte, 64);
    for (int i = 0; i < 64; ++i)
        word[i / 4] +=
            static_cast<uint32_t>(static_cast<int32_t>(a.byte[i]) * static_cast<int8_t>(b.byte[i]));
    return fw_emulated_load<fw_m512i>(word);
}
// Bit i of each byte is the parity of the byte and row 7 - i of the matrix in its 64-bit word.
inline fw_m512i fw_emulated_gf2p8affine_epi64_epi8(const fw_m512i &x, const fw_m512i &matrix,
                                                   int constant) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) {
        int byte = constant;
        for (int bit = 0; bit < 8; ++bit)
            byte ^= __builtin_parity(matrix.byte[i / 8 * 8 + 7 - bit] & x.byte[i]) << bit;
        r.byte[i] = static_cast<uint8_t>(byte);
    }
    return r;
}
// Each bit of the result is looked up in a table of eight bits; the index is formed by the bits of
// the three operands at this position.
inline fw_m512i fw_emulated_ternarylogic_epi64(const fw_m512i &a, const fw_m512i &b,
                                               const fw_m512i &c, int table) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) {
        int byte = 0;
        for (int bit = 0; bit < 8; ++bit) {
            const int index =
                (a.byte[i] >> bit & 1) << 2 | (b.byte[i] >> bit & 1) << 1 | (c.byte[i] >> bit & 1);
            byte |= (table >> index & 1) << bit;
        }
        r.byte[i] = static_cast<uint8_t>(byte);
    }
    return r;
}
// Looks up bytes in two registers: the low six bits of an index choose the byte, the next bit
// chooses the register.
inline fw_m512i fw_emulated_permutex2var_epi8(const fw_m512i &a, const fw_m512i &index,
                                              const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = (index.byte[i] & 64 ? b : a).byte[index.byte[i] & 63];
    return r;
}
inline fw_mask64 fw_emulated_movepi8_mask(const fw_m512i &a) {
    fw_mask64 mask = 0;
    for (int i = 0; i < 64; ++i) mask |= static_cast<uint64_t>(a.byte[i] >> 7) << i;
    return mask;
}
inline fw_m512i fw_emulated_max_epu8(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] > b.byte[i] ? a.byte[i] : b.byte[i];
    return r;
}
inline fw_m512i fw_emulated_min_epu8(const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] < b.byte[i] ? a.byte[i] : b.byte[i];
    return r;
}
inline fw_m512i fw_emulated_mask_blend_epi8(fw_mask64 mask, const fw_m512i &a, const fw_m512i &b) {
    fw_m512i r;
    for (int i = 0; i < 64; ++i) r.byte[i] = (mask >> i & 1 ? b : a).byte[i];
    return r;
}

}  // namespace
}  // namespace fw
