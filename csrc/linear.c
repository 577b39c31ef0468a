/* The linear layer. Formulas: fastnet/layers/linear.py. */
#include "gemm.h"
#include "kernel.h"
#include "share.h"

KERNEL(linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    if (!is_first(call))
        return;
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(B, O, I, (matrix){x, I, 1}, (matrix){w, O, 1}, (matrix_out){y, O, 1}, b, 0);
}

/* Each column adds its rows in order. */
static inline void sum_rows(real *into, const real *from, int64_t rows, int64_t columns,
                            int accumulate) {
    for (int64_t j0 = 0; j0 < columns; j0 += 4 * WIDTH) {
        const int64_t n = smaller(4 * WIDTH, columns - j0);
        real sum[4 * WIDTH] = {0};
        for (int64_t j = 0; accumulate && j < n; j++)
            sum[j] = into[j0 + j];
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < n; j++)
                sum[j] += from[r * columns + j0 + j];
        for (int64_t j = 0; j < n; j++)
            into[j0 + j] = sum[j];
    }
}

KERNEL(linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w)) {
    if (!is_first(call))
        return;
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    /* dxᵀ = w·dyᵀ, with lanes across the rows: turning the small dy is cheaper than turning w. */
    if (dx)
        gemm(I, B, O, (matrix){w, O, 1}, (matrix){dy, 1, O}, (matrix_out){dx, 1, I}, NULL, 0);
    /* dw = xᵀ·dy, or, where the outputs are few, dwᵀ = dyᵀ·x with lanes across the inputs. */
    if (dw && 2 * O <= WIDTH)
        gemm(O, I, B, (matrix){dy, 1, O}, (matrix){x, I, 1}, (matrix_out){dw, 1, O}, NULL,
             accumulate);
    else if (dw)
        gemm(I, O, B, (matrix){x, 1, I}, (matrix){dy, O, 1}, (matrix_out){dw, O, 1}, NULL,
             accumulate);
    if (db)
        sum_rows(db, dy, B, O, accumulate);
}
