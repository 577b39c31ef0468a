/* Cross-entropies with class weights and label smoothing. Formulas: fastnet/losses/cross_entropy.py. */
#include "engine/share.h"
#include "lib/softmax.h"

/* Σ_c v_c, the weights of classes; NULL: all are 1. */
static inline double sum_of_weights(const real *v, int64_t C) {
    if (!v)
        return (double)C;
    SUM(double, sum, C, (double)v[i])
    return sum;
}

/* q·x, except that 0·∞ is 0. NaN passes through. */
static inline double times(double q, real x) { return q != 0 || x != x ? q * (double)x : 0; }

/* Σ_c v_c·x_c */
static inline double weighed(const real *x, const real *v, int64_t C) {
    if (v) {
        SUM(double, sum, C, times((double)v[i], x[i]))
        return sum;
    }
    SUM(double, sum, C, (double)x[i])
    return sum;
}

/* A row's loss is Σq·log(total) + Σ_c q_c·(m − z_c), with m = max(z). Both terms are at least 0, so nothing cancels. */
KERNEL(cross_entropy_forward, OUT_AS(double, row_loss), OUT(count), OUT(p), IN(z), IN_AS(int64_t, t),
       IN(v)) {
    const int64_t C = call->size[0], ignored = (int64_t)call->scalar[1];
    const double sharp = 1 - call->scalar[0], flat = call->scalar[0] / (double)C;
    const double all = sum_of_weights(v, C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += LANES) {
            const int64_t rows = smaller(LANES, r.end - b);
            double at_q[LANES];
            real total[LANES];
            below_top(p + b * C, z + b * C, rows, C);
            for (int64_t k = 0; k < rows; k++) {
                const real *below = p + (b + k) * C;
                const int64_t label = t[b + k];
                at_q[k] = flat != 0 ? flat * weighed(below, v, C) : 0;
                count[b + k] = label == ignored ? 0 : v ? v[label] : 1;
                if (label != ignored)
                    at_q[k] += times(sharp * (double)count[b + k], below[label]);
            }
            softmax_and_log(p + b * C, total, rows, C);
            for (int64_t k = 0; k < rows; k++) {
                const double q = sharp * (double)count[b + k] + flat * all;
                row_loss[b + k] = t[b + k] == ignored ? 0 : q * (double)total[k] - at_q[k];
            }
        }
}

KERNEL(cross_entropy_vjp, OUT(dz), IN_AS(double, drow_loss), IN(p), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0], ignored = (int64_t)call->scalar[1];
    const double sharp = 1 - call->scalar[0], flat = call->scalar[0] / (double)C;
    const double all = sum_of_weights(v, C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b++) {
            real *to = dz + b * C;
            const real *from = p + b * C;
            const int64_t label = t[b];
            if (label == ignored) { /* whatever p is */
                for (int64_t c = 0; c < C; c++)
                    to[c] = 0;
                continue;
            }
            const double d = drow_loss[b], at_label = sharp * (v ? (double)v[label] : 1);
            const double whole = at_label + flat * all;
            const real scale = (real)(d * whole), low = (real)(d * flat);
            for (int64_t c = 0; c < C; c++)
                to[c] = from[c] * scale - (v ? v[c] : 1) * low;
            /* By the other classes' p and q: p·Σq − q itself cancels where p is about 1. */
            const double own = v ? (double)v[label] : 1;
            SUM(double, others, C, i == label ? 0 : (double)from[i])
            to[label] = (real)(d * ((double)from[label] * (flat * (all - own))
                                    - (at_label + flat * own) * others));
        }
}

/* q_c */
static inline real soft(real t, real v, real sharp, real flat) { return v * (t * sharp + flat); }

KERNEL(soft_cross_entropy_forward, OUT_AS(double, row_loss), OUT(p), IN(z), IN(t), IN(v)) {
    const int64_t C = call->size[0];
    const real sharp = (real)(1 - call->scalar[0]), flat = (real)(call->scalar[0] / (double)C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b += LANES) {
            const int64_t rows = smaller(LANES, r.end - b);
            double at_q[LANES], q[LANES];
            real total[LANES];
            below_top(p + b * C, z + b * C, rows, C);
            for (int64_t k = 0; k < rows; k++) {
                const real *below = p + (b + k) * C, *given = t + (b + k) * C;
                SUM(double, whole, C, (double)soft(given[i], v ? v[i] : 1, sharp, flat))
                SUM(double, part, C,
                    times((double)soft(given[i], v ? v[i] : 1, sharp, flat), below[i]))
                q[k] = whole;
                at_q[k] = part;
            }
            softmax_and_log(p + b * C, total, rows, C);
            for (int64_t k = 0; k < rows; k++)
                row_loss[b + k] = q[k] * (double)total[k] - at_q[k];
        }
}

KERNEL(soft_cross_entropy_vjp, OUT(dz), IN_AS(double, drow_loss), IN(p), IN(t), IN(v)) {
    const int64_t C = call->size[0];
    const real sharp = (real)(1 - call->scalar[0]), flat = (real)(call->scalar[0] / (double)C);
    SHARED(r, call, call->rows, LANES)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *given = t + b * C, *from = p + b * C;
            SUM(double, whole, C, (double)soft(given[i], v ? v[i] : 1, sharp, flat))
            SUM(double, rest, C, from[i] > (real)0.5 ? 0 : (double)from[i])
            const double d = drow_loss[b];
            real *to = dz + b * C;
            for (int64_t c = 0; c < C; c++) { /* p·(Σq − q) − q·(1 − p), with 1 − p by the other classes where p is large */
                const double q = (double)soft(given[c], v ? v[c] : 1, sharp, flat);
                const double own = (double)from[c], left = own > 0.5 ? rest : 1 - own;
                to[c] = (real)(d * (own * (whole - q) - q * left));
            }
        }
}

KERNEL(nll_forward, OUT_AS(double, row_loss), OUT(count), IN(y), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0], ignored = (int64_t)call->scalar[0];
    SHARED(r, call, call->rows, 256)
        for (int64_t b = r.begin; b < r.end; b++) {
            const int64_t label = t[b];
            count[b] = label == ignored ? 0 : v ? v[label] : 1;
            row_loss[b] = label == ignored ? 0 : -times((double)count[b], y[b * C + label]);
        }
}

KERNEL(nll_vjp, OUT(dy), IN_AS(double, drow_loss), IN_AS(int64_t, t), IN(v)) {
    const int64_t C = call->size[0], ignored = (int64_t)call->scalar[0];
    SHARED(r, call, call->rows, 64) {
        for (int64_t i = r.begin * C; i < r.end * C; i++)
            dy[i] = 0;
        for (int64_t b = r.begin; b < r.end; b++)
            if (t[b] != ignored)
                dy[b * C + t[b]] = (real)-(drow_loss[b] * (v ? (double)v[t[b]] : 1));
    }
}
