/* Softmax and its logarithm. Formulas: fastnet/layers/softmax.py. */
#include "engine/share.h"
#include "lib/softmax.h"

KERNEL(softmax_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t C = call->size[0];
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += LANES) {
            const int64_t rows = smaller(LANES, r.end - b);
            below_top(y + b * C, x + b * C, rows, C);
            softmax_below_top(y + b * C, rows, C);
        }
}

/* A row of dx, of LANES columns or more, given `sum`, the sum of its dy·y. Returns that sum for another row. The two
 * computations are interleaved, as the sum alone is limited by the latency of its additions. */
static inline real softmax_vjp_row(real *dx, const real *dy, const real *y, real sum,
                                   const real *other_dy, const real *other_y, int64_t C) {
    real lane[LANES] = {0};
    int64_t c = 0;
    while (c + LANES <= C) {
        enum { AHEAD = 1024 / sizeof(real) };
        const int64_t last = smaller(c + 7 * LANES, C - LANES);
        for (int64_t i = c; i < last + LANES; i += FN_LINE / (int)sizeof(real)) {
            __builtin_prefetch(other_dy + i + AHEAD);
            __builtin_prefetch(other_y + i + AHEAD);
        }
        for (; c <= last; c += LANES) {
            INDEPENDENT
            for (int64_t i = c; i < c + LANES; i++) {
                lane[i - c] += other_dy[i] * other_y[i];
                dx[i] = y[i] * (dy[i] - sum);
            }
        }
    }
    FOLD(lane[l] += lane[l + half]);
    real other = lane[0], d[LANES], p[LANES], term[LANES], factor[LANES];
    load_lanes(d, dy + c, C - c);
    load_lanes(p, y + c, C - c);
    load_lanes(term, other_dy + c, C - c);
    load_lanes(factor, other_y + c, C - c);
    for (int l = 0; l < LANES; l++) {
        d[l] = p[l] * (d[l] - sum);
        term[l] *= factor[l];
    }
    store_lanes(dx + c, d, C - c);
    for (int64_t l = 0; l < C - c; l++)
        other += term[l];
    return other;
}

KERNEL(softmax_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const int64_t C = call->size[0], short_rows = C < LANES;
    SHARED(r, call, call->rows, LANES) {
        for (int64_t b = r.begin; short_rows && b < r.end; b++) {
            const real *d = dy + b * C, *p = y + b * C;
            real *to = dx + b * C;
            SUM(real, sum, C, d[i] * p[i])
            INDEPENDENT
            for (int64_t c = 0; c < C; c++)
                to[c] = p[c] * (d[c] - sum);
        }
        if (short_rows)
            continue;
        SUM(real, sum, C, dy[r.begin * C + i] * y[r.begin * C + i])
        for (int64_t b = r.begin; b < r.end; b++) {
            const int64_t at = b * C, next = b + 1 < r.end ? at + C : at;
            sum = softmax_vjp_row(dx + at, dy + at, y + at, sum, dy + next, y + next, C);
        }
    }
}

/* The size of a buffer of exponentials: those of several short rows, or of a part of a long one. */
enum { BUFFER = 1024 };

static inline int64_t rows_at_once(int64_t C) {
    const int64_t rows = BUFFER / C;
    return rows < 1 ? 1 : smaller(rows, LANES);
}

KERNEL(log_softmax_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t C = call->size[0], most = rows_at_once(C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += most) {
            const int64_t rows = smaller(most, r.end - b);
            real *to = y + b * C, e[BUFFER], total[LANES] = {0};
            below_top(to, x + b * C, rows, C);
            for (int64_t first = 0; first < C; first += BUFFER) { /* more than once only for one long row */
                const int64_t n = smaller(BUFFER, C - first);
                map(e, to + first, rows * n, real_exp_below_0);
                for (int64_t row = 0; row < rows; row++) {
                    SUM(real, sum, n, e[row * n + i])
                    total[row] += sum;
                }
            }
            map(total, total, rows, real_log);
            for (int64_t row = 0; row < rows; row++)
                for (int64_t c = 0; c < C; c++)
                    to[row * C + c] -= total[row];
        }
}

KERNEL(log_softmax_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const int64_t C = call->size[0], most = rows_at_once(C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += most) {
            const int64_t rows = smaller(most, r.end - b), at = b * C;
            real e[BUFFER], sums[LANES];
            for (int64_t row = 0; row < rows; row++) {
                const real *d = dy + at + row * C;
                SUM(real, sum, C, d[i])
                sums[row] = sum;
            }
            for (int64_t first = 0; first < C; first += BUFFER) { /* more than once only for one long row */
                const int64_t n = smaller(BUFFER, C - first);
                map(e, y + at + first, rows * n, real_exp_below_0);
                for (int64_t row = 0; row < rows; row++) {
                    const real *d = dy + at + row * C + first;
                    real *to = dx + at + row * C + first;
                    INDEPENDENT
                    for (int64_t c = 0; c < n; c++)
                        to[c] = d[c] - e[row * n + c] * sums[row];
                }
            }
        }
}
