/* Sums and maxima across a row. A sum adds in the same order on every machine: element i goes to lane i % LANES, the
 * lanes are added as a binary tree, and the remainder follows element by element. A maximum needs no order. */
#ifndef FASTNET_REDUCE_H
#define FASTNET_REDUCE_H

#include "lib/simd.h"

/* Where a sum of squares of doubles overflows, that of the numbers times this does not. */
#define SCALE 0x1p-538

/* Reduce 16 lanes to one: combine lanes l and l + half, for half = 8, 4, 2, 1. The bounds are constants, so that each
 * loop is vectorised. */
#define FOLD(statement)                                                                            \
    do {                                                                                           \
        for (int l = 0, half = 8; l < 8; l++)                                                      \
            statement;                                                                             \
        for (int l = 0, half = 4; l < 4; l++)                                                      \
            statement;                                                                             \
        for (int l = 0, half = 2; l < 2; l++)                                                      \
            statement;                                                                             \
        for (int l = 0, half = 1; l < 1; l++)                                                      \
            statement;                                                                             \
    } while (0)

/* Declares `type sum`, the sum of n terms, which are given in terms of i. */
#define SUM(type, sum, n, term)                                                                    \
    type sum = 0;                                                                                  \
    {                                                                                              \
        int64_t i = 0, first = 0;                                                                  \
        if (n >= LANES) {                                                                          \
            type lane[LANES] = {0};                                                                \
            for (; first + LANES <= n; first += LANES)                                             \
                for (int l = 0; l < LANES; l++) {                                                  \
                    i = first + l;                                                                 \
                    lane[l] += term;                                                               \
                }                                                                                  \
            FOLD(lane[l] += lane[l + half]);                                                       \
            sum = lane[0];                                                                         \
        }                                                                                          \
        for (i = first; i < n; i++)                                                                \
            sum += term;                                                                           \
    }

static inline double mean_of(const double *values, int64_t n) {
    SUM(double, sum, n, values[i])
    return sum / (double)n;
}

/* The greatest of n values, none of them NaN. It does not depend on the order, nor on whether a value is met twice.
 * So four independent vectors take the bulk, and the last load overlaps the one before it and ends with the values. */
static inline real max_of(const real *values, int64_t n) {
    if (n < WIDTH) {
        real max = -REAL_FN(inf)();
        for (int64_t i = 0; i < n; i++)
            max = values[i] > max ? values[i] : max;
        return max;
    }
    vec a = load(values), b = a, c = a, d = a;
    int64_t i = WIDTH;
    for (; i + 4 * WIDTH <= n; i += 4 * WIDTH) {
        a = vec_max(load(values + i), a);
        b = vec_max(load(values + i + WIDTH), b);
        c = vec_max(load(values + i + 2 * WIDTH), c);
        d = vec_max(load(values + i + 3 * WIDTH), d);
    }
    for (; i < n; i += WIDTH)
        a = vec_max(load(values + smaller(i, n - WIDTH)), a);
    real lane[WIDTH];
    store(lane, vec_max(vec_max(a, b), vec_max(c, d)));
#pragma GCC unroll 4
    for (int half = WIDTH / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
    return lane[0];
}

#endif
