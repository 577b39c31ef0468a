/* The vector type: the widest of the instruction set that is compiled for. Lanes hold independent outputs, never parts
 * of one sum (but for the LANES of lib/reduce.h, which are the same everywhere), so results do not depend on the
 * width. */
#ifndef FASTNET_SIMD_H
#define FASTNET_SIMD_H

#include <string.h>

#include "lib/kernel.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#define TILE_ROWS 14 /* of a register tile with 2 vectors a row: 28 of 32 registers are accumulators */
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

/* Whether an operand of n elements exceeds what a core's own cache (L2) holds of it while others pass through. */
static inline int exceeds_cache(int64_t n) { return n * (int64_t)sizeof(real) >= 1 << 19; }

static inline vec load(const real *p) { return *(const vec_anywhere *)p; }

static inline void store(real *p, vec v) { *(vec_anywhere *)p = v; }

/* A streaming (non-temporal) store to a multiple of VECTOR_BYTES: it neither reads the line first nor keeps it in the
 * caches. A plain store where the level has none. Call `streaming_fence` before another thread reads the data. */
enum { HAS_STREAMING_STORE = VECTOR_BYTES >= 32 };
static inline void store_streaming(real *p, vec v) {
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

static inline void streaming_fence(void) {
#if VECTOR_BYTES >= 32
    _mm_sfence();
#endif
}

static inline vec broadcast(real a) { return a - (vec){0}; }

/* madd in every lane. */
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

/* z <= 0 ? 0 : a in every lane, for ReLU (z is a) and its derivative. MASKS_IN_TILES: whether register tiles apply
 * it. */
enum { MASKS_IN_TILES = VECTOR_BYTES == 64 };
static inline vec vec_relu(vec z, vec a) {
#if defined(__AVX512F__) && REAL_IS_DOUBLE
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(z, (vec){0}, _CMP_NLE_UQ), a);
#elif defined(__AVX512F__)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, (vec){0}, _CMP_NLE_UQ), a);
#else
    (void)z;
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

/* Load the first n lanes, with zeros in the others. Memory past the n-th element is not read. */
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

/* Store the first n lanes. Memory past the n-th element is not written. */
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

/* Load up to LANES elements, with zeros from the n-th on. A loop over all LANES then needs no scalar remainder. */
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
