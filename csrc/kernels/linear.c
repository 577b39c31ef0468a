/* The linear layer. Formulas: fastnet/layers/linear.py. */
#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/rows.h"
#include "products/few_rows.h"
#include "products/gemm.h"
#include "products/many_rows.h"

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

/* Not inlined, so that the kernel stays short for small minibatches. */
static __attribute__((noinline)) void of_many_rows(const fn_call *call, real *dw, real *db, const real *dy,
                                                   const real *x) {
    if (dw)
        product_of_many_rows(call, call->rows, call->size[0], call->size[1], dw, dy, call->size[1], x, call->size[0]);
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
