/* C = A·B (+ C) (+ bias): the one family of matrix products.
 *
 * A tile of TILE_ROWS × 2 vectors of C lives in registers while k runs over a block of BLOCK_K. Every
 * element of C adds its products one by one in the order of k, by fused multiply-adds from zero or
 * from what is there; between blocks C itself is the accumulator, and the bias comes last. So its
 * bits depend neither on the sizes of the tiles nor on the element's place.
 *
 * Strides make the transposed products: A may be read by columns as well as by rows. B is read in
 * place by rows, or else through a panel on the stack: where its columns are not contiguous, where
 * they do not fill the vectors, or where enough rows of A share the panel. C may be written
 * transposed, through a tile on the stack.
 */
#ifndef FASTNET_GEMM_H
#define FASTNET_GEMM_H

#include "simd.h"

enum {
    TILE_COLUMNS = 2 * WIDTH,
    BLOCK_K = 192,       /* a panel of B takes 24 kB with 64-byte vectors */
    ROWS_TO_PACK_FOR = 32 /* fewer rows do not repay the copy of B */
};

/* Element (i, j) of a matrix is at[i·row + j·column]. */
typedef struct {
    const real *at;
    int64_t row, column;
} matrix;

typedef struct {
    real *at;
    int64_t row, column;
} matrix_out;

/* One tile: `rows` and `vectors` are constants where it is inlined. n columns of C exist, b has
 * whole vectors, bias is NULL until the last block. */
static inline __attribute__((always_inline)) void tile(const int rows, const int vectors, int64_t K,
                                                       matrix a, const real *b, int64_t b_row,
                                                       real *c, int64_t c_row, int64_t n,
                                                       const real *bias, int reload) {
    vec sum[TILE_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[i][v] = reload ? load_first(c + i * c_row + v * WIDTH, n - v * WIDTH) : (vec){0};
    for (int64_t k = 0; k < K; k++) {
        const vec b0 = load(b + k * b_row), b1 = vectors > 1 ? load(b + k * b_row + WIDTH) : b0;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vec x = broadcast(a.at[i * a.row + k * a.column]);
            sum[i][0] = vec_madd(x, b0, sum[i][0]);
            if (vectors > 1)
                sum[i][1] = vec_madd(x, b1, sum[i][1]);
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
        const vec shift = bias ? load_first(bias + v * WIDTH, n - v * WIDTH) : (vec){0};
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            store_first(c + i * c_row + v * WIDTH, bias ? sum[i][v] + shift : sum[i][v],
                        n - v * WIDTH);
    }
}

/* The tile of the given size, each compiled with its size as a constant. */
static void any_tile(int rows, int vectors, int64_t K, matrix a, const real *b, int64_t b_row,
                     real *c, int64_t c_row, int64_t n, const real *bias, int reload) {
#define TILE(rows)                                                                                 \
    case rows:                                                                                     \
        if (vectors > 1)                                                                           \
            tile(rows, 2, K, a, b, b_row, c, c_row, n, bias, reload);                              \
        else                                                                                       \
            tile(rows, 1, K, a, b, b_row, c, c_row, n, bias, reload);                              \
        break;
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3)
        TILE(4)
        TILE(5)
        TILE(6)
#if TILE_ROWS > 6
        TILE(7)
        TILE(8)
        TILE(9)
        TILE(10)
        TILE(11)
        TILE(12)
#endif
#if TILE_ROWS > 12
        TILE(13)
        TILE(14)
#endif
    }
#undef TILE
}

/* Copy K rows of n columns of b to a panel of rows of `width`, zeros behind the n-th. */
static inline void pack(real *panel, matrix b, int64_t K, int64_t n, int64_t width) {
    if (b.column == 1) {
        for (int64_t k = 0; k < K; k++)
            for (int64_t j = 0; j < width; j += WIDTH)
                store(panel + k * width + j, load_first(b.at + k * b.row + j, n - j));
        return;
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t k = 0; k < K; k++)
            panel[k * width + j] = b.at[k * b.row + j * b.column];
    for (int64_t k = 0; n < width && k < K; k++)
        for (int64_t j = n; j < width; j++)
            panel[k * width + j] = 0;
}

static inline matrix part(matrix m, int64_t i, int64_t j) {
    return (matrix){m.at + i * m.row + j * m.column, m.row, m.column};
}

/* C (M, N) = A (M, K) · B (K, N), plus C itself if accumulate, plus bias (N) unless NULL. */
static void gemm(int64_t M, int64_t N, int64_t K, matrix a, matrix b, matrix_out c,
                 const real *bias, int accumulate) {
    real panel[BLOCK_K * TILE_COLUMNS] __attribute__((aligned(64)));
    real turned[TILE_ROWS * TILE_COLUMNS] __attribute__((aligned(64)));
    const int64_t tiles = (M + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t step = tiles ? (M + tiles - 1) / tiles : 1; /* even tiles: no thin last one */
    for (int64_t k0 = 0; k0 == 0 || k0 < K; k0 += BLOCK_K) {
        const int64_t k_here = smaller(BLOCK_K, K - k0);
        const int reload = accumulate || k0 > 0;
        const real *bias_here = k0 + BLOCK_K >= K ? bias : NULL;
        for (int64_t j0 = 0; j0 < N; j0 += TILE_COLUMNS) {
            const int64_t n = smaller(TILE_COLUMNS, N - j0);
            const int vectors = n > WIDTH ? 2 : 1;
            matrix here = part(b, k0, j0);
            if (here.column != 1 || n < vectors * WIDTH || M >= ROWS_TO_PACK_FOR) {
                pack(panel, here, k_here, n, vectors * WIDTH);
                here = (matrix){panel, vectors * WIDTH, 1};
            }
            for (int64_t i0 = 0; i0 < M; i0 += step) {
                const int rows = (int)smaller(step, M - i0);
                real *to = c.at + i0 * c.row + j0 * c.column;
                if (c.column == 1) {
                    any_tile(rows, vectors, k_here, part(a, i0, k0), here.at, here.row, to, c.row,
                             n, bias_here ? bias_here + j0 : NULL, reload);
                    continue;
                }
                for (int64_t j = 0; reload && j < n; j++)
                    for (int i = 0; i < rows; i++)
                        turned[i * TILE_COLUMNS + j] = to[i * c.row + j * c.column];
                any_tile(rows, vectors, k_here, part(a, i0, k0), here.at, here.row, turned,
                         TILE_COLUMNS, n, bias_here ? bias_here + j0 : NULL, reload);
                for (int64_t j = 0; j < n; j++)
                    for (int i = 0; i < rows; i++)
                        to[i * c.row + j * c.column] = turned[i * TILE_COLUMNS + j];
            }
        }
    }
}

#endif
