/* Softmax of rows, shared by the layer and the losses. */
#ifndef FASTNET_SOFTMAX_H
#define FASTNET_SOFTMAX_H

#include "lib/elementary.h"
#include "lib/reduce.h"

/* y = x − max(x), for each row. The maximum may miss NaN, which then reaches the results by the sum. */
static inline void below_top(real *y, const real *x, int64_t rows, int64_t C) {
    for (int64_t b = 0; b < rows; b++) {
        const real top = max_of(x + b * C, C);
        for (int64_t c = 0; c < C; c++)
            y[b * C + c] = x[b * C + c] - top;
    }
}

/* p = softmax(p), for each row of what `below_top` left. The exponentials are computed over all rows at once, so that
 * vectors are full even with few classes. */
static inline void softmax_below_top(real *p, int64_t rows, int64_t C) {
    map(p, p, rows * C, real_exp_below_0);
    for (int64_t b = 0; b < rows; b++) {
        SUM(real, sum, C, p[b * C + i])
        const real share = 1 / sum;
        for (int64_t c = 0; c < C; c++)
            p[b * C + c] *= share;
    }
}

/* The same for losses, with log_total = log Σ exp for each row. The exponential of the maximum is 1, so the sum is
 * taken without it and log_total is log1p of that: it stays accurate where the other exponentials are tiny. */
static inline void softmax_and_log(real *p, real *log_total, int64_t rows, int64_t C) {
    map(p, p, rows * C, real_exp_below_0);
    for (int64_t b = 0; b < rows; b++) {
        real *at = p + b * C;
        SUM(real, ones, C, at[i] < 1 ? 0 : at[i])
        SUM(real, low, C, at[i] < 1 ? at[i] : 0)
        const real share = 1 / (ones + low);
        for (int64_t c = 0; c < C; c++)
            at[c] *= share;
        log_total[b] = ones - 1 + low;
    }
    map(log_total, log_total, rows, real_log1p);
}

#endif
