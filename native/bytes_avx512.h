// A line of 64 byte lanes in one AVX-512 register (VNNI, VBMI, GFNI), or in the emulated one.
#pragma once
#include "simd_avx512.h"

namespace fw {
namespace {

struct Bytes {
    static constexpr int width = 64;
    fw_m512i v;

    static Bytes load(const uint8_t *p) { return {FW512(loadu_si512)(p)}; }
    static Bytes load_first(const uint8_t *p, int lanes) {
        return {FW512(maskz_loadu_epi8)(lanes == 64 ? ~uint64_t{0} : (uint64_t{1} << lanes) - 1, p)};
    }
    // `lanes` lanes of lines that are `distance` apart, 16 or 32 of each side by side.
    static Bytes load_beside(const uint8_t *p, int lanes, const int64_t *distance) {
        Bytes all = load_first(p, lanes);
        for (int at = lanes; at < width; at += lanes) {
            const uint64_t mask = ((uint64_t{1} << lanes) - 1) << at;  // lanes before are not read
            all.v = FW512(or_si512)(all.v, FW512(maskz_loadu_epi8)(mask, p + distance[at / lanes - 1] - at));
        }
        return all;
    }
    // Field `p` of `Width` bits of every byte.
    template <int Width>
    Bytes field(int p) const {
        if constexpr (Width == 8) return *this;
        const fw_m512i mask = FW512(set1_epi8)(static_cast<char>((1 << Width) - 1));
        return {FW512(and_si512)(p ? FW512(srli_epi16)(v, p * Width) : v, mask)};
    }
    template <int Shift>
    Bytes above(Bytes low) const {  // low | this << Shift, for fields that stay inside their bytes
        return {FW512(or_si512)(low.v, FW512(slli_epi16)(v, Shift))};
    }
};

// As many floats as a register holds, for sums that each lane makes for itself.
typedef float Reals __attribute__((vector_size(64)));
inline Reals reals_of_halfs(const uint16_t *p) {
#if defined(FEATHERWEIGHT_EMULATE)
    Reals r;
    for (int i = 0; i < 16; ++i) r[i] = half_to_float(load_half(p + i));
    return r;
#else
    return (Reals)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
#endif
}

struct Sums {
    static constexpr int lanes = 16;
    fw_m512i v;

    static Sums all(int32_t value) { return {FW512(set1_epi32)(value)}; }
    static Sums load(const int32_t *p) { return {FW512(loadu_si512)(p)}; }
    void store(int32_t *p) const { FW512(storeu_si512)(p, v); }
    Sums plus(Sums other) const { return {FW512(add_epi32)(v, other.v)}; }
    Reals reals() const {
#if defined(FEATHERWEIGHT_EMULATE)
        int32_t own[16];
        store(own);
        Reals r;
        for (int i = 0; i < 16; ++i) r[i] = static_cast<float>(own[i]);
        return r;
#else
        return (Reals)_mm512_cvtepi32_ps(v);
#endif
    }
    // + unsigned bytes . four signed bytes at x
    Sums dot(Bytes u, const int8_t *x) const {
        int32_t four;
        __builtin_memcpy(&four, x, 4);
        return {FW512(dpbusd_epi32)(v, u.v, FW512(set1_epi32)(four))};
    }
    // The same with four of their own for every lane.
    Sums dot_lanes(Bytes u, const int8_t *x) const { return {FW512(dpbusd_epi32)(v, u.v, FW512(loadu_si512)(x))}; }
    // The first at x + At, of 64 bytes there; compilers give the broadcast an instruction of its own.
    template <int At>
    Sums dot_at(Bytes u, const int8_t *x) const {
#if defined(FEATHERWEIGHT_EMULATE)
        return dot(u, x + At);
#else
        Sums sum = *this;
        asm("vpdpbusd %c3(%2)%{1to16%}, %1, %0"
            : "+v"(sum.v)
            : "v"(u.v), "r"(x), "i"(At), "m"(*reinterpret_cast<const int8_t(*)[64]>(x)));
        return sum;
#endif
    }
};

// + codes of `Bits` bits of 32 columns . x
template <int Bits>
FW_INLINE Sums chunk(Sums acc, const Bytes *u, const int8_t *x) {
    Sums odd = Sums::all(0);
    for (int i = 0; i < 8; i += 2) {
        acc = acc.dot(u[i], x + 4 * i);
        odd = odd.dot(u[i + 1], x + 4 * i + 4);
    }
    return acc.plus(odd);
}

// The lowest byte of each of sixteen words.
inline void lowest_bytes(const int32_t *words, int8_t *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(words[i]);
#else
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out), _mm512_cvtepi32_epi8(_mm512_loadu_si512(words)));
#endif
}

inline void halfs(const uint16_t *p, float *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = half_to_float(load_half(p + i));
#else
    _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))));
#endif
}
inline void to_halfs(const float *p, uint16_t *out) {
#if defined(FEATHERWEIGHT_EMULATE)
    for (int i = 0; i < 16; ++i) out[i] = float_to_half(p[i]);
#else
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out), _mm512_cvtps_ph(_mm512_loadu_ps(p), _MM_FROUND_TO_NEAREST_INT));
#endif
}

}  // namespace
}  // namespace fw
