// Half a line, 32 byte lanes, in one AVX2 register.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace fw {
namespace {

struct Bytes {
    static constexpr int width = 32;
    __m256i v;

    static Bytes load(const uint8_t *p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))}; }
    template <int Width>
    Bytes field(int p) const {
        if constexpr (Width == 8) return *this;
        const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << Width) - 1));
        return {_mm256_and_si256(p ? _mm256_srli_epi16(v, p * Width) : v, mask)};
    }
    template <int Shift>
    Bytes above(Bytes low) const {
        return {_mm256_or_si256(low.v, _mm256_slli_epi16(v, Shift))};
    }
};

inline __m256i four_of(const int8_t *x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

// As many floats as a register holds, for sums that each lane makes for itself.
typedef float Reals __attribute__((vector_size(32)));
inline Reals reals_of_halfs(const uint16_t *p) {
    return (Reals)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

struct Sums {
    static constexpr int lanes = 8;
    __m256i v;

    static Sums all(int32_t value) { return {_mm256_set1_epi32(value)}; }
    static Sums load(const int32_t *p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))}; }
    void store(int32_t *p) const { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
    Sums plus(Sums other) const { return {_mm256_add_epi32(v, other.v)}; }
    Reals reals() const { return (Reals)_mm256_cvtepi32_ps(v); }
    Sums plus_pairs(__m256i words) const {
        Sums sum = {_mm256_add_epi32(v, _mm256_madd_epi16(words, _mm256_set1_epi16(1)))};
        asm("" : "+x"(sum.v));  // or compilers keep all terms of a long sum, in memory, for a tree
        return sum;
    }
};

// + codes of `Bits` bits of 32 columns . x. Products of two bytes are added in 16 bits, so only as many of them as
// cannot saturate; at 8 bits the signs move to x, because 255 * 127 * 2 would not fit.
template <int Bits>
FW_INLINE Sums chunk(Sums acc, const Bytes *u, const int8_t *x) {
    if constexpr (Bits == 8) {
        const __m256i top = _mm256_set1_epi8(-128);
        for (int i = 0; i < 8; ++i) {
            const __m256i w = _mm256_xor_si256(u[i].v, top);  // code - 128
            const __m256i four = four_of(x + 4 * i);
            acc = acc.plus_pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four, w)));
        }
        // What xor took away: 128 times the sum of the four activations of each.
        __m256i taken = _mm256_setzero_si256();
        for (int i = 0; i < 8; ++i)
            taken = _mm256_add_epi16(taken, _mm256_maddubs_epi16(_mm256_set1_epi8(1), four_of(x + 4 * i)));
        return {_mm256_add_epi32(acc.v, _mm256_slli_epi32(_mm256_madd_epi16(taken, _mm256_set1_epi16(1)), 7))};
    } else {
        constexpr int fitting = Bits <= 4 ? 8 : Bits == 5 ? 4 : Bits == 6 ? 2 : 1;
        for (int i = 0; i < 8; i += fitting) {
            __m256i words = _mm256_maddubs_epi16(u[i].v, four_of(x + 4 * i));
            for (int j = 1; j < fitting; ++j)
                words = _mm256_add_epi16(words, _mm256_maddubs_epi16(u[i + j].v, four_of(x + 4 * (i + j))));
            acc = acc.plus_pairs(words);
        }
        return acc;
    }
}

// The lowest byte of each of sixteen words.
inline void lowest_bytes(const int32_t *words, int8_t *out) {
    const __m256i mask = _mm256_set1_epi32(255), *half = reinterpret_cast<const __m256i *>(words);
    const __m256i pairs = _mm256_packus_epi32(_mm256_and_si256(_mm256_loadu_si256(half), mask),
                                              _mm256_and_si256(_mm256_loadu_si256(half + 1), mask));
    const __m256i in_order = _mm256_permute4x64_epi64(pairs, 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out),
                     _mm_packus_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1)));
}

inline void halfs(const uint16_t *p, float *out) {
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p + i))));
}
inline void to_halfs(const float *p, uint16_t *out) {
    for (int i = 0; i < 16; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(p + i), _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace
}  // namespace fw
