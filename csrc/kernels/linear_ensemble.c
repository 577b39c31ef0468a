/* A linear layer with weights of its own for each member of an ensemble. Formulas: fastnet/layers/members.py.
 *
 * Member n has the rows n, n + N, …: matrices whose rows lie N apart. */
#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/rows.h"
#include "products/gemm.h"
#include "products/many_rows.h"

/* The rows of member n. */
static inline int64_t rows_of_member(const fn_call *call, int64_t n) {
    const int64_t N = call->size[2];
    return (call->rows + N - 1 - n) / N;
}

KERNEL(linear_ensemble_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t I = call->size[0], O = call->size[1], N = call->size[2];
    for (int64_t n = 0; n < N; n++)
        gemm(call, (product){rows_of_member(call, n), O, I, {x + n * I, N * I, 1}, {w + n * I * O, O, 1}, y + n * O, N * O,
                             b ? b + n * O : NULL, 0, 0, call, NULL, 0});
}

KERNEL(linear_ensemble_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w)) {
    const int64_t I = call->size[0], O = call->size[1], N = call->size[2];
    const int accumulate = call->accumulate != 0;
    for (int64_t n = 0; n < N; n++) {
        const int64_t B = rows_of_member(call, n);
        const real *const slope = dy + n * O, *const from = x + n * I;
        if (dx)
            gemm(call, (product){B, I, O, {slope, N * O, 1}, {w + n * I * O, 1, O}, dx + n * I, N * I, NULL, 0, 0, call,
                                 NULL, 0});
        if (dw && B > MANY_ROWS)
            product_of_many_rows(call, B, I, O, dw + n * I * O, slope, N * O, from, N * I);
        else if (dw)
            gemm(call, (product){I, O, B, {from, 1, N * I}, {slope, N * O, 1}, dw + n * I * O, O, NULL, accumulate, 0,
                                 call, NULL, 0});
        if (db)
            SHARED(r, call, O, grain(4 * WIDTH, B)) {
                if (B > MANY_ROWS)
                    sum_many_rows(db + n * O, slope, B, N * O, r, accumulate);
                else
                    sum_rows(db + n * O, slope, B, N * O, r, accumulate);
            }
    }
}
