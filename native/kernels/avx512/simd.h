// The registers of AVX-512, or of its emulation: 32 16-bit words, 64 byte lanes (a line), sixteen
// 32-bit accumulators, sixteen floats.
#pragma once
#include <stdint.h>

#if defined(FEATHERWEIGHT_EMULATE)
#include "../shared/fp16.h"
#include "emulated.h"
#else
#include <immintrin.h>
#define FW512(name) _mm512_##name
typedef __m512i fw_m512i;
#endif

namespace fw {
namespace {

// 32 unsigned 16-bit words: the costs of the Viterbi search.
struct Words {
    static constexpr int lanes = 32;
    fw_m512i v;

    static Words load(const uint16_t *p) { return {FW512(loadu_si512)(p)}; }
    void store(uint16_t *p) const { FW512(storeu_si512)(p, v); }
    static Words broadcast(uint16_t value) {
        return {FW512(set1_epi16)(static_cast<int16_t>(value))};
    }

    // The first lanes >> K words at p, each repeated 2^K times.
    template <int K>
    static Words load_repeated(const uint16_t *p) {
        alignas(64) static constexpr RepeatIndices<K> repeat{};
        const fw_m512i indices = FW512(load_si512)(repeat.indices);
        if constexpr (K == 1) {
            // Words move between 128-bit lanes, so this needs a permutation of the whole register.
            return {FW512(permutexvar_epi16)(indices, FW512(broadcast_i64x4)(load256(p)))};
        } else if constexpr (K == 2) {
            return {FW512(shuffle_epi8)(FW512(broadcast_i32x4)(load128(p)), indices)};
        } else if constexpr (K == 3) {
            int64_t words;
            __builtin_memcpy(&words, p, 8);
            return {FW512(shuffle_epi8)(FW512(set1_epi64)(words), indices)};
        } else {
            int32_t words;
            __builtin_memcpy(&words, p, 4);
            return {FW512(shuffle_epi8)(FW512(set1_epi32)(words), indices)};
        }
    }
    // (d * d + 2^14) >> 15 with d = sample - value, saturated. d = -32768 gives the bits of 32768,
    // which is the correct unsigned result.
    static Words squared_error(Words sample, const int16_t *values) {
        const fw_m512i d = FW512(subs_epi16)(sample.v, FW512(loadu_si512)(values));
        return {FW512(mulhrs_epi16)(d, d)};
    }
    Words add_saturated(Words other) const { return {FW512(adds_epu16)(v, other.v)}; }
    Words subtract(Words other) const { return {FW512(sub_epi16)(v, other.v)}; }
    Words minimum(Words other) const { return {FW512(min_epu16)(v, other.v)}; }
    uint16_t minimum_lane() const { return minimum_word(v); }

private:
    // For K = 1 indices of words; for K >= 2 pairs of byte indices inside each 128-bit lane of the
    // broadcast words.
    template <int K>
    struct RepeatIndices {
        uint16_t indices[lanes];
        constexpr RepeatIndices() : indices{} {
            for (int i = 0; i < lanes; ++i) {
                const int from = i >> K;
                indices[i] =
                    static_cast<uint16_t>(K == 1 ? from : (2 * from) | ((2 * from + 1) << 8));
            }
        }
    };
#if defined(FEATHERWEIGHT_EMULATE)
    static fw_m256i load256(const uint16_t *p) { return fw_emulated_load256(p); }
    static fw_m128i load128(const uint16_t *p) { return fw_emulated_load128(p); }
    static uint16_t minimum_word(const fw_m512i &a) { return fw_emulated_minimum_epu16(a); }
#else
    static __m256i load256(const uint16_t *p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    }
    static __m128i load128(const uint16_t *p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    }
    static uint16_t minimum_word(__m512i a) {
        const __m256i half =
            _mm256_min_epu16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
        const __m128i quarter =
            _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(quarter)));
    }
#endif
};

// A line of codes: 64 byte lanes.
struct Bytes {
    static constexpr int width = 64;
    fw_m512i v;

