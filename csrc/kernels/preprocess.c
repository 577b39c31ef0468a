/* Preprocessing of columns: an affine map, a table with interpolation, and categories. Formulas: scaling.py, quantile.py
 * and onehot.py in fastnet/preprocess. */
#include "engine/share.h"
#include "lib/kernel.h"

KERNEL(rescale_forward, OUT_OVER(y), IN_UNDER(x), IN(c), IN(r), IN(f)) {
    const int64_t N = call->size[0];
    const real offset = (real)call->scalar[0];
    SHARED(rows, call, call->rows, 16)
        for (int64_t b = rows.begin; b < rows.end; b++) {
            real *to = y + b * N;
            const real *from = x + b * N;
            if (f) {
                INDEPENDENT
                for (int64_t j = 0; j < N; j++)
                    to[j] = ((from[j] - c[j]) - r[j]) * f[j] + offset;
            } else {
                INDEPENDENT
                for (int64_t j = 0; j < N; j++)
                    to[j] = ((from[j] - c[j]) - r[j]) + offset;
            }
        }
}

KERNEL(rescale_vjp, OUT_OVER(dx), IN_UNDER(dy), IN(f)) {
    const int64_t N = call->size[0];
    if (!dx)
        return;
    SHARED(rows, call, call->rows, 16)
        for (int64_t b = rows.begin; b < rows.end; b++) {
            real *to = dx + b * N;
            const real *from = dy + b * N;
            INDEPENDENT
            for (int64_t j = 0; j < N; j++)
                to[j] = f ? from[j] * f[j] : from[j];
        }
}

/* The number of knots ≤ x. */
static inline int64_t knots_below(const real *k, int64_t K, real x) {
    int64_t low = 0;
    for (int64_t left = K; left;) {
        const int64_t half = left / 2;
        if (k[low + half] <= x) {
            low += half + 1;
            left -= half + 1;
        } else
            left = half;
    }
    return low;
}

KERNEL(interpolate_forward, OUT(y), IN(x), IN(k), IN(v)) {
    const int64_t N = call->size[0], K = call->size[1];
    SHARED(r, call, call->rows * N, 64)
        for (int64_t e = r.begin; e < r.end; e++) {
            const int64_t row = e % N * K, n = knots_below(k + row, K, x[e]);
            const real *knot = k + row + n, *value = v + row + n;
            if (x[e] != x[e])
                y[e] = x[e];
            else if (n == 0 || n == K)
                y[e] = n ? value[-1] : value[0];
            else
                y[e] = value[-1] + (x[e] - knot[-1]) / (knot[0] - knot[-1]) * (value[0] - value[-1]);
        }
}

KERNEL(interpolate_vjp, OUT(dx), IN(dy), IN(x), IN(k), IN(v)) {
    const int64_t N = call->size[0], K = call->size[1];
    if (!dx)
        return;
    SHARED(r, call, call->rows * N, 64)
        for (int64_t e = r.begin; e < r.end; e++) {
            const int64_t row = e % N * K, n = knots_below(k + row, K, x[e]);
            const real *knot = k + row + n, *value = v + row + n;
            dx[e] = n && n < K ? dy[e] * ((value[0] - value[-1]) / (knot[0] - knot[-1])) : 0;
        }
}

KERNEL(one_hot_forward, OUT(y), IN(x), IN(v), IN_AS(int64_t, source)) {
    const int64_t O = call->size[0], N = call->size[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++) {
            real *to = y + b * O;
            const real *from = x + b * N;
            int found = 0;
            for (int64_t o = 0; o < O; o++) {
                const int64_t s = source[o];
                if (s < 0)
                    to[o] = from[-1 - s];
                else if (o + 1 < O && source[o + 1] == s) {
                    const int equal = from[s] == v[o];
                    found |= equal;
                    to[o] = equal;
                } else {
                    to[o] = !found;
                    found = 0;
                }
            }
        }
}

KERNEL(one_hot_vjp, OUT(dx), IN(dy), IN_AS(int64_t, source)) {
    const int64_t O = call->size[0], N = call->size[1];
    if (!dx)
        return;
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++) {
            real *to = dx + b * N;
            for (int64_t j = 0; j < N; j++)
                to[j] = 0;
            for (int64_t o = 0; o < O; o++)
                if (source[o] < 0)
                    to[-1 - source[o]] += dy[b * O + o];
        }
}
