// The registers of AVX2: sixteen 16-bit words, 32 byte lanes (half a line), eight 32-bit
// accumulators, eight floats.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace fw {
namespace {

// Sixteen unsigned 16-bit words: the costs of the Viterbi search.
struct Words {
    static constexpr int lanes = 16;
    __m256i v;

    static Words load(const uint16_t *p) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))};
    }
    void store(uint16_t *p) const { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
    static Words broadcast(uint16_t value) {
        return {_mm256_set1_epi16(static_cast<int16_t>(value))};
    }

    // The first lanes >> K words at p, each repeated 2^K times. A broadcasting load, which needs no
    // shuffle, copies the words to both halves of the register. Then one shuffle inside the halves
    // repeats them.
    template <int K>
    static Words load_repeated(const uint16_t *p) {
        if constexpr (K == 4) {
            return {_mm256_set1_epi16(static_cast<int16_t>(*p))};
        } else {
            const __m256i indices = repeat_indices<K>();
            if constexpr (K == 1) {
                const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
                return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(words), indices)};
            } else if constexpr (K == 2) {
                int64_t words;
                __builtin_memcpy(&words, p, 8);
                return {_mm256_shuffle_epi8(_mm256_set1_epi64x(words), indices)};
            } else {
                int32_t words;
                __builtin_memcpy(&words, p, 4);
                return {_mm256_shuffle_epi8(_mm256_set1_epi32(words), indices)};
            }
        }
    }
    // (d * d + 2^14) >> 15 with d = sample - value, saturated. d = -32768 gives the bits of 32768,
    // which is the correct unsigned result.
    static Words squared_error(Words sample, const int16_t *values) {
        const __m256i d = _mm256_subs_epi16(
            sample.v, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values)));
        return {_mm256_mulhrs_epi16(d, d)};
    }
    Words add_saturated(Words other) const { return {_mm256_adds_epu16(v, other.v)}; }
    Words subtract(Words other) const { return {_mm256_sub_epi16(v, other.v)}; }
    Words minimum(Words other) const { return {_mm256_min_epu16(v, other.v)}; }
    uint16_t minimum_lane() const {
        const __m128i half =
            _mm_min_epu16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(half)));
    }

private:
    template <int K>
    static __m256i repeat_indices() {
        constexpr int half = 8 >> K;  // the word that the upper half of the register starts with
        return _mm256_setr_epi16(
            byte_pair(0 >> K), byte_pair(1 >> K), byte_pair(2 >> K), byte_pair(3 >> K),
            byte_pair(4 >> K), byte_pair(5 >> K), byte_pair(6 >> K), byte_pair(7 >> K),
            byte_pair(half + (0 >> K)), byte_pair(half + (1 >> K)), byte_pair(half + (2 >> K)),
            byte_pair(half + (3 >> K)), byte_pair(half + (4 >> K)), byte_pair(half + (5 >> K)),
            byte_pair(half + (6 >> K)), byte_pair(half + (7 >> K)));
    }
    // The indices of the two bytes of word i, as one 16-bit number.
    static constexpr int16_t byte_pair(int i) {
        return static_cast<int16_t>((2 * i) | ((2 * i + 1) << 8));
    }
};

// Half a line of codes: 32 byte lanes.
struct Bytes {
    static constexpr int width = 32;
    __m256i v;

    static Bytes load(const uint8_t *p) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))};
    }
    // Field `index` of the fields of `Width` bits in every byte.
    template <int Width>
    Bytes field(int index) const {
        if constexpr (Width == 8) return *this;
        const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << Width) - 1));
        return {_mm256_and_si256(index ? _mm256_srli_epi16(v, index * Width) : v, mask)};
    }
    // low | this << Shift, for fields that stay inside their bytes.
    template <int Shift>
    Bytes shift_onto(Bytes low) const {
        return {_mm256_or_si256(low.v, _mm256_slli_epi16(v, Shift))};
    }
};

// Four activations in every 32-bit lane.
inline __m256i broadcast_four(const int8_t *x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

// As many floats as a register holds.
typedef float Floats __attribute__((vector_size(32)));
inline Floats load_fp16(const uint16_t *p) {
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

// 32-bit sums of products of bytes.
struct Accumulators {
    static constexpr int lanes = 8;
    __m256i v;

    static Accumulators broadcast(int32_t value) { return {_mm256_set1_epi32(value)}; }
    static Accumulators load(const int32_t *p) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))};
    }
    void store(int32_t *p) const { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
    Accumulators add(Accumulators other) const { return {_mm256_add_epi32(v, other.v)}; }
    Floats to_floats() const { return (Floats)_mm256_cvtepi32_ps(v); }
    // Adds the sum of each pair of 16-bit words.
    Accumulators add_pairs(__m256i words) const {
        Accumulators sum = {_mm256_add_epi32(v, _mm256_madd_epi16(words, _mm256_set1_epi16(1)))};
        // Without this barrier, compilers store all terms of a long sum in memory and add them as a
        // tree.
        asm("" : "+x"(sum.v));
        return sum;
    }
};

// The lowest byte of each of sixteen 32-bit words.
inline void narrow_to_bytes(const int32_t *words, int8_t *out) {
    const __m256i mask = _mm256_set1_epi32(255), *half = reinterpret_cast<const __m256i *>(words);
    const __m256i pairs = _mm256_packus_epi32(_mm256_and_si256(_mm256_loadu_si256(half), mask),
                                              _mm256_and_si256(_mm256_loadu_si256(half + 1), mask));
    const __m256i in_order = _mm256_permute4x64_epi64(pairs, 0xd8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i *>(out),
        _mm_packus_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1)));
}

// Sixteen numbers from fp16 to float32, and from float32 to the nearest fp16.
inline void widen_sixteen(const uint16_t *from, float *out) {
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
}
inline void narrow_sixteen(const float *from, uint16_t *out) {
    for (int i = 0; i < 16; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace
}  // namespace fw
