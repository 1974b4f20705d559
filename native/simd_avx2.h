// Sixteen 16-bit words in one AVX2 register.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace fw {
namespace {

struct Words {
    static constexpr int lanes = 16;
    __m256i v;

    static Words load(const uint16_t *p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))}; }
    void store(uint16_t *p) const { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
    static Words all(uint16_t value) { return {_mm256_set1_epi16(static_cast<int16_t>(value))}; }

    // Each of the first lanes >> K words at p, 2^K times: a broadcasting load puts the words into both halves, which
    // costs no shuffle, and one in-lane shuffle repeats them.
    template <int K>
    static Words expand(const uint16_t *p) {
        if constexpr (K == 4) {
            return {_mm256_set1_epi16(static_cast<int16_t>(*p))};
        } else {
            const __m256i which = repeat<K>();
            if constexpr (K == 1) {
                const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
                return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(words), which)};
            } else if constexpr (K == 2) {
                int64_t words;
                __builtin_memcpy(&words, p, 8);
                return {_mm256_shuffle_epi8(_mm256_set1_epi64x(words), which)};
            } else {
                int32_t words;
                __builtin_memcpy(&words, p, 4);
                return {_mm256_shuffle_epi8(_mm256_set1_epi32(words), which)};
            }
        }
    }
    // (d * d + 2^14) >> 15 of d = saturated x - f; d = -32768 gives 32768, right as an unsigned word.
    static Words error(Words x, const int16_t *f) {
        const __m256i d = _mm256_subs_epi16(x.v, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(f)));
        return {_mm256_mulhrs_epi16(d, d)};
    }
    Words plus(Words other) const { return {_mm256_adds_epu16(v, other.v)}; }
    Words minus(Words other) const { return {_mm256_sub_epi16(v, other.v)}; }
    Words lower(Words other) const { return {_mm256_min_epu16(v, other.v)}; }
    uint16_t lowest() const {
        const __m128i half = _mm_min_epu16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(half)));
    }

private:
    template <int K>
    static __m256i repeat() {
        constexpr int half = 8 >> K;  // words that the upper half starts at
        return _mm256_setr_epi16(word(0 >> K), word(1 >> K), word(2 >> K), word(3 >> K), word(4 >> K), word(5 >> K),
                                 word(6 >> K), word(7 >> K), word(half + (0 >> K)), word(half + (1 >> K)),
                                 word(half + (2 >> K)), word(half + (3 >> K)), word(half + (4 >> K)),
                                 word(half + (5 >> K)), word(half + (6 >> K)), word(half + (7 >> K)));
    }
    // The two byte indices of word i, as one 16-bit number.
    static constexpr int16_t word(int i) { return static_cast<int16_t>((2 * i) | ((2 * i + 1) << 8)); }
};

}  // namespace
}  // namespace fw
