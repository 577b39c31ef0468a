/* Sums over rows, in one order on every machine: up to MANY_ROWS rows are added one by one. Of more, blocks of
 * ROW_BLOCK rows are, and each block's sum is added to the total with what that addition rounds off kept beside it
 * (`lost`): one running sum of 10⁶ equal float32 terms would be 1 % off. */
#ifndef FASTNET_ROWS_H
#define FASTNET_ROWS_H

#include "lib/simd.h"

enum { MANY_ROWS = 512, ROW_BLOCK = 64 };

static inline int64_t rows_of_block(int64_t rows) { return rows > MANY_ROWS ? ROW_BLOCK : rows; }

static inline void add_block(vec *total, vec *lost, vec block) {
    const vec sum = *total + block, part = sum - *total;
    *lost += (*total - (sum - part)) + (block - part);
    *total = sum;
}

/* The total at the end. Where that is infinite, what it lost is NaN. */
static inline vec with_lost(vec total, vec lost) {
    const __typeof__(lost == lost) number = lost == lost;
    return total + (vec)(number & (__typeof__(number))lost);
}

#endif
