/* Mean squared error. Formulas: fastnet/losses/mse.py. */
#include "engine/share.h"
#include "lib/reduce.h"

static inline double squared_error(real y, real t) {
    const real error = y - t;
    return (double)(error * error);
}

/* Inlined, so that N is a constant where it is 1; then the loop over rows is vectorised. */
static inline __attribute__((always_inline)) void row_losses(double *row_loss, const real *y,
                                                             const real *t, int64_t rows,
                                                             int64_t N) {
    for (int64_t b = 0; b < rows; b++) {
        SUM(double, sum, N, squared_error(y[b * N + i], t[b * N + i]))
        row_loss[b] = sum / (double)N;
    }
}

KERNEL(mse_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), IN(y), IN(t)) {
    const int64_t N = call->size[0];
    SHARED(r, call, call->rows, 64) {
        const int64_t at = r.begin * N, rows = r.end - r.begin;
        if (N == 1)
            row_losses(row_loss + r.begin, y + at, t + at, rows, 1);
        else
            row_losses(row_loss + r.begin, y + at, t + at, rows, N);
    }
    together(call);
    if (is_first(call))
        loss[0] = mean_of(row_loss, call->rows);
}

KERNEL(mse_vjp, OUT(dy), IN(y), IN(t)) {
    const int64_t n = call->rows * call->size[0];
    const real factor = (real)(2.0 / (double)n);
    SHARED(r, call, n, 4096)
        for (int64_t i = r.begin; i < r.end; i++)
            dy[i] = (y[i] - t[i]) * factor;
}
