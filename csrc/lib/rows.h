/* Sums over the rows of a minibatch, in the same order on every machine. Up to MANY_ROWS rows are added one by one.
 * More rows are added in blocks of ROW_BLOCK, and the blocks' sums by compensated summation: `lost` adds up the
 * rounding errors of the total. A plain running sum loses accuracy with the number of its terms. */
#ifndef FASTNET_ROWS_H
#define FASTNET_ROWS_H

#include "lib/simd.h"

enum { MANY_ROWS = 512, ROW_BLOCK = 64 };

static inline int64_t rows_of_block(int64_t rows) { return rows > MANY_ROWS ? ROW_BLOCK : rows; }

/* Add a block's sum to the total (Knuth's two-sum). */
static inline void add_block(vec *total, vec *lost, vec block) {
    const vec sum = *total + block, part = sum - *total;
    *lost += (*total - (sum - part)) + (block - part);
    *total = sum;
}

/* The compensated total. If the total is infinite, `lost` is NaN and must be left out. */
static inline vec with_lost(vec total, vec lost) {
    const __typeof__(lost == lost) number = lost == lost;
    return total + (vec)(number & (__typeof__(number))lost);
}

#endif
