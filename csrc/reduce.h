/* Sums in one order on every machine: element i goes to lane i % 16, lanes are added as a tree. */
#ifndef FASTNET_REDUCE_H
#define FASTNET_REDUCE_H

#include "kernel.h"

/* Fold the upper half of the lanes onto the lower, down to one; each loop has constant bounds. */
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

static inline real lanes_max(real lane[LANES]) {
    FOLD(lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l]);
    return lane[0];
}

static inline real lanes_sum(real lane[LANES]) {
    FOLD(lane[l] += lane[l + half]);
    return lane[0];
}

static inline double lanes_sum_double(double lane[LANES]) {
    FOLD(lane[l] += lane[l + half]);
    return lane[0];
}

static inline double mean_of(const double *values, int64_t n) {
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += values[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += values[i + l];
    return lanes_sum_double(lane) / (double)n;
}

#endif
