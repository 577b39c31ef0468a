/* Sums over the rows of a minibatch, in the same order on every machine. Up to MANY_ROWS rows are added one by one.
 * More rows are added in blocks of ROW_BLOCK, and the blocks' sums by compensated summation: `lost` adds up the
 * rounding errors of the total. A plain running sum loses accuracy with the number of its terms. */
#ifndef FASTNET_ROWS_H
#define FASTNET_ROWS_H

#include "engine/pool.h"
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

/* The sums of n columns, at most `vectors` vectors of them. Each column adds its rows in order. */
static inline __attribute__((always_inline)) void
sum_columns(const int vectors, real *into, const real *from, int64_t rows, int64_t columns,
            int64_t n, int accumulate) {
    vec sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = accumulate ? load_first(into + v * WIDTH, n - v * WIDTH) : (vec){0};
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[v] += load_first(from + r * columns + v * WIDTH, n - v * WIDTH);
    for (int v = 0; v < vectors; v++)
        store_first(into + v * WIDTH, sum[v], n - v * WIDTH);
}

/* The column sums of up to MANY_ROWS rows, for the columns of `part`. */
static inline void sum_rows(real *into, const real *from, int64_t rows, int64_t columns,
                            fn_range part, int accumulate) {
    int64_t j = part.begin;
    for (; j + 4 * WIDTH <= part.end; j += 4 * WIDTH)
        sum_columns(4, into + j, from + j, rows, columns, 4 * WIDTH, accumulate);
    for (; j < part.end; j += WIDTH)
        sum_columns(1, into + j, from + j, rows, columns, part.end - j, accumulate);
}

/* The same for more than MANY_ROWS rows: a compensated sum over blocks. */
static inline void sum_many_rows(real *into, const real *from, int64_t rows, int64_t columns, fn_range part,
                                 int accumulate) {
    for (int64_t j = part.begin; j < part.end; j += 4 * WIDTH) {
        const int64_t n = smaller(4 * WIDTH, part.end - j);
        vec total[4] = {0}, lost[4] = {0};
        real block[4 * WIDTH] = {0};
        for (int64_t r = 0; r < rows; r += ROW_BLOCK) {
            sum_rows(block, from + r * columns + j, smaller(ROW_BLOCK, rows - r), columns, (fn_range){0, n}, 0);
            for (int v = 0; v < 4; v++)
                add_block(&total[v], &lost[v], load(block + v * WIDTH));
        }
        for (int v = 0; v < 4; v++) {
            const vec sum = with_lost(total[v], lost[v]);
            real *to = into + j + v * WIDTH;
            store_first(to, accumulate ? load_first(to, n - v * WIDTH) + sum : sum, n - v * WIDTH);
        }
    }
}

#endif
