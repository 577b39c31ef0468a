/* x moved towards f(x), by a trained share of the way for each column. Formulas: fastnet/layers/parametric.py. */
#include "engine/share.h"
#include "lib/columns.h"
#include "lib/rows.h"

INLINED void blend_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *y, const real *x,
                         const real *f, const real *a) {
    const int64_t B = call->rows, N = call->size[0];
    vec own[MOST];
    for (int v = 0; v < vectors; v++)
        own[v] = part(a + j, v, n);
    for (int64_t at = j; at < B * N; at += N)
        for (int v = 0; v < vectors; v++) {
            const vec of_x = part(x + at, v, n);
            put_part(y + at, v, n, vec_madd(own[v], part(f + at, v, n) - of_x, of_x));
        }
    apply_epilogue(call, j, N, B, n);
}

FUSING_KERNEL(blend_forward, OUT_OVER(y), IN_UNDER(x), IN(f), IN(a)) {
    BY_BLOCKS(blend_block, call, y, x, f, a)
}

/* NULL: a gradient is not wanted. */
INLINED void blend_vjp_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *dx, real *df,
                             real *da, const real *dy, const real *x, const real *f, const real *a) {
    const int64_t B = call->rows, N = call->size[0], block = rows_of_block(B);
    vec own[MOST], rest[MOST], total[MOST], lost[MOST], sum[MOST];
    for (int v = 0; v < vectors; v++) {
        own[v] = part(a + j, v, n);
        rest[v] = broadcast(1) - own[v];
        total[v] = lost[v] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        for (int v = 0; v < vectors; v++)
            sum[v] = (vec){0};
        for (int64_t b = b0, at = b0 * N + j; b < smaller(b0 + block, B); b++, at += N)
            for (int v = 0; v < vectors; v++) {
                const vec d = part(dy + at, v, n); /* dx may be written over it */
                if (da)
                    sum[v] = vec_madd(d, part(f + at, v, n) - part(x + at, v, n), sum[v]);
                if (df)
                    put_part(df + at, v, n, d * own[v]);
                if (dx)
                    put_part(dx + at, v, n, d * rest[v]);
            }
        for (int v = 0; v < vectors; v++)
            add_block(&total[v], &lost[v], sum[v]);
    }
    for (int v = 0; v < vectors; v++)
        total[v] = with_lost(total[v], lost[v]);
    put_gradient(da, j, n, vectors, total, call->accumulate);
}

KERNEL(blend_vjp, OUT_OVER(dx), IN_UNDER(dy), OUT(df), OUT(da), IN(x), IN(f), IN(a)) {
    BY_BLOCKS(blend_vjp_block, call, dx, df, da, dy, x, f, a)
}
