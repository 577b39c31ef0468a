/* Softmax fused with the negative log-likelihood. Formulas: fastnet/losses/softmax_nll.py. */
#include "engine/share.h"
#include "lib/softmax.h"

/* At most LANES rows. */
static inline void forward_rows(double *row_loss, real *p, const real *z, const int64_t *t,
                                int64_t rows, int64_t C) {
    real total[LANES], at_label[LANES];
    below_top(p, z, rows, C);
    for (int64_t b = 0; b < rows; b++)
        at_label[b] = p[b * C + t[b]];
    softmax_and_log(p, total, rows, C);
    for (int64_t b = 0; b < rows; b++)
        row_loss[b] = (double)(total[b] - at_label[b]);
}

KERNEL(softmax_nll_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), OUT(p), IN(z),
       IN_AS(int64_t, t)) {
    const int64_t C = call->size[0];
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += LANES)
            forward_rows(row_loss + b, p + b * C, z + b * C, t + b, smaller(LANES, r.end - b), C);
    together(call);
    if (is_first(call))
        loss[0] = mean_of(row_loss, call->rows);
}

KERNEL(softmax_nll_vjp, OUT(dz), IN(p), IN_AS(int64_t, t)) {
    const int64_t C = call->size[0];
    const real share = (real)(1.0 / (double)call->rows);
    SHARED(r, call, call->rows, LANES) {
        for (int64_t i = r.begin * C; i < r.end * C; i++)
            dz[i] = p[i] * share;
        for (int64_t b = r.begin; b < r.end; b++) {
            real *to = dz + b * C;
            to[t[b]] = 0;
            SUM(real, others, C, to[i])
            to[t[b]] = -others;
        }
    }
}
