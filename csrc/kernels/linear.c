/* The linear layer. Formulas: fastnet/layers/linear.py. */
#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/rows.h"
#include "products/few_rows.h"
#include "products/gemm.h"

PRODUCT_KERNEL(linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {w, O, 1}, y, O, b, 0, 1, call, y, 0});
}

/* dw = xᵀ·dy with the update of w interleaved. Returns 0, with nothing done, where that is impossible or does not
 * pay. */
static __attribute__((noinline)) int interleave_update(const fn_call *call, real *dw, const real *dy, const real *x) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    update_queue queue;
    /* All of k must be one block: with several, no row of dw is complete before the last one. A team must share dw by
     * rows, as a queue holds whole rows. And dy must not be packed unless x is: each small block of rows would pack it
     * again. */
    if (B < MIN_INTERLEAVED_K || B > BLOCK_K || I < INTERLEAVED_ROWS || O < TILE_COLUMNS || (call->member && I <= O) ||
        (I < LARGE_STRIDE && O >= LARGE_STRIDE) || !take_update(call, dw, I * O, &queue))
        return 0;
    call->update->queue = &queue;
    together(call); /* until no member reads w any more */
    gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, 0, 0, call, NULL, 0});
    call->update->queue = NULL;
    return 1;
}

/* A piece of dw is so small that its product never packs A. Scratch memory behind the panels of B is then free for the
 * compensated sum. */
enum { PIECE_ROWS = 4 * TILE_ROWS, PIECE_COLUMNS = 8 * TILE_COLUMNS, PIECE = PIECE_ROWS * PIECE_COLUMNS };
_Static_assert((int)PIECE_ROWS < (int)COLUMNS_FOR_COLUMNS_OF_A, "A is packed where the product is transposed");
_Static_assert((int)PIECE_COLUMNS < (int)COLUMNS_FOR_COLUMNS_OF_A, "A is packed");
_Static_assert(((int)PANELS_OF_B + 3 * (int)PIECE) * (int)sizeof(real) <= FN_SCRATCH, "no room for the sums");

/* dw = xᵀ·dy for more than MANY_ROWS rows: for each piece, a compensated sum of the products of blocks of rows. */
static inline void product_of_many_rows(const fn_call *call, real *dw, const real *dy, const real *x) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1], across = quotient_up(O, PIECE_COLUMNS);
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
                gemm(&alone, (product){M, N, smaller(ROW_BLOCK, B - b), {x + b * I + i, 1, I}, {dy + b * O + j, O, 1},
                                       block, N, NULL, 0, 0, &alone, NULL, 0});
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

/* Not inlined, so that the kernel stays short for small minibatches. */
static __attribute__((noinline)) void of_many_rows(const fn_call *call, real *dw, real *db, const real *dy,
                                                   const real *x) {
    if (dw)
        product_of_many_rows(call, dw, dy, x);
    if (db)
        SHARED(r, call, call->size[1], grain(4 * WIDTH, call->rows))
            sum_many_rows(db, dy, call->rows, call->size[1], r, call->accumulate != 0);
}

PRODUCT_KERNEL(linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN_UNDER(w)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (B && B <= FEW_ROWS) {
        backward_of_few_rows(call, dx, dw, db, dy, x, w);
        return;
    }
    if (dx) /* dy·wᵀ */
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, 1, O}, dx, I, NULL, 0, 1, call, dx, 0});
    if (B > MANY_ROWS) {
        of_many_rows(call, dw, db, dy, x);
        return;
    }
    if (dw && !(INTERLEAVES_UPDATES && exceeds_cache(I * O) && !accumulate && interleave_update(call, dw, dy, x)))
        gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, accumulate, 0, call, /* xᵀ·dy */
                             NULL, 0});
    if (db)
        SHARED(r, call, O, grain(4 * WIDTH, B))
            sum_rows(db, dy, B, O, r, accumulate);
}