    static Bytes load(const uint8_t *p) { return {FW512(loadu_si512)(p)}; }
    // The first num_lanes lanes; the others are zero.
    static Bytes load_partial(const uint8_t *p, int num_lanes) {
        return {FW512(maskz_loadu_epi8)(
            num_lanes == 64 ? ~uint64_t{0} : (uint64_t{1} << num_lanes) - 1, p)};
    }
    // Several short lines side by side: num_lanes (16 or 32) lanes at p, then as many at each of
    // p + distances[0], p + distances[1], ... until the register is full.
    static Bytes load_folded(const uint8_t *p, int num_lanes, const int64_t *distances) {
        Bytes all = load_partial(p, num_lanes);
        for (int lane = num_lanes; lane < width; lane += num_lanes) {
            // The masked load starts `lane` bytes early and does not read the lanes below.
            const uint64_t mask = ((uint64_t{1} << num_lanes) - 1) << lane;
            all.v = FW512(or_si512)(
                all.v, FW512(maskz_loadu_epi8)(mask, p + distances[lane / num_lanes - 1] - lane));
        }
        return all;
    }
    // Field `index` of the fields of `Width` bits in every byte.
    template <int Width>
    Bytes field(int index) const {
        if constexpr (Width == 8) return *this;
        const fw_m512i mask = FW512(set1_epi8)(static_cast<char>((1 << Width) - 1));
        return {FW512(and_si512)(index ? FW512(srli_epi16)(v, index * Width) : v, mask)};
    }
    // low | this << Shift, for fields that stay inside their bytes.
    template <int Shift>
    Bytes shift_onto(Bytes low) const {
        return {FW512(or_si512)(low.v, FW512(slli_epi16)(v, Shift))};
    }
};

// As many floats as a register holds.
typedef float Floats __attribute__((vector_size(64)));
inline Floats load_fp16(const uint16_t *p) {
#if defined(FEATHERWEIGHT_EMULATE)
    Floats floats;
    for (int i = 0; i < 16; ++i) floats[i] = fp16_to_float(load_unaligned(p + i));
    return floats;
#else
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
#endif
}

// 32-bit sums of products of bytes.
struct Accumulators {
    static constexpr int lanes = 16;
    fw_m512i v;

    static Accumulators broadcast(int32_t value) { return {FW512(set1_epi32)(value)}; }
    static Accumulators load(const int32_t *p) { return {FW512(loadu_si512)(p)}; }
    void store(int32_t *p) const { FW512(storeu_si512)(p, v); }
    Accumulators add(Accumulators other) const { return {FW512(add_epi32)(v, other.v)}; }
    Floats to_floats() const {
#if defined(FEATHERWEIGHT_EMULATE)
        int32_t integers[16];
        store(integers);
        Floats floats;
        for (int i = 0; i < 16; ++i) floats[i] = static_cast<float>(integers[i]);
        return floats;
#else
        return (Floats)_mm512_cvtepi32_ps(v);
#endif
    }
    // Adds to every lane the products of its four unsigned bytes with the four signed bytes at x.
    Accumulators add_dot(Bytes u, const int8_t *x) const {
        int32_t four;
        __builtin_memcpy(&four, x, 4);
        return {FW512(dpbusd_epi32)(v, u.v, FW512(set1_epi32)(four))};
    }
    // The same, but every lane has its own four signed bytes at x.
    Accumulators add_dot_lanes(Bytes u, const int8_t *x) const {
        return {FW512(dpbusd_epi32)(v, u.v, FW512(loadu_si512)(x))};
    }
    // add_dot(u, x + Offset), where 64 bytes at x are readable. The inline assembly makes the
    // broadcast a part of vpdpbusd; compilers generate a separate instruction for it.
    template <int Offset>
    Accumulators add_dot_at(Bytes u, const int8_t *x) const {
#if defined(FEATHERWEIGHT_EMULATE)
        return add_dot(u, x + Offset);
#else
        Accumulators sum = *this;
        asm("vpdpbusd %c3(%2)%{1to16%}, %1, %0"
            : "+v"(sum.v)
            : "v"(u.v), "r"(x), "i"(Offset), "m"(*reinterpret_cast<const int8_t (*)[64]>(x)));
        return sum;
#endif
    }
};

// The lowest byte of each of sixteen 32-bit words.
inline void narrow_to_bytes(const int32_t *words, int8_t *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(words[i]);
#else
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out),
                     _mm512_cvtepi32_epi8(_mm512_loadu_si512(words)));
#endif
}

// Sixteen numbers from fp16 to float32, and from float32 to the nearest fp16.
inline void widen_sixteen(const uint16_t *from, float *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = fp16_to_float(load_unaligned(from + i));
#else
    _mm512_storeu_ps(out,
                     _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from))));
#endif
}
inline void narrow_sixteen(const float *from, uint16_t *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = float_to_fp16(from[i]);
#else
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out),
                        _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
#endif
}

}  // namespace
}  // namespace fw
