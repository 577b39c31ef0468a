/* The weight gradient of more than MANY_ROWS rows: for each piece, a compensated sum of the products of blocks of
 * rows. Include products/gemm.h before, or products/rounded.h for the `gemm` of rounded operands. */
#ifndef FASTNET_MANY_ROWS_H
#define FASTNET_MANY_ROWS_H

#include "engine/share.h"
#include "lib/rows.h"
#include "products/product.h"

/* A piece of dw is so small that its product never packs A. Scratch memory behind the panels of B is then free for the
 * compensated sum. */
enum { PIECE_ROWS = 4 * TILE_ROWS, PIECE_COLUMNS = 8 * TILE_COLUMNS, PIECE = PIECE_ROWS * PIECE_COLUMNS };
_Static_assert((int)PIECE_ROWS < (int)COLUMNS_FOR_COLUMNS_OF_A, "A is packed where the product is transposed");
_Static_assert((int)PIECE_COLUMNS < (int)COLUMNS_FOR_COLUMNS_OF_A, "A is packed");
_Static_assert(((int)PANELS_OF_B + 3 * (int)PIECE) * (int)sizeof(real) <= FN_SCRATCH, "no room for the sums");

/* dw (I, O) = xᵀ·dy for B rows of x and dy, which lie ldx and ldy numbers apart. */
static inline void product_of_many_rows(const fn_call *call, int64_t B, int64_t I, int64_t O, real *dw, const real *dy,
                                        int64_t ldy, const real *x, int64_t ldx) {
    const int64_t across = quotient_up(O, PIECE_COLUMNS);
    real *const block = (real *)call->scratch + PANELS_OF_B, *const total = block + PIECE, *const lost = total + PIECE;
    fn_call alone = *call; /* the team shares pieces, not the products within one */
    alone.member = NULL;
    alone.next_rows = NULL;
    SHARED(r, call, quotient_up(I, PIECE_ROWS) * across, 1)
        for (int64_t piece = r.begin; piece < r.end; piece++) {
            const int64_t i = piece / across * PIECE_ROWS, j = piece % across * PIECE_COLUMNS;
            const int64_t M = smaller(PIECE_ROWS, I - i), N = smaller(PIECE_COLUMNS, O - j);
            memset(total, 0, 2 * PIECE * sizeof(real)); /* and `lost` */
            for (int64_t b = 0; b < B; b += ROW_BLOCK) {
                gemm(&alone, (product){M, N, smaller(ROW_BLOCK, B - b), {x + b * ldx + i, 1, ldx},
                                       {dy + b * ldy + j, ldy, 1}, block, N, NULL, 0, 0, &alone, NULL, 0});
                for (int64_t e = 0; e < M * N; e += WIDTH) {
                    vec sum = load(total + e), rest = load(lost + e);
                    add_block(&sum, &rest, load(block + e));
                    store(total + e, sum);
                    store(lost + e, rest);
                }
            }
            for (int64_t k = 0; k < M; k++)
                for (int64_t l = 0; l < N; l += WIDTH) {
                    real *const into = dw + (i + k) * O + j + l;
                    const int64_t n = N - l, e = k * N + l;
                    const vec sum = with_lost(load_first(total + e, n), load_first(lost + e, n));
                    store_first(into, call->accumulate ? load_first(into, n) + sum : sum, n);
                }
        }
}

#endif
