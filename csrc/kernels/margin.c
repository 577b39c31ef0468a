/* Hinge losses of labels. Formulas: fastnet/losses/margin.py. */
#include "engine/share.h"
#include "lib/reduce.h"

enum { MARGIN_ROWS = 16 };

/* max(0, lack)^power; NaN passes through. */
static inline double cost(real lack, int squared) {
    const real z = lack <= 0 ? 0 : lack;
    return (double)(squared ? z * z : z);
}

static inline real slope(real lack, int squared, real share) {
    return lack > 0 ? (squared ? lack * (2 * share) : share) : 0;
}

static inline double row_share(const fn_call *call, const real *v, int64_t label) {
    return (v ? (double)v[label] : 1) / call->scalar[2];
}

/* sum·share, except that ∞·0 is 0. NaN passes through. */
static inline double share_of_sum(double sum, double share) {
    return share != 0 || sum != sum ? sum * share : 0;
}

KERNEL(multi_margin_forward, OUT_AS(double, row_loss), IN(y), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0];
    const int squared = call->scalar[0] == 2;
    const real margin = (real)call->scalar[1];
    SHARED(r, call, call->rows, MARGIN_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *at = y + b * C, own = at[t[b]];
            const int64_t label = t[b];
            SUM(double, sum, C, i == label ? 0 : cost(at[i] - own + margin, squared))
            row_loss[b] = share_of_sum(sum, row_share(call, v, label));
        }
}

KERNEL(multi_margin_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0];
    const int squared = call->scalar[0] == 2;
    const real margin = (real)call->scalar[1];
    SHARED(r, call, call->rows, MARGIN_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *at = y + b * C, own = at[t[b]];
            const real share = (real)(drow_loss[b] * row_share(call, v, t[b]));
            real *d = dy + b * C;
            for (int64_t c = 0; c < C; c++)
                d[c] = slope(at[c] - own + margin, squared, share);
            d[t[b]] = 0;
            SUM(real, sum, C, d[i])
            d[t[b]] = -sum;
        }
}

KERNEL(one_vs_rest_forward, OUT_AS(double, row_loss), IN(y), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0];
    const int squared = call->scalar[0] == 2;
    const real margin = (real)call->scalar[1];
    SHARED(r, call, call->rows, MARGIN_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *at = y + b * C;
            const int64_t label = t[b];
            SUM(double, sum, C, cost(i == label ? margin - at[i] : margin + at[i], squared))
            row_loss[b] = share_of_sum(sum, row_share(call, v, label));
        }
}

KERNEL(one_vs_rest_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0];
    const int squared = call->scalar[0] == 2;
    const real margin = (real)call->scalar[1];
    SHARED(r, call, call->rows, MARGIN_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *at = y + b * C;
            const real share = (real)(drow_loss[b] * row_share(call, v, t[b]));
            real *d = dy + b * C;
            for (int64_t c = 0; c < C; c++)
                d[c] = slope(margin + at[c], squared, share);
            d[t[b]] = -slope(margin - at[t[b]], squared, share);
        }
}
