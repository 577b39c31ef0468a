/* Mean squared error. Formulas: fastnet/losses/mse.py. */
#include "kernel.h"
#include "reduce.h"

static inline double square_of_difference(real a, real b) {
    const real error = a - b;
    return (double)(error * error);
}

KERNEL(mse_forward, OUT_AS(double, loss), OUT_AS(double, row_loss), IN(y), IN(t)) {
    const int64_t N = call->size[0];
    for (int64_t b = 0; b < call->rows; b++, y += N, t += N) {
        double lane[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= N; i += LANES)
            for (int l = 0; l < LANES; l++)
                lane[l] += square_of_difference(y[i + l], t[i + l]);
        for (int l = 0; i + l < N; l++)
            lane[l] += square_of_difference(y[i + l], t[i + l]);
        row_loss[b] = lanes_sum_double(lane) / (double)N;
    }
    loss[0] = mean_of(row_loss, call->rows);
}

KERNEL(mse_vjp, OUT(dy), IN(y), IN(t)) {
    const int64_t n = call->rows * call->size[0];
    const real factor = (real)(2.0 / (double)n);
    for (int64_t i = 0; i < n; i++)
        dy[i] = (y[i] - t[i]) * factor;
}
