/* The linear layer. Formulas: fastnet/layers/linear.py. */
#include "gemm.h"
#include "kernel.h"
#include "share.h"

PRODUCT_KERNEL(linear_forward, OUT(y), IN(x), IN(w), IN(b)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    gemm(call, (product){B, O, I, {x, I, 1}, {w, O, 1}, y, O, b, 0, 1, call, y, 0});
}

/* The sums of n columns, at most so many vectors of them; each adds its rows in order. */
static inline __attribute__((always_inline)) void
sum_columns(const int vectors, real *into, const real *from, int64_t rows, int64_t columns,
            int64_t n, int accumulate) {
    vec sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = accumulate ? load_first(into + v * WIDTH, n - v * WIDTH) : (vec){0};
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[v] += load_first(from + r * columns + v * WIDTH, n - v * WIDTH);
    for (int v = 0; v < vectors; v++)
        store_first(into + v * WIDTH, sum[v], n - v * WIDTH);
}

static inline void sum_rows(real *into, const real *from, int64_t rows, int64_t columns,
                            fn_range part, int accumulate) {
    int64_t j = part.begin;
    for (; j + 4 * WIDTH <= part.end; j += 4 * WIDTH)
        sum_columns(4, into + j, from + j, rows, columns, 4 * WIDTH, accumulate);
    for (; j < part.end; j += WIDTH)
        sum_columns(1, into + j, from + j, rows, columns, part.end - j, accumulate);
}

/* dw = xᵀ·dy, with the update of w beside it; 0: that cannot be, and dw is still to be computed. */
static __attribute__((noinline)) int update_beside(const fn_call *call, real *dw, const real *dy, const real *x) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    pending todo;
    /* Several blocks of k would end no row before the last one; a team's parts must be whole rows; where dy is packed and
     * x is not, so would dy be for every few rows. */
    if (B < LEAST_K_BESIDE || B > BLOCK_K || I < ROWS_BESIDE || O < TILE_COLUMNS || (call->member && I <= O) ||
        (I < FAR && O >= FAR) ||
        !takes_update(call, dw, I * O, &todo))
        return 0;
    call->update->pending = &todo;
    together(call); /* nobody reads w any more */
    gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, 0, 0, call, NULL, 0});
    call->update->pending = NULL;
    return 1;
}

PRODUCT_KERNEL(linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN_UNDER(w)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (dx) /* dy·wᵀ */
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, 1, O}, dx, I, NULL, 0, 1, call, dx, 0});
    if (dw && !(UPDATES_BESIDE && exceeds_cache(I * O) && !accumulate && update_beside(call, dw, dy, x)))
        gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, accumulate, 0, call, /* xᵀ·dy */
                             NULL, 0});
    if (db)
        SHARED(r, call, O, grain(4 * WIDTH, B))
            sum_rows(db, dy, B, O, r, accumulate);
}
