/* What the operands of a register tile are, and how it multiplies them.
 *
 * They are numbers of the plan's dtype. In a file that defines ROUNDED_OPERANDS before its includes they are rounded to
 * bfloat16 while they are packed (rounded.h), and `rounded` numbers along k share a lane: a pair of bfloat16 where the
 * level has instructions for these, else one number as a float32 whose lower bits are zero. A packed panel or tile is an
 * array of `real` in either case; a pair is never computed with as if it were a real.
 *
 * On x86-64 the sums have the same bits with pairs and without, unless denormal numbers occur. AVX512_BF16 adds the
 * second product of a pair first, then the other, each by a fused multiply-add; so without pairs operands are packed in
 * that order of k. Arm's BFDOT adds the two products, then their sum, and rounds both to odd, which no multiply-adds
 * give. docs/reproducibility.md tells how that was found.
 */
#ifndef FASTNET_OPERAND_H
#define FASTNET_OPERAND_H

#include "lib/simd.h"

#ifndef ROUNDED_OPERANDS
#define ROUNDED_OPERANDS 0
#endif

#if ROUNDED_OPERANDS && (defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)) && !REAL_IS_DOUBLE
#define BFLOAT16_PAIRS 1
#else
#define BFLOAT16_PAIRS 0
#endif

enum { OF_LANE = 1 + BFLOAT16_PAIRS }; /* numbers along k that share a lane */

/* The operand at `p` in every lane. */
static inline vec repeat_operand(const real *p) {
#if BFLOAT16_PAIRS && defined(__aarch64__)
    return (vec)vld1q_dup_f32(p);
#elif BFLOAT16_PAIRS
    int32_t pair; /* no arithmetic: it could change the bits of what looks like a NaN */
    memcpy(&pair, p, sizeof pair);
    return (vec)_mm512_set1_epi32(pair);
#else
    return broadcast(*p);
#endif
}

/* sum + a·b in every lane; with pairs sum + a[1]·b[1] + a[0]·b[0], or Arm's sum + (a[0]·b[0] + a[1]·b[1]). */
static inline vec add_product(vec a, vec b, vec sum) {
#if BFLOAT16_PAIRS && defined(__aarch64__)
    return (vec)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)a, (bfloat16x8_t)b);
#elif BFLOAT16_PAIRS
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    return vec_madd(a, b, sum);
#endif
}

#if ROUNDED_OPERANDS

/* x rounded to bfloat16 in every lane: to the nearest, ties to even; NaN stays NaN, and denormal numbers become zero, as
 * the instructions for bfloat16 read them. In float64, for tests, x is rounded to as many bits. */
static inline vec rounded(vec x) {
#if REAL_IS_DOUBLE
    typedef int64_t bits __attribute__((vector_size(VECTOR_BYTES)));
    enum { DROPPED = 45 };
    const bits is_normal = ~(bits){0};
#else
    typedef int32_t bits __attribute__((vector_size(VECTOR_BYTES)));
    enum { DROPPED = 16 };
    const bits is_normal = ((bits)x & 0x7f800000) != 0;
#endif
    const bits one = (bits){0} + 1, sign = one << (8 * (int)sizeof(real) - 1), half = (one << (DROPPED - 1)) - 1;
    const bits kept = -(one << DROPPED), quiet = one << REAL(22, 51);
    const bits number = ((bits)x + half + ((bits)x >> DROPPED & one)) & kept;
    const bits is_number = x == x;
    return (vec)((is_number & ((is_normal & number) | (~is_normal & (bits)x & sign))) |
                 (~is_number & (((bits)x | quiet) & kept)));
}

#if BFLOAT16_PAIRS && defined(__aarch64__)
/* x with zeros for denormal numbers, which BFCVTN would round to the smallest normal one or keep. */
static inline float32x4_t without_denormals(vec x) {
    const uint32x4_t bits = (uint32x4_t)x, is_normal = vtstq_u32(bits, vdupq_n_u32(0x7f800000));
    return (float32x4_t)(bits & (is_normal | vdupq_n_u32(0x80000000)));
}

/* 2·WIDTH neighbours along k as pairs. */
static inline vec pairs_of(vec first, vec second) {
    return (vec)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(without_denormals(first)), without_denormals(second));
}
#elif BFLOAT16_PAIRS
static inline vec pairs_of(vec first, vec second) {
    return (vec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}
#endif

/* Lanes of operands from two neighbours along k: pairs, or the first of them. */
static inline vec join(vec first, vec second) {
#if BFLOAT16_PAIRS && defined(__aarch64__)
    const uint16x8_t apart = (uint16x8_t)pairs_of(first, second);
    return (vec)vzip1q_u16(apart, vextq_u16(apart, apart, 4));
#elif BFLOAT16_PAIRS
    const __m512i order = _mm512_setr_epi32(0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005,
                                            0x00160006, 0x00170007, 0x00180008, 0x00190009, 0x001a000a, 0x001b000b,
                                            0x001c000c, 0x001d000d, 0x001e000e, 0x001f000f);
    return (vec)_mm512_permutexvar_epi16(order, (__m512i)pairs_of(first, second));
#else
    (void)second;
    return rounded(first);
#endif
}

#endif

#endif
