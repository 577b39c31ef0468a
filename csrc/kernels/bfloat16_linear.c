/* The linear layer with products in bfloat16. Formulas: fastnet/layers/bfloat16_linear.py. */
#define ROUNDED_OPERANDS 1

#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/rows.h"
#include "products/rounded.h"
#include "products/many_rows.h"

_Static_assert((int)ROW_BLOCK * ((int)TILE_COLUMNS + (int)PIECE_ROWS / TILE_ROWS * (int)PACKED_ROWS) <= (int)PANELS_OF_B,
               "packed operands of a piece reach its sums");

PRODUCT_KERNEL(bfloat16_linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {w, O, 1}, y, O, b, 0, 1, call, y, 0});
}

KERNEL(bfloat16_pairs_forward, OUT_AS(int64_t, p), IN(w)) {
    const int64_t I = call->size[0], O = call->size[1], pairs = (I + 1) / 2;
    SHARED(r, call, pairs, grain(1, 2 * O))
        pack_pairs((uint32_t *)p, w, I, O, r.begin, r.end);
}

PRODUCT_KERNEL(bfloat16_pairs_linear_forward, OUT(y), IN(x), IN_AS(int64_t, p), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {(const real *)p, 0, 0}, y, O, b, 0, 1, call, y, 0});
}

/* dw = xᵀ·dy with the update of w interleaved. Returns 0, with nothing done, where that is impossible or does not pay;
 * the conditions are those of linear.c, but that both operands are always packed. */
static __attribute__((noinline)) int interleave_update(const fn_call *call, real *dw, const real *dy, const real *x) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    update_queue queue;
    if (B < MIN_INTERLEAVED_K || lanes_along(B) > LANES_OF_BLOCK || I < INTERLEAVED_ROWS || O < TILE_COLUMNS ||
        (call->member && I <= O) || !take_update(call, dw, I * O, &queue))
        return 0;
    call->update->queue = &queue;
    together(call); /* until no member reads w any more */
    gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, 0, 0, call, NULL, 0});
    call->update->queue = NULL;
    return 1;
}

PRODUCT_KERNEL(bfloat16_linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN_UNDER(w)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (dx) /* dy·wᵀ */
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, 1, O}, dx, I, NULL, 0, 1, call, dx, 0});
    if (dw && B > MANY_ROWS)
        product_of_many_rows(call, B, I, O, dw, dy, O, x, I);
    else if (dw && !(INTERLEAVES_UPDATES && exceeds_cache(I * O) && !accumulate && interleave_update(call, dw, dy, x)))
        gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, accumulate, 0, call, NULL, 0}); /* xᵀ·dy */
    if (db)
        SHARED(r, call, O, grain(4 * WIDTH, B)) {
            if (B > MANY_ROWS)
                sum_many_rows(db, dy, B, O, r, accumulate);
            else
                sum_rows(db, dy, B, O, r, accumulate);
        }
}
