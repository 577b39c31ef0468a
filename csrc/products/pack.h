/* Packing and transposing: operands are copied to the order in which the micro-kernel reads them.
 *
 * A packed panel of B holds, row after row, TILE_COLUMNS elements; a packed tile of A holds its columns one after the
 * other, PACKED_ROWS elements each. A matrix that is contiguous the other way is transposed on the way, in blocks of
 * WIDTH × WIDTH elements in registers.
 */
#ifndef FASTNET_PACK_H
#define FASTNET_PACK_H

#include "lib/simd.h"
#include "products/tile.h"

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

/* Transpose a block: lane j of vector i becomes lane i of vector j. */
static inline __attribute__((always_inline)) void transpose(vec block[WIDTH]) {
#pragma GCC unroll 8
    for (int round = 1; round < WIDTH; round *= 2) {
        vec next[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH / 2; i++) {
            next[2 * i] = interleave_low(block[i], block[i + WIDTH / 2]);
            next[2 * i + 1] = interleave_high(block[i], block[i + WIDTH / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            block[i] = next[i];
    }
}

/* Load a block whose rows are `row` elements apart, and transpose it. HAS_FAST_TRANSPOSE: with fewer shuffles than
 * `transpose` has. */
enum { HAS_FAST_TRANSPOSE = VECTOR_BYTES == 64 && !REAL_IS_DOUBLE };
static inline __attribute__((always_inline)) void load_transposed(vec block[WIDTH], const real *from, int64_t row) {
#if defined(__AVX512F__) && !REAL_IS_DOUBLE
    /* The loads do the work of the first of four rounds of shuffles: each joins halves of rows i and i + 8. */
    const __m512i lower = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i upper = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    const real *fourth[4]; /* unrelated in the compiler's eyes: see `tile` */
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
        block[j] = (vec)_mm512_unpacklo_pd(a, b);
        block[j + 1] = (vec)_mm512_unpackhi_pd(a, b);
        block[j + 2] = (vec)_mm512_unpacklo_pd(c, d);
        block[j + 3] = (vec)_mm512_unpackhi_pd(c, d);
    }
#else
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++)
        block[i] = load(from + i * row);
    transpose(block);
#endif
}

/* `pack` for whole blocks of a matrix that is contiguous by columns. */
static inline __attribute__((always_inline)) void pack_blocks(real *panel, const real *at, int64_t column,
                                                               int64_t K, const int64_t width) {
    for (int64_t j = 0; j < width; j += WIDTH)
        for (int64_t k = 0; k < K; k += WIDTH) {
            vec block[WIDTH];
            load_transposed(block, at + k + j * column, column);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                store(panel + (k + i) * width + j, block[i]);
        }
}

/* Variants for constant arguments would be no faster. */
#if defined(__clang__)
#define ONE_COPY __attribute__((noinline, unused))
#else
#define ONE_COPY __attribute__((noinline, unused, noclone))
#endif

/* Up to this column stride, the columns of a block do not compete for the same cache sets. */
enum { SMALL_STRIDE = HAS_FAST_TRANSPOSE ? 1024 / sizeof(real) : 0 };

/* Pack K rows of n columns of a matrix, whose strides are `row` and `column`. A row of the panel has `width` elements,
 * whole vectors, with zeros from the n-th on. The panel has room for a multiple of WIDTH rows. */
static ONE_COPY void pack(real *panel, const real *at, int64_t row, int64_t column, int64_t K, int64_t n,
                          int64_t width) {
    if (column == 1) {
        for (int64_t k = 0; k < K; k++) {
            const real *from = at + k * row;
            for (int64_t j = 0; j < width; j += WIDTH)
                store(panel + k * width + j, load_first(from + j, n - j));
        }
        return;
    }
    if (column <= SMALL_STRIDE && n == width && K % WIDTH == 0) {
        if (width == WIDTH)
            pack_blocks(panel, at, column, K, WIDTH);
        else
            pack_blocks(panel, at, column, K, 2 * WIDTH);
        return;
    }
    for (int64_t j = 0; j < width; j += WIDTH)
        for (int64_t k = 0; k < K; k += WIDTH) {
            const real *from = at + k + j * column;
            vec block[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                block[i] = j + i < n ? load_first(from + i * column, K - k) : (vec){0};
            transpose(block);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                store(panel + (k + i) * width + j, block[i]);
        }
}

/* Transpose a panel's `rows` rows of n elements back, to columns of C that are ldc apart. */
static __attribute__((unused)) void unpack(real *c, int64_t ldc, const real *panel, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < rows; i += WIDTH)
        for (int64_t j = 0; j < n; j += WIDTH) {
            vec block[WIDTH];
            load_transposed(block, panel + i * TILE_COLUMNS + j, TILE_COLUMNS);
#pragma GCC unroll 16
            for (int k = 0; k < WIDTH; k++)
                if (j + k < n)
                    store_first(c + (j + k) * ldc + i, block[k], rows - i);
        }
}

#endif
