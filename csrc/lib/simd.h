/* One vector type, for the matrix products above all: the widest of the instruction set compiled for. Lanes are
 * independent outputs, never parts of one sum. */
#ifndef FASTNET_SIMD_H
#define FASTNET_SIMD_H

#include <string.h>

#include "lib/kernel.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#define TILE_ROWS 14 /* 28 of 32 registers accumulate */
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VECTOR_BYTES 32
#define TILE_ROWS 6 /* 12 of 16 */
#elif defined(__aarch64__)
#include <arm_neon.h>
#define VECTOR_BYTES 16
#define TILE_ROWS 12 /* 24 of 32 */
#elif defined(__FMA__)
#define VECTOR_BYTES (REAL_IS_DOUBLE ? 8 : 4) /* scalars, for tests */
#define TILE_ROWS 6
#else
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#define VECTOR_BYTES 16
#define TILE_ROWS 6 /* 12 of 16 */
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real vec_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

enum { WIDTH = VECTOR_BYTES / sizeof(real) };

/* Whether so many elements are too many to stay in a core's own cache, beside others of their kind. */
static inline int exceeds_cache(int64_t n) { return n * (int64_t)sizeof(real) >= 1 << 19; }

static inline vec load(const real *p) { return *(const vec_anywhere *)p; }

static inline void store(real *p, vec v) { *(vec_anywhere *)p = v; }

/* Store at a multiple of VECTOR_BYTES without reading the line first, which does not stay in the caches either.
 * `settle` before another thread may read it. */
enum { STREAMS = VECTOR_BYTES >= 32 }; /* whether `stream` does that, or stores */
static inline void stream(real *p, vec v) {
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    _mm512_stream_pd(p, v);
#elif defined(__AVX512F__)
    _mm512_stream_ps(p, v);
#elif VECTOR_BYTES == 32 && REAL_IS_DOUBLE
    _mm256_stream_pd(p, v);
#elif VECTOR_BYTES == 32
    _mm256_stream_ps(p, v);
#else
    store(p, v);
#endif
}

static inline void settle(void) {
#if VECTOR_BYTES >= 32
    _mm_sfence();
#endif
}

static inline vec broadcast(real a) { return a - (vec){0}; }

/* a·b + c in every lane; see madd. */
static inline vec vec_madd(vec a, vec b, vec c) {
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__) && REAL_IS_DOUBLE
    return _mm256_fmadd_pd(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__) && REAL_IS_DOUBLE
    return vfmaq_f64(c, a, b);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#elif defined(__FMA__)
    return (vec){madd(a[0], b[0], c[0])};
#else
    return a * b + c;
#endif
}

/* gate <= 0 ? 0 : a in every lane: a rectifier, and its derivative. */
enum { GATES = VECTOR_BYTES == 64 };
static inline vec vec_gated(vec gate, vec a) {
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(gate, (vec){0}, _CMP_NLE_UQ), a);
#elif defined(__AVX512F__)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(gate, (vec){0}, _CMP_NLE_UQ), a);
#else
    (void)gate;
    return a;
#endif
}

/* a > b ? a : b in every lane. */
static inline vec vec_max(vec a, vec b) {
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    return _mm512_max_pd(a, b);
#elif defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__) && REAL_IS_DOUBLE
    return _mm256_max_pd(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__aarch64__) && REAL_IS_DOUBLE
    return vbslq_f64(vcgtq_f64(a, b), a, b);
#elif defined(__aarch64__)
    return vbslq_f32(vcgtq_f32(a, b), a, b);
#elif !defined(__FMA__) && defined(__SSE2__) && REAL_IS_DOUBLE
    return _mm_max_pd(a, b);
#elif !defined(__FMA__) && defined(__SSE2__)
    return _mm_max_ps(a, b);
#else
    for (int l = 0; l < WIDTH; l++)
        a[l] = a[l] > b[l] ? a[l] : b[l];
    return a;
#endif
}

#if defined(__AVX512F__) && REAL_IS_DOUBLE
#define MASK(n) ((__mmask8)((1u << (n)) - 1))
#elif defined(__AVX512F__)
#define MASK(n) ((__mmask16)((1u << (n)) - 1))
#elif defined(__AVX2__) && REAL_IS_DOUBLE
#define MASK(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
#elif defined(__AVX2__)
#define MASK(n)                                                                                    \
    _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#endif

/* The first n lanes from memory, zero in the others; nothing behind them is read. */
static inline vec load_first(const real *p, int64_t n) {
    if (n >= WIDTH)
        return load(p);
    if (n <= 0)
        return (vec){0};
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    return _mm512_maskz_loadu_pd(MASK(n), p);
#elif defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(MASK(n), p);
#elif defined(__AVX2__) && REAL_IS_DOUBLE
    return _mm256_maskload_pd(p, MASK(n));
#elif defined(__AVX2__)
    return _mm256_maskload_ps(p, MASK(n));
#else
    vec v = {0};
    for (int l = 0; l < WIDTH; l++)
        if (l < n)
            v[l] = p[l];
    return v;
#endif
}

