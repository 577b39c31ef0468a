/* Sums in one order on every machine: element i goes to lane i % 16, lanes are added as a tree. */
#ifndef FASTNET_REDUCE_H
#define FASTNET_REDUCE_H

#include "kernel.h"

static inline real lanes_max(real lane[LANES]) {
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++)
            lane[l] = lane[l + width] > lane[l] ? lane[l + width] : lane[l];
    return lane[0];
}

static inline real lanes_sum(real lane[LANES]) {
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++)
            lane[l] += lane[l + width];
    return lane[0];
}

static inline double lanes_sum_double(double lane[LANES]) {
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++)
            lane[l] += lane[l + width];
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
