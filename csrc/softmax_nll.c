/* Softmax and negative log-likelihood in one. Formulas: fastnet/losses/softmax_nll.py. */
#include <string.h>

#include "elementary.h"
#include "kernel.h"
#include "reduce.h"

static inline real row_max(const real *z, int64_t C) {
    real lane[LANES];
    for (int l = 0; l < LANES; l++)
        lane[l] = -REAL_FN(inf)();
    int64_t c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = z[c + l] > lane[l] ? z[c + l] : lane[l];
    for (int l = 0; c + l < C; l++)
        lane[l] = z[c + l] > lane[l] ? z[c + l] : lane[l];
    return lanes_max(lane);
}

/* p = e^(z − top); returns its sum. Every sixteen columns pass through a buffer, so that a row that
 * ends within a vector needs no scalar code: e^−∞ adds nothing. */
static inline real row_exp(real *p, const real *z, int64_t C, real top) {
    real lane[LANES] = {0};
    for (int64_t c = 0; c < C; c += LANES) {
        const size_t here = (size_t)smaller(LANES, C - c) * sizeof(real);
        real e[LANES];
        if (C - c < LANES)
            for (int l = 0; l < LANES; l++)
                e[l] = -REAL_FN(inf)();
        memcpy(e, z + c, here);
        for (int l = 0; l < LANES; l++) {
            e[l] = real_exp(e[l] - top);
            lane[l] += e[l];
        }
        memcpy(p + c, e, here);
    }
    return lanes_sum(lane);
}

KERNEL(softmax_nll_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), OUT(p), IN(z),
       IN_AS(int64_t, t)) {
    const int64_t C = call->size[0];
    for (int64_t b = 0; b < call->rows; b++, p += C, z += C) {
        /* A NaN that the maximum overlooks is met again by the sum. */
        const real top = row_max(z, C), total = row_exp(p, z, C, top);
        for (int64_t c = 0; c < C; c++)
            p[c] /= total;
        row_loss[b] = (double)(real_log(total) - (z[t[b]] - top));
    }
    loss[0] = mean_of(row_loss, call->rows);
}

KERNEL(softmax_nll_vjp, OUT(dz), IN(p), IN_AS(int64_t, t)) {
    const int64_t B = call->rows, C = call->size[0];
    for (int64_t i = 0; i < B * C; i++)
        dz[i] = p[i] / (real)B;
    for (int64_t b = 0; b < B; b++)
        dz[b * C + t[b]] -= (real)(1.0 / (double)B);
}
