/* A matrix product as it is asked for, and which way of computing it pays. */
#ifndef FASTNET_PRODUCT_H
#define FASTNET_PRODUCT_H

#include "products/tile.h"

enum {
    FEW_COLUMNS = WIDTH / 4,
    PART = 1 << 16, /* multiply-adds that are worth handing to another thread of the team */

    /* Scratch memory holds two packed panels of B, or one of twice the length, and tiles of A. */
    BLOCK_K = 512,
    PACKED_ROWS = (TILE_ROWS + WIDTH - 1) / WIDTH * WIDTH,
    LONG_BLOCK_K = 2 * BLOCK_K, /* where C is turned, and where B stays in the cache unpacked */
    PANELS_OF_B = 2 * BLOCK_K * TILE_COLUMNS,
    TILE_OF_A = BLOCK_K * PACKED_ROWS,
    TILES_OF_A = (FN_SCRATCH / (int)sizeof(real) - PANELS_OF_B) / TILE_OF_A,

    /* Rows about a page apart crowd into a few sets of the caches, and each needs its own entry in
     * the table of pages. Then C is fetched, as it is where C or B exceed the cache; A repays its copy
     * from so many columns on, read by rows or by columns, and B from so many rows. Measured. */
    FAR = 3584 / sizeof(real),
    COLUMNS_FOR_ROWS_OF_A = 2 * TILE_COLUMNS,
    COLUMNS_FOR_COLUMNS_OF_A = 16 * TILE_COLUMNS,
    ROWS_FOR_B = 256,
    TILES_BESIDE = 16, /* of rows that wait to be updated beside the next, where A is packed or B is large; else 1 */
};

/* C (M, N) = A (M, K) · B (K, N), plus C itself if accumulate, plus bias (N) unless NULL. */
typedef struct {
    int64_t M, N, K;
    matrix a, b;
    real *c;
    int64_t c_row;
    const real *bias;
    int accumulate, finishes; /* whether `finish` is called on each piece of C */
    const fn_call *call;
    const real *origin;       /* element 0 of C, for that */
    int by_columns;           /* C's columns lie c_row apart, not its rows */
} product;

static inline int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline real *element(const product *p, int64_t i, int64_t j) {
    return p->c + (p->by_columns ? i + j * p->c_row : i * p->c_row + j);
}

static inline int is_vector(const product *p) { return p->M == 1 || (p->N == 1 && p->c_row == 1); }

static inline int pays_to_pack_a(matrix a, int64_t N) {
    return (a.row >= FAR && N >= COLUMNS_FOR_ROWS_OF_A) || (a.column >= FAR && N >= COLUMNS_FOR_COLUMNS_OF_A);
}

/* Whether Cᵀ = Bᵀ·Aᵀ, with lanes across the rows of C, is cheaper. */
static inline int pays_to_swap(const product *p) {
    if (p->bias)
        return 0;
    if (is_vector(p)) /* the matrix is read by rows */
        return p->M == 1 ? p->b.column > 1 : p->a.column > 1;
    if (p->b.column == 1) /* fewer lanes are idle */
        return p->a.row == 1 && p->N > FEW_COLUMNS && p->M >= WIDTH &&
               p->K * (WIDTH - p->N) > 8 * p->N;
    if (p->a.column != 1 || p->M % WIDTH)
        return 0;
    if (pays_to_pack_a(transposed(p->b), p->M)) /* which costs more than squares of B */
        return 0;
    const int64_t turns_of_c = 2 * quotient_up(p->K, LONG_BLOCK_K) - 1; /* fewer elements are turned */
    return 2 * p->M * (p->K + turns_of_c * p->N) < p->K * p->N;
}

static inline int pays_to_pack_b(const product *p) {
    return p->b.column != 1 || (p->b.row >= FAR && p->M >= ROWS_FOR_B);
}

/* Whether C has more than a row and a few columns, B and C stay in the caches, and one block of k and of rows is
 * enough. */
static inline int is_plain(const product *p, int large_b, int large_c) {
    return p->M > 1 && p->N > FEW_COLUMNS && !large_b && !large_c && !p->by_columns && p->K <= LONG_BLOCK_K &&
           p->c_row < FAR && !pays_to_pack_a(p->a, p->N);
}

/* The length, a multiple of `unit`, of even parts of n, as few as parts of at most `most` can be. */
static inline int64_t even(int64_t n, int64_t most, int64_t unit) {
    const int64_t part = n <= most ? n : quotient_up(n, quotient_up(n, most));
    return unit == 1 || !part ? part + !part : quotient_up(part, unit) * unit;
}

static inline product rows_of(product p, fn_range r) {
    p.M = r.end - r.begin;
    p.a.at += r.begin * p.a.row;
    p.c = element(&p, r.begin, 0);
    return p;
}

static inline product columns_of(product p, fn_range r) {
    p.N = r.end - r.begin;
    p.b.at += r.begin * p.b.column;
    p.c = element(&p, 0, r.begin);
    p.bias = p.bias ? p.bias + r.begin : NULL;
    return p;
}

/* The least number of rows or columns, a multiple of `unit`, that makes up a thread's part. */
static inline int64_t grain(int64_t unit, int64_t work) {
    return unit * (1 + PART / (unit * (work + 1)));
}

#endif
