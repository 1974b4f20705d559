// Thirty-two 16-bit words in one AVX-512 register (F + BW), or in the emulated one.
#pragma once
#include <stdint.h>

#if defined(FEATHERWEIGHT_EMULATE)
#include "avx512_emulated.h"
#include "half.h"
#else
#include <immintrin.h>
#define FW512(name) _mm512_##name
typedef __m512i fw_m512i;
#endif

namespace fw {
namespace {

struct Words {
    static constexpr int lanes = 32;
    fw_m512i v;

    static Words load(const uint16_t *p) { return {FW512(loadu_si512)(p)}; }
    void store(uint16_t *p) const { FW512(storeu_si512)(p, v); }
    static Words all(uint16_t value) { return {FW512(set1_epi16)(static_cast<int16_t>(value))}; }

    // Each of the first lanes >> K words at p, 2^K times.
    template <int K>
    static Words expand(const uint16_t *p) {
        alignas(64) static constexpr Pattern<K> pattern{};
        const fw_m512i which = FW512(load_si512)(pattern.word);
        if constexpr (K == 1) {
            // The words cross 128-bit lanes, so a full permutation of one 256-bit load.
            return {FW512(permutexvar_epi16)(which, FW512(broadcast_i64x4)(load256(p)))};
        } else if constexpr (K == 2) {
            return {FW512(shuffle_epi8)(FW512(broadcast_i32x4)(load128(p)), which)};
        } else if constexpr (K == 3) {
            int64_t words;
            __builtin_memcpy(&words, p, 8);
            return {FW512(shuffle_epi8)(FW512(set1_epi64)(words), which)};
        } else {
            int32_t words;
            __builtin_memcpy(&words, p, 4);
            return {FW512(shuffle_epi8)(FW512(set1_epi32)(words), which)};
        }
    }
    // (d * d + 2^14) >> 15 of d = saturated x - f; d = -32768 gives 32768, right as an unsigned word.
    static Words error(Words x, const int16_t *f) {
        const fw_m512i d = FW512(subs_epi16)(x.v, FW512(loadu_si512)(f));
        return {FW512(mulhrs_epi16)(d, d)};
    }
    Words plus(Words other) const { return {FW512(adds_epu16)(v, other.v)}; }
    Words minus(Words other) const { return {FW512(sub_epi16)(v, other.v)}; }
    Words lower(Words other) const { return {FW512(min_epu16)(v, other.v)}; }
    uint16_t lowest() const { return lowest_word(v); }

private:
    // Word indices for K = 1; for K >= 2 pairs of byte indices inside each 128-bit lane of the repeated words.
    template <int K>
    struct Pattern {
        uint16_t word[lanes];
        constexpr Pattern() : word{} {
            for (int i = 0; i < lanes; ++i) {
                const int from = i >> K;
                word[i] = static_cast<uint16_t>(K == 1 ? from : (2 * from) | ((2 * from + 1) << 8));
            }
        }
    };
#if defined(FEATHERWEIGHT_EMULATE)
    static fw_m256i load256(const uint16_t *p) { return fw_emulated_load256(p); }
    static fw_m128i load128(const uint16_t *p) { return fw_emulated_load128(p); }
    static uint16_t lowest_word(const fw_m512i &a) { return fw_emulated_lowest(a); }
#else
    static __m256i load256(const uint16_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static __m128i load128(const uint16_t *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static uint16_t lowest_word(__m512i a) {
        const __m256i half = _mm256_min_epu16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
        const __m128i quarter = _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(quarter)));
    }
#endif
};

}  // namespace
}  // namespace fw
