/* A trained factor, a trained summand, or both, for each column. Formulas: fastnet/layers/scale.py. */
#include "engine/share.h"
#include "lib/columns.h"
#include "lib/rows.h"

INLINED void scale_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *y, const real *x,
                         const real *w, const real *b) {
    const int64_t B = call->rows, N = call->size[0];
    vec factor[MOST], summand[MOST];
    for (int v = 0; v < vectors; v++) {
        factor[v] = part_or(w, j, v, n, 1);
        summand[v] = part_or(b, j, v, n, 0);
    }
    for (int64_t at = j; at < B * N; at += N)
        for (int v = 0; v < vectors; v++) {
            const vec of_x = part(x + at, v, n);
            put_part(y + at, v, n, !b   ? of_x * factor[v]
                                   : !w ? of_x + summand[v]
                                        : vec_madd(of_x, factor[v], summand[v]));
        }
    apply_epilogue(call, j, N, B, n);
}

FUSING_KERNEL(scale_forward, OUT_OVER(y), IN_UNDER(x), IN(w)) {
    BY_BLOCKS(scale_block, call, y, x, w, NULL)
}

FUSING_KERNEL(shift_forward, OUT_OVER(y), IN_UNDER(x), IN(b)) {
    BY_BLOCKS(scale_block, call, y, x, NULL, b)
}

FUSING_KERNEL(affine_forward, OUT_OVER(y), IN_UNDER(x), IN(w), IN(b)) {
    BY_BLOCKS(scale_block, call, y, x, w, b)
}

/* dx = dy·w and dw = Σ_rows dy·x; without x, dx = dy and dw = Σ_rows dy. NULL: it is not wanted. */
INLINED void scale_vjp_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *dx, real *dw,
                             const real *dy, const real *x, const real *w) {
    const int64_t B = call->rows, N = call->size[0], block = rows_of_block(B);
    vec own[MOST], total[MOST], lost[MOST], sum[MOST];
    for (int v = 0; v < vectors; v++) {
        own[v] = part_or(w, j, v, n, 1);
        total[v] = lost[v] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        for (int v = 0; v < vectors; v++)
            sum[v] = (vec){0};
        for (int64_t b = b0, at = b0 * N + j; b < smaller(b0 + block, B); b++, at += N)
            for (int v = 0; v < vectors; v++) {
                const vec d = part(dy + at, v, n); /* dx may be written over it */
                if (dw)
                    sum[v] = x ? vec_madd(d, part(x + at, v, n), sum[v]) : sum[v] + d;
                if (dx)
                    put_part(dx + at, v, n, w ? d * own[v] : d);
            }
        for (int v = 0; v < vectors; v++)
            add_block(&total[v], &lost[v], sum[v]);
    }
    for (int v = 0; v < vectors; v++)
        total[v] = with_lost(total[v], lost[v]);
    put_gradient(dw, j, n, vectors, total, call->accumulate);
}

KERNEL(scale_vjp, OUT_OVER(dx), IN_UNDER(dy), OUT(dw), IN(x), IN(w)) {
    BY_BLOCKS(scale_vjp_block, call, dx, dw, dy, x, w)
}

KERNEL(shift_vjp, OUT_OVER(dx), IN_UNDER(dy), OUT(db)) {
    real *const to = dx == dy ? NULL : dx; /* in place nothing is left to do for dx */
    BY_BLOCKS(scale_vjp_block, call, to, db, dy, NULL, NULL)
}

/* dx = dy·w, dw = Σ_rows dy·x and db = Σ_rows dy in one pass. NULL: it is not wanted. */
INLINED void affine_vjp_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *dx, real *dw,
                              real *db, const real *dy, const real *x, const real *w) {
    const int64_t B = call->rows, N = call->size[0], block = rows_of_block(B);
    vec own[MOST], total[2][MOST], lost[2][MOST], sum[2][MOST];
    for (int v = 0; v < vectors; v++) {
        own[v] = part_or(w, j, v, n, 1);
        for (int k = 0; k < 2; k++)
            total[k][v] = lost[k][v] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        for (int v = 0; v < vectors; v++)
            sum[0][v] = sum[1][v] = (vec){0};
        for (int64_t b = b0, at = b0 * N + j; b < smaller(b0 + block, B); b++, at += N)
            for (int v = 0; v < vectors; v++) {
                const vec d = part(dy + at, v, n); /* dx may be written over it */
                if (dw)
                    sum[0][v] = vec_madd(d, part(x + at, v, n), sum[0][v]);
                sum[1][v] += d;
                if (dx)
                    put_part(dx + at, v, n, d * own[v]);
            }
        for (int v = 0; v < vectors; v++)
            for (int k = 0; k < 2; k++)
                add_block(&total[k][v], &lost[k][v], sum[k][v]);
    }
    for (int v = 0; v < vectors; v++)
        for (int k = 0; k < 2; k++)
            total[k][v] = with_lost(total[k][v], lost[k][v]);
    put_gradient(dw, j, n, vectors, total[0], call->accumulate);
    put_gradient(db, j, n, vectors, total[1], call->accumulate);
}

KERNEL(affine_vjp, OUT_OVER(dx), IN_UNDER(dy), OUT(dw), OUT(db), IN(x), IN(w)) {
    BY_BLOCKS(affine_vjp_block, call, dx, dw, db, dy, x, w)
}
