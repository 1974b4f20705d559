// One operation of the AVX-512 kernels at a time, on 64-byte operands: compiled against the
// emulation and against the instructions, so that a test can compare both.
#include <string.h>

#if defined(FEATHERWEIGHT_EMULATE)
#include "kernels/avx512/emulated.h"
#define PROBE probe_emulated
using namespace fw;
#define LOAD128 fw_emulated_load128
#define LOAD256 fw_emulated_load256
#else
#include <immintrin.h>
#define FW512(name) _mm512_##name
#define PROBE probe_real
typedef __m512i fw_m512i;
#define LOAD128(p) _mm_loadu_si128(reinterpret_cast<const __m128i *>(p))
#define LOAD256(p) _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int PROBE(const char *name, const unsigned char *a, const unsigned char *b,
                 unsigned char *out) {
    const fw_m512i x = FW512(loadu_si512)(a);
    const fw_m512i y = FW512(loadu_si512)(b);
    short word;
    int dword;
    long long quad;
    memcpy(&word, a, 2);
    memcpy(&dword, a, 4);
    memcpy(&quad, a, 8);
#define BINARY(op) \
    if (!strcmp(name, #op)) return FW512(storeu_si512)(out, FW512(op)(x, y)), 0
#define UNARY(op, value) \
    if (!strcmp(name, #op)) return FW512(storeu_si512)(out, FW512(op)(value)), 0
    BINARY(permutexvar_epi16);
    BINARY(shuffle_epi8);
    BINARY(subs_epi16);
    BINARY(mulhrs_epi16);
    BINARY(adds_epu16);
    BINARY(sub_epi16);
    BINARY(min_epu16);
    UNARY(set1_epi16, word);
    UNARY(set1_epi32, dword);
    UNARY(set1_epi64, quad);
    UNARY(broadcast_i32x4, LOAD128(a));
    UNARY(broadcast_i64x4, LOAD256(a));
    BINARY(and_si512);
    BINARY(or_si512);
    BINARY(xor_si512);
    BINARY(add_epi32);
    UNARY(set1_epi8, static_cast<char>(a[0]));
#define CASE(op, ...) \
    if (!strcmp(name, #op)) return FW512(storeu_si512)(out, FW512(op)(__VA_ARGS__)), 0
    CASE(srli_epi16, x, 3);
    CASE(slli_epi16, x, 3);
    CASE(gf2p8affine_epi64_epi8, x, y, 0);
    CASE(ternarylogic_epi64, x, y, FW512(set1_epi64)(quad), 0x96);
    CASE(dpbusd_epi32, FW512(set1_epi32)(dword), x, y);
    CASE(permutex2var_epi8, x, y, FW512(set1_epi64)(quad));
    CASE(max_epu8, x, y);
    CASE(min_epu8, x, y);
    CASE(mask_blend_epi8, FW512(movepi8_mask)(x), x, y);
    CASE(maskz_loadu_epi8, static_cast<unsigned long long>(quad), b);
    return 1;
}
