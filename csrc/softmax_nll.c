/* Softmax and negative log-likelihood in one. Formulas: fastnet/losses/softmax_nll.py. */
#include "elementary.h"
#include "kernel.h"
#include "reduce.h"
#include "simd.h"

static inline real row_max(const real *z, int64_t C) {
    real top[LANES], here[LANES];
    for (int l = 0; l < LANES; l++)
        top[l] = -REAL_FN(inf)();
    for (int64_t c = 0; c < C; c += LANES) {
        load_lanes(here, z + c, C - c);
        for (int l = 0; l < LANES; l++)
            top[l] = c + l < C && here[l] > top[l] ? here[l] : top[l];
    }
    return lanes_max(top);
}

/* p = e^(z − top); returns its sum. */
static inline real row_exp(real *p, const real *z, int64_t C, real top) {
    real sum[LANES] = {0}, here[LANES];
    for (int64_t c = 0; c < C; c += LANES) {
        load_lanes(here, z + c, C - c);
        for (int l = 0; l < LANES; l++) {
            const real e = real_exp(here[l] - top);
            here[l] = c + l < C ? e : 0;
            sum[l] += here[l];
        }
        store_lanes(p + c, here, C - c);
    }
    return lanes_sum(sum);
}

static inline void row_divide(real *p, int64_t C, real by) {
    real here[LANES];
    for (int64_t c = 0; c < C; c += LANES) {
        load_lanes(here, p + c, C - c);
        for (int l = 0; l < LANES; l++)
            here[l] /= by;
        store_lanes(p + c, here, C - c);
    }
}

KERNEL(softmax_nll_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), OUT(p), IN(z),
       IN_AS(int64_t, t)) {
    const int64_t C = call->size[0];
    for (int64_t b = 0; b < call->rows; b++, p += C, z += C) {
        /* A NaN that the maximum overlooks is met again by the sum. */
        const real top = row_max(z, C), total = row_exp(p, z, C, top);
        row_divide(p, C, total);
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
