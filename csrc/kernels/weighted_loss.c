/* Weighted means and sums of rows' losses. Formulas: fastnet/losses/base.py. */
#include "engine/share.h"
#include "lib/reduce.h"

KERNEL(weighted_loss_forward, OUT_AS(double, loss), OUT_AS(double, scale), IN_AS(double, row_loss),
       IN(w), IN(c)) {
    if (!is_first(call))
        return;
    const int64_t n = call->rows;
    const double mean = call->scalar[0];
    double total = mean < 0 ? -mean : mean > 0 ? (double)n : 1, sum = 0;
    if (mean == 1 && (w || c)) {
        SUM(double, counted, n, (w ? (double)w[i] : 1) * (c ? (double)c[i] : 1))
        total = counted;
    }
    if (w) {
        SUM(double, weighed, n,
            w[i] != 0 || row_loss[i] != row_loss[i] ? (double)w[i] * row_loss[i] : 0)
        sum = weighed;
    } else {
        SUM(double, plain, n, row_loss[i])
        sum = plain;
    }
    scale[0] = total > 0 ? 1 / total : 0;
    loss[0] = total > 0 ? sum / total : sum != sum ? sum : 0;
}

KERNEL(weighted_loss_vjp, OUT_AS(double, drow_loss), IN_AS(double, scale), IN(w)) {
    const double share = scale[0];
    SHARED(r, call, call->rows, 4096)
        for (int64_t b = r.begin; b < r.end; b++)
            drow_loss[b] = w ? (double)w[b] * share : share;
}
