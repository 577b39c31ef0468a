/* The linear layer. Formulas: fastnet/layers/linear.py. */
#include "gemm.h"
#include "kernel.h"
#include "share.h"

FINISHING_KERNEL(linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {w, O, 1}, y, O, b, 0, call, y});
}

/* Columns [begin, end) of the sums over the rows; each adds its rows in order. */
static inline void sum_rows(real *into, const real *from, int64_t rows, int64_t columns,
                            fn_range part, int accumulate) {
    for (int64_t j = part.begin; j < part.end; j += 4 * WIDTH) {
        const int64_t n = part.end - j;
        vec sum[4];
        for (int v = 0; v < 4; v++)
            sum[v] = accumulate ? load_first(into + j + v * WIDTH, n - v * WIDTH) : (vec){0};
        if (n >= 4 * WIDTH)
            for (int64_t r = 0; r < rows; r++)
                for (int v = 0; v < 4; v++)
                    sum[v] += load(from + r * columns + j + v * WIDTH);
        else
            for (int64_t r = 0; r < rows; r++)
                for (int v = 0; v < 4; v++)
                    sum[v] += load_first(from + r * columns + j + v * WIDTH, n - v * WIDTH);
        for (int v = 0; v < 4; v++)
            store_first(into + j + v * WIDTH, sum[v], n - v * WIDTH);
    }
}

FINISHING_KERNEL(linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (dx) /* dy·wᵀ */
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, 1, O}, dx, I, NULL, 0, call, dx});
    if (dw) /* xᵀ·dy */
        gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, accumulate, NULL, NULL});
    if (db)
        SHARED(r, call, O, grain(4 * WIDTH, B))
            sum_rows(db, dy, B, O, r, accumulate);
}
