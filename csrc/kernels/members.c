/* Rows for each member of an ensemble, and means over members. Formulas: fastnet/layers/members.py. */
#include "engine/share.h"
#include "lib/elementary.h"

enum { MEMBER_ROWS = 16, MEMBER_COLUMNS = 256 };

KERNEL(spread_forward, OUT(y), IN(x)) {
    const int64_t I = call->size[0], N = call->size[1];
    const real factor = (real)call->scalar[0];
    SHARED(r, call, call->rows, MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t n = 0; n < N; n++)
                for (int64_t i = 0; i < I; i++)
                    y[(b * N + n) * I + i] = x[b * I + i] * factor;
}

KERNEL(sum_members_forward, OUT(y), IN(x)) {
    const int64_t I = call->size[0], N = call->size[1];
    const vec factor = broadcast((real)call->scalar[0]);
    SHARED(r, call, call->rows, MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t i = 0; i < I; i += WIDTH) {
                vec sum = {0};
                for (int64_t n = 0; n < N; n++)
                    sum += load_first(x + (b * N + n) * I + i, I - i);
                store_first(y + b * I + i, sum * factor, I - i);
            }
}

KERNEL(spread_labels_forward, OUT_AS(int64_t, y), IN_AS(int64_t, t)) {
    const int64_t N = call->size[0];
    SHARED(r, call, call->rows, 4 * MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t n = 0; n < N; n++)
                y[b * N + n] = t[b];
}

/* 0 in place of −∞, from which no difference is NaN then. */
ELEMENT or_zero(real x) { return x == -REAL_FN(inf)() ? 0 : x; }

KERNEL(log_mean_exp_forward, OUT(y), IN(x)) {
    const int64_t I = call->size[0], N = call->size[1];
    SHARED(r, call, call->rows, MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t first = 0; first < I; first += MEMBER_COLUMNS) {
                const real *const from = x + b * N * I + first;
                const int64_t width = smaller(MEMBER_COLUMNS, I - first);
                real top[MEMBER_COLUMNS], sum[MEMBER_COLUMNS];
                for (int64_t i = 0; i < width; i++)
                    top[i] = from[i], sum[i] = 0;
                for (int64_t n = 1; n < N; n++)
                    for (int64_t i = 0; i < width; i++)
                        top[i] = from[n * I + i] > top[i] ? from[n * I + i] : top[i];
                for (int64_t i = 0; i < width; i++)
                    top[i] = or_zero(top[i]);
                for (int64_t n = 0; n < N; n++)
                    for (int64_t i = 0; i < width; i++)
                        sum[i] += real_exp_below_0(from[n * I + i] - top[i]);
                for (int64_t i = 0; i < width; i++)
                    y[b * I + first + i] = top[i] + real_log(sum[i] / (real)N);
            }
}

KERNEL(log_mean_exp_vjp, OUT(dx), IN(dy), IN(x), IN(y)) {
    const int64_t I = call->size[0], N = call->size[1];
    SHARED(r, call, call->rows, MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t n = 0; n < N; n++)
                for (int64_t i = 0; i < I; i++) {
                    const int64_t at = (b * N + n) * I + i;
                    dx[at] = dy[b * I + i] * real_exp(x[at] - or_zero(y[b * I + i])) / (real)N;
                }
}

KERNEL(mean_of_losses_forward, OUT_AS(double, row_loss), OUT(count), IN_AS(double, losses), IN(counts)) {
    const int64_t N = call->size[0];
    SHARED(r, call, call->rows, 4 * MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            double total = 0;
            real counted = 0;
            for (int64_t n = 0; n < N; n++) {
                total += losses[b * N + n];
                counted += counts ? counts[b * N + n] : 1;
            }
            row_loss[b] = total / (double)N;
            count[b] = counted / (real)N;
        }
}

KERNEL(mean_of_losses_vjp, OUT_AS(double, dlosses), IN_AS(double, drow_loss)) {
    const int64_t N = call->size[0];
    SHARED(r, call, call->rows, 4 * MEMBER_ROWS)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t n = 0; n < N; n++)
                dlosses[b * N + n] = drow_loss[b] / (double)N;
}
