/* Batch normalisation over the rows. Formulas: fastnet/layers/batchnorm.py. Columns are taken in
 * blocks whose sums stay on the stack; each column adds its rows in order. */
#include "kernel.h"

enum { BLOCK = 64 };

KERNEL(batchnorm_forward, OUT(y), OUT(mean), OUT(rstd), INOUT(running_mean), INOUT(running_var),
       INOUT_AS(int64_t, batches), IN(x), IN(gamma), IN(beta)) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0], momentum = (real)call->scalar[1];
    const real unbiased = (real)((double)B / (double)(B - 1));
    for (int64_t j0 = 0; j0 < N; j0 += BLOCK) {
        const int64_t n = smaller(BLOCK, N - j0);
        real sum[BLOCK] = {0}, squares[BLOCK] = {0};
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < n; j++)
                sum[j] += x[b * N + j0 + j];
        for (int64_t j = 0; j < n; j++)
            mean[j0 + j] = sum[j] / (real)B;
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < n; j++) {
                const real centred = x[b * N + j0 + j] - mean[j0 + j];
                squares[j] += centred * centred;
            }
        for (int64_t j = 0; j < n; j++) {
            const real variance = squares[j] / (real)B;
            rstd[j0 + j] = 1 / REAL_FN(sqrt)(variance + eps);
            running_mean[j0 + j] += momentum * (mean[j0 + j] - running_mean[j0 + j]);
            running_var[j0 + j] += momentum * (variance * unbiased - running_var[j0 + j]);
        }
    }
    for (int64_t b = 0; b < B; b++, x += N, y += N)
        if (gamma)
            for (int64_t j = 0; j < N; j++)
                y[j] = (x[j] - mean[j]) * rstd[j] * gamma[j] + beta[j];
        else
            for (int64_t j = 0; j < N; j++)
                y[j] = (x[j] - mean[j]) * rstd[j];
    batches[0]++;
}

/* Σ dy and Σ dy·x̂ over the rows, with x̂ = (x − mean)·rstd, of the n columns at these pointers. */
static inline void column_sums(real *sum_dy, real *sum_dy_xhat, const real *dy, const real *x,
                               const real *mean, const real *rstd, int64_t B, int64_t N, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        sum_dy[j] = sum_dy_xhat[j] = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < n; j++) {
            const real d = dy[b * N + j];
            sum_dy[j] += d;
            sum_dy_xhat[j] += d * ((x[b * N + j] - mean[j]) * rstd[j]);
        }
}

/* Write or add the n gradients of a parameter that is wanted. */
static inline void put(real *into, const real *from, int64_t n, int64_t accumulate) {
    if (into)
        for (int64_t j = 0; j < n; j++)
            into[j] = accumulate ? into[j] + from[j] : from[j];
}

static inline void put_parameters(real *dgamma, real *dbeta, const real *sum_dy,
                                  const real *sum_dy_xhat, int64_t j0, int64_t n,
                                  int64_t accumulate) {
    put(dgamma ? dgamma + j0 : dgamma, sum_dy_xhat, n, accumulate);
    put(dbeta ? dbeta + j0 : dbeta, sum_dy, n, accumulate);
}

KERNEL(batchnorm_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(mean), IN(rstd), IN(x),
       IN(gamma)) {
    const int64_t B = call->rows, N = call->size[0];
    for (int64_t j0 = 0; j0 < N; j0 += BLOCK) {
        const int64_t n = smaller(BLOCK, N - j0);
        real sum_dy[BLOCK], sum_dy_xhat[BLOCK], scale[BLOCK];
        column_sums(sum_dy, sum_dy_xhat, dy + j0, x + j0, mean + j0, rstd + j0, B, N, n);
        put_parameters(dgamma, dbeta, sum_dy, sum_dy_xhat, j0, n, call->accumulate);
        if (!dx)
            continue;
        for (int64_t j = 0; j < n; j++) {
            scale[j] = gamma ? gamma[j0 + j] * rstd[j0 + j] : rstd[j0 + j];
            sum_dy[j] /= (real)B;
            sum_dy_xhat[j] /= (real)B;
        }
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < n; j++) {
                const int64_t at = b * N + j0 + j;
                const real xhat = (x[at] - mean[j0 + j]) * rstd[j0 + j];
                dx[at] = scale[j] * (dy[at] - sum_dy[j] - xhat * sum_dy_xhat[j]);
            }
    }
}

KERNEL(batchnorm_inference_forward, OUT(y), IN(x), IN(gamma), IN(beta), IN(running_mean),
       IN(running_var)) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0];
    for (int64_t j0 = 0; j0 < N; j0 += BLOCK) {
        const int64_t n = smaller(BLOCK, N - j0);
        real rstd[BLOCK], scale[BLOCK], shift[BLOCK];
        for (int64_t j = 0; j < n; j++) {
            rstd[j] = 1 / REAL_FN(sqrt)(running_var[j0 + j] + eps);
            scale[j] = gamma ? gamma[j0 + j] : 1;
            shift[j] = beta ? beta[j0 + j] : 0;
        }
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < n; j++) {
                const int64_t at = b * N + j0 + j;
                y[at] = (x[at] - running_mean[j0 + j]) * rstd[j] * scale[j] + shift[j];
            }
    }
}

KERNEL(batchnorm_inference_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(x), IN(gamma),
       IN(running_mean), IN(running_var)) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0];
    for (int64_t j0 = 0; j0 < N; j0 += BLOCK) {
        const int64_t n = smaller(BLOCK, N - j0);
        real sum_dy[BLOCK], sum_dy_xhat[BLOCK], rstd[BLOCK];
        for (int64_t j = 0; j < n; j++)
            rstd[j] = 1 / REAL_FN(sqrt)(running_var[j0 + j] + eps);
        if (dgamma || dbeta) {
            column_sums(sum_dy, sum_dy_xhat, dy + j0, x + j0, running_mean + j0, rstd, B, N, n);
            put_parameters(dgamma, dbeta, sum_dy, sum_dy_xhat, j0, n, call->accumulate);
        }
        if (!dx)
            continue;
        for (int64_t j = 0; j < n; j++)
            rstd[j] *= gamma ? gamma[j0 + j] : 1;
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < n; j++)
                dx[b * N + j0 + j] = dy[b * N + j0 + j] * rstd[j];
    }
}
