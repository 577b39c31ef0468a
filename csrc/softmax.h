/* Softmax of rows, as the layer and the loss compute it. */
#ifndef FASTNET_SOFTMAX_H
#define FASTNET_SOFTMAX_H

#include "elementary.h"
#include "reduce.h"

/* y = x − the row's maximum, for each row. A NaN that the maximum overlooks is met again by the sum. */
static inline void below_top(real *y, const real *x, int64_t rows, int64_t C) {
    for (int64_t b = 0; b < rows; b++) {
        const real top = max_of(x + b * C, C);
        for (int64_t c = 0; c < C; c++)
            y[b * C + c] = x[b * C + c] - top;
    }
}

/* p = softmax(p), for each row, of what `below_top` left; total: the sums of the exponentials. Each pass
 * runs over all rows, so that few classes fill the vectors as well. */
static inline void softmax_below_top(real *p, real *total, int64_t rows, int64_t C) {
    map(p, p, rows * C, real_exp_below_0);
    for (int64_t b = 0; b < rows; b++) {
        SUM(real, sum, C, p[b * C + i])
        const real share = 1 / sum;
        for (int64_t c = 0; c < C; c++)
            p[b * C + c] *= share;
        total[b] = sum;
    }
}

#endif