/* The first n lanes to memory; nothing behind them is written. */
static inline void store_first(real *p, vec v, int64_t n) {
    if (n >= WIDTH) {
        store(p, v);
        return;
    }
    if (n <= 0)
        return;
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    _mm512_mask_storeu_pd(p, MASK(n), v);
#elif defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, MASK(n), v);
#elif defined(__AVX2__) && REAL_IS_DOUBLE
    _mm256_maskstore_pd(p, MASK(n), v);
#elif defined(__AVX2__)
    _mm256_maskstore_ps(p, MASK(n), v);
#else
    for (int l = 0; l < WIDTH; l++)
        if (l < n)
            p[l] = v[l];
#endif
}

/* Interleave the lower, or the upper, halves of two vectors. */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#if REAL_IS_DOUBLE
typedef int64_t lanes_of __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef int32_t lanes_of __attribute__((vector_size(VECTOR_BYTES)));
#endif
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (lanes_of){__VA_ARGS__})
#endif
#define LANE_COUNT (VECTOR_BYTES / (REAL_IS_DOUBLE ? 8 : 4))
static inline vec interleave_low(vec a, vec b) {
#if LANE_COUNT == 16
    return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif LANE_COUNT == 8
    return SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#elif LANE_COUNT == 4
    return SHUFFLE(a, b, 0, 4, 1, 5);
#elif LANE_COUNT == 2
    return SHUFFLE(a, b, 0, 2);
#else
    (void)b;
    return a;
#endif
}

static inline vec interleave_high(vec a, vec b) {
#if LANE_COUNT == 16
    return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif LANE_COUNT == 8
    return SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif LANE_COUNT == 4
    return SHUFFLE(a, b, 2, 6, 3, 7);
#elif LANE_COUNT == 2
    return SHUFFLE(a, b, 1, 3);
#else
    (void)a;
    return b;
#endif
}

/* Transpose a square: lane j of vector i becomes lane i of vector j. */
static inline __attribute__((always_inline)) void turn(vec square[WIDTH]) {
#pragma GCC unroll 8
    for (int round = 1; round < WIDTH; round *= 2) {
        vec next[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH / 2; i++) {
            next[2 * i] = interleave_low(square[i], square[i + WIDTH / 2]);
            next[2 * i + 1] = interleave_high(square[i], square[i + WIDTH / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            square[i] = next[i];
    }
}

/* A square from memory, its rows `row` elements apart, transposed; TURNS_FAST: in fewer exchanges than `turn`. */
enum { TURNS_FAST = VECTOR_BYTES == 64 && !REAL_IS_DOUBLE };
static inline __attribute__((always_inline)) void load_turned(vec square[WIDTH], const real *from, int64_t row) {
#if defined(__AVX512F__) && !REAL_IS_DOUBLE
    /* A row's half is loaded above that of the eighth row before it, which spares a fourth of the exchanges. */
    const __m512i lower = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i upper = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    const real *fourth[4]; /* pointers that the compiler must not derive from one another: see tile */
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        fourth[q] = from + 4 * q * row;
        __asm__("" : "+r"(fourth[q]));
    }
#pragma GCC unroll 4
    for (int j = 0; j < WIDTH; j += 4) {
        vec x[4]; /* elements j, …, j + 3 of rows i, i + 4, i + 8 and i + 12 */
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m512d rows[2];
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) {
                const int64_t at = i * row + j / 8 * 8;
                const __m256d half = _mm256_loadu_pd((const double *)(fourth[r] + at));
                rows[r] = _mm512_insertf64x4(_mm512_castpd256_pd512(half),
                                             _mm256_loadu_pd((const double *)(fourth[r + 2] + at)), 1);
            }
            x[i] = (vec)_mm512_permutex2var_pd(rows[0], j % 8 ? upper : lower, rows[1]);
        }
        const __m512d a = (__m512d)_mm512_unpacklo_ps(x[0], x[1]), b = (__m512d)_mm512_unpacklo_ps(x[2], x[3]);
        const __m512d c = (__m512d)_mm512_unpackhi_ps(x[0], x[1]), d = (__m512d)_mm512_unpackhi_ps(x[2], x[3]);
        square[j] = (vec)_mm512_unpacklo_pd(a, b);
        square[j + 1] = (vec)_mm512_unpackhi_pd(a, b);
        square[j + 2] = (vec)_mm512_unpacklo_pd(c, d);
        square[j + 3] = (vec)_mm512_unpackhi_pd(c, d);
    }
#else
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++)
        square[i] = load(from + i * row);
    turn(square);
#endif
}

/* The first n elements from memory (all, if there are more) and zeros: for loops over whole rows of
 * lanes, which the compiler turns into vectors without scalar code for the rest. */
static inline void load_lanes(real lane[LANES], const real *p, int64_t n) {
    ROLLED
    for (int l = 0; l < LANES; l += WIDTH)
        store(lane + l, load_first(p + l, n - l));
}

static inline void store_lanes(real *p, const real lane[LANES], int64_t n) {
    ROLLED
    for (int l = 0; l < LANES; l += WIDTH)
        store_first(p + l, load(lane + l), n - l);
}

#endif
