/* Philox4x32-10 (J. K. Salmon et al., SC 2011), in the order in which fastnet/random.py draws it: consecutive blocks in
 * consecutive lanes, so that sixteen blocks yield four rows of sixteen words.
 *
 * A 32-bit word is kept in the lower half of a 64-bit lane. Even blocks are in some vectors and odd blocks in others.
 * The widening product of two words is then one instruction on every machine, and words are interleaved once, at the
 * end.
 */
#ifndef FASTNET_RNG_H
#define FASTNET_RNG_H

#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "lib/simd.h"

/* Results in integers do not depend on the width, so even the level of scalar FMAs uses vectors here. */
enum { WORDS_BYTES = VECTOR_BYTES < 16 ? 16 : VECTOR_BYTES };
typedef uint64_t words __attribute__((vector_size(WORDS_BYTES)));

enum {
    PAIRS = WORDS_BYTES / 8,                   /* lanes of `words` */
    BLOCKS = VECTOR_BYTES == 64 ? 32 : LANES,  /* drawn at a time: enough to hide latencies */
    DRAW = 4 * BLOCKS                          /* words of a draw */
};

/* A stream at a step: the round keys, and the words of the counter except the block number. */
typedef struct {
    uint32_t key[10][2], step[2], stream;
} philox;

static inline philox philox_at(uint64_t seed, uint64_t step, int64_t stream) {
    philox p = {.step = {(uint32_t)step, (uint32_t)(step >> 32)}, .stream = (uint32_t)stream};
    for (uint32_t round = 0; round < 10; round++) {
        p.key[round][0] = (uint32_t)seed + round * 0x9E3779B9u;
        p.key[round][1] = (uint32_t)(seed >> 32) + round * 0xBB67AE85u;
    }
    return p;
}

/* The 64-bit products of the lower halves. */
static inline words product(words a, uint32_t b) {
#if defined(__AVX512F__)
    return (words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    return (words)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(__aarch64__)
    return (words)vmull_n_u32(vmovn_u64((uint64x2_t)a), b);
#else
    return (a & UINT32_MAX) * b;
#endif
}

/* The words of elements draw·DRAW, …, draw·DRAW + DRAW − 1, in order. */
static inline void philox_draw(uint32_t word[DRAW], const philox *p, int64_t draw) {
    static const uint64_t even[] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    enum { VECTORS = BLOCKS / PAIRS };
    words c[4][VECTORS];
    /* Vectors 2i and 2i + 1 hold the even and the odd blocks of 2·PAIRS blocks from 2i·PAIRS on. */
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
        words block;
        memcpy(&block, even + v / 2 * PAIRS, sizeof block);
        c[0][v] = block + (uint32_t)draw * BLOCKS + (uint64_t)(v % 2);
        c[1][v] = (words){0} + p->step[0];
        c[2][v] = (words){0} + p->step[1];
        c[3][v] = (words){0} + p->stream;
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            const words p0 = product(c[0][v], 0xD2511F53u), p1 = product(c[2][v], 0xCD9E8D57u);
            c[0][v] = p1 >> 32 ^ c[1][v] ^ p->key[round][0];
            c[1][v] = p1;
            c[2][v] = p0 >> 32 ^ c[3][v] ^ p->key[round][1];
            c[3][v] = p0;
        }
#pragma GCC unroll 4
    for (int w = 0; w < 4; w++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v += 2) {
            const int block = v * PAIRS;
            const words both = (c[w][v] & UINT32_MAX) | c[w][v + 1] << 32;
            memcpy(word + block / LANES * 4 * LANES + w * LANES + block % LANES, &both, sizeof both);
        }
}

/* The counter of a kernel whose elements may be part of a larger minibatch: the bits of a step from STEP_BITS on are the place
 * of the first row there, which moves the elements' words and is no part of the counter (see fastnet/random.py). */
enum { STEP_BITS = 40 };

static inline int64_t place_of(uint64_t step) { return (int64_t)(step >> STEP_BITS); }

static inline uint64_t step_of(uint64_t step) { return step & (((uint64_t)1 << STEP_BITS) - 1); }

/* The words of elements first, …, first + DRAW − 1: one draw, or what two have of them. */
static inline const uint32_t *philox_words(uint32_t room[2 * DRAW], const philox *p, int64_t first) {
    const int64_t into = first % DRAW;
    philox_draw(room, p, first / DRAW);
    if (into)
        philox_draw(room + DRAW, p, first / DRAW + 1);
    return room + into;
}

#endif
