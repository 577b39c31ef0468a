/* Negative log-likelihood of targets under Gaussians with predicted mean and variance. Formulas:
 * fastnet/losses/gaussian.py. */
#include "engine/share.h"
#include "lib/elementary.h"

static inline real at_least(real variance, real eps) { return variance < eps ? eps : variance; }

KERNEL(gaussian_nll_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const int64_t N = call->size[0], T = call->size[1], half = N / 2, count = smaller(half, T);
    const real eps = (real)call->scalar[0], offset = (real)call->scalar[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *mean = y + b * N, *variance = mean + half, *wanted = t + b * T;
            double sum = 0;
            for (int64_t j = 0; j < count; j += LANES) {
                const int64_t n = smaller(LANES, count - j);
                real s[LANES], logs[LANES];
                for (int64_t l = 0; l < n; l++)
                    s[l] = at_least(variance[j + l], eps);
                map(logs, s, n, real_log);
                for (int64_t l = 0; l < n; l++) {
                    const real e = wanted[j + l] - mean[j + l];
                    const real ratio = e / REAL_FN(sqrt)(s[l]);
                    sum += (double)((real)0.5 * (logs[l] + ratio * ratio) + offset);
                }
            }
            row_loss[b] = sum / call->scalar[2];
        }
}

KERNEL(gaussian_nll_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const int64_t N = call->size[0], T = call->size[1], half = N / 2, count = smaller(half, T);
    const real eps = (real)call->scalar[0];
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *mean = y + b * N, *variance = mean + half, *wanted = t + b * T;
            const real share = (real)(drow_loss[b] / call->scalar[2]);
            real *d = dy + b * N;
            for (int64_t j = 0; j < N; j++)
                d[j] = 0;
            for (int64_t j = 0; j < count; j++) {
                const real s = at_least(variance[j], eps), ratio = (wanted[j] - mean[j]) / s;
                const real root = 1 / REAL_FN(sqrt)(s);
                d[j] = -ratio * share;
                d[half + j] = (real)0.5 * (root - ratio) * (root + ratio) * share;
            }
        }
}
