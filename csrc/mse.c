/* Mean squared error. Formulas: fastnet/losses/mse.py. */
#include "kernel.h"
#include "reduce.h"
#include "simd.h"

static inline void add_squares(double sum[LANES], const real *y, const real *t) {
    for (int l = 0; l < LANES; l++) {
        const real error = y[l] - t[l];
        sum[l] += (double)(error * error);
    }
}

KERNEL(mse_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), IN(y), IN(t)) {
    const int64_t N = call->size[0];
    for (int64_t b = 0; b < call->rows; b++, y += N, t += N) {
        double sum[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= N; i += LANES)
            add_squares(sum, y + i, t + i);
        if (i < N) {
            real last_y[LANES], last_t[LANES];
            load_lanes(last_y, y + i, N - i);
            load_lanes(last_t, t + i, N - i);
            add_squares(sum, last_y, last_t);
        }
        row_loss[b] = lanes_sum_double(sum) / (double)N;
    }
    loss[0] = mean_of(row_loss, call->rows);
}

KERNEL(mse_vjp, OUT(dy), IN(y), IN(t)) {
    const int64_t n = call->rows * call->size[0];
    const real factor = (real)(2.0 / (double)n);
    for (int64_t i = 0; i < n; i++)
        dy[i] = (y[i] - t[i]) * factor;
}
