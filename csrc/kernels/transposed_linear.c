/* The linear layer whose weight is stored by outputs. Formulas: fastnet/layers/hierarchical.py.
 *
 * Its products are those of the linear layer with x and dy, or forward and backward, exchanged. */
#include "engine/share.h"
#include "lib/rows.h"
#include "products/gemm.h"

KERNEL(transposed_linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {w, 1, I}, y, O, b, 0, 0, call, NULL, 0});
}

/* dw = dyᵀ·x for more than MANY_ROWS rows: each element adds the sums of blocks of rows in their order. */
static __attribute__((noinline)) void product_by_outputs(const fn_call *call, real *dw, const real *dy, const real *x) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    SHARED(r, call, O, 1 + 4096 / I)
        for (int64_t o = r.begin; o < r.end; o++) {
            real *const to = dw + o * I;
            for (int64_t j = 0; j < I; j += WIDTH) {
                const int64_t n = I - j;
                vec total = {0}, lost = {0};
                for (int64_t first = 0; first < B; first += ROW_BLOCK) {
                    vec sum = {0};
                    for (int64_t b = first; b < smaller(first + ROW_BLOCK, B); b++)
                        sum = vec_madd(broadcast(dy[b * O + o]), load_first(x + b * I + j, n), sum);
                    add_block(&total, &lost, sum);
                }
                const vec sum = with_lost(total, lost);
                store_first(to + j, call->accumulate ? load_first(to + j, n) + sum : sum, n);
            }
        }
}

KERNEL(transposed_linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (dx) /* dy·w */
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, I, 1}, dx, I, NULL, 0, 0, call, NULL, 0});
    if (dw && B > MANY_ROWS)
        product_by_outputs(call, dw, dy, x);
    else if (dw) /* dyᵀ·x */
        gemm(call, (product){O, I, B, {dy, 1, O}, {x, I, 1}, dw, I, NULL, accumulate, 0, call, NULL, 0});
    if (!db)
        return;
    SHARED(r, call, O, grain(4 * WIDTH, B)) {
        if (B > MANY_ROWS)
            sum_many_rows(db, dy, B, O, r, accumulate);
        else
            sum_rows(db, dy, B, O, r, accumulate);
    }
}
