/* What the kernels of pointwise losses are made of. A block is a few whole rows, or a part of one long row. Its
 * elements are computed first, then summed or scaled row by row. See fastnet/losses/pointwise.py. */
#ifndef FASTNET_POINTWISE_H
#define FASTNET_POINTWISE_H

#include "lib/formula.h"
#include "lib/reduce.h"

enum { BLOCK = 1024 }; /* elements; a multiple of LANES */

typedef struct {
    int64_t row, rows, first, width; /* columns [first, first + width); several rows only if these are whole */
    int64_t at, n;                   /* as a range of elements: they are contiguous */
} fn_block;

static inline fn_block block_at(int64_t row, int64_t first, int64_t end, int64_t N) {
    const int64_t most = N ? BLOCK / N : BLOCK, rows = most ? smaller(most, end - row) : 1;
    const int64_t width = smaller(BLOCK, N - first);
    return (fn_block){row, rows, first, width, row * N + first, rows * width};
}

static inline fn_block block_after(fn_block x, int64_t end, int64_t N) {
    const int64_t first = x.first + x.width;
    return first < N ? block_at(x.row, first, end, N) : block_at(x.row + x.rows, 0, end, N);
}

/* Every block of this thread's rows. */
#define BLOCKS(x, call)                                                                            \
    const int64_t N = call->size[0];                                                               \
    SHARED(r, call, call->rows, 1 + BLOCK / (N + 1))                                               \
        for (fn_block x = block_at(r.begin, 0, r.end, N); x.row < r.end;                           \
             x = block_after(x, r.end, N))

/* Not inlined: one copy serves all kernels of a file, and a call does a whole block. */
#define SHARED_CODE static __attribute__((noinline, unused))

/* Repeat a row of columns' numbers for each row of a block. */
SHARED_CODE void repeat(real to[BLOCK], const real *from, fn_block x) {
    for (int64_t i = 0; i < x.n; i += x.width)
        for (int64_t c = 0; c < x.width; c++)
            to[i + c] = from[x.first + c];
    for (int64_t i = x.n; i % LANES; i++)
        to[i] = 0;
}

/* row_loss = Σ value / divisor */
SHARED_CODE void add_rows(double *row_loss, const real value[BLOCK], fn_block x, int64_t N,
                            double divisor) {
    double *to = row_loss + x.row;
    if (x.width == 1)
        for (int64_t b = 0; b < x.rows; b++)
            to[b] = x.first ? to[b] + (double)value[b] : (double)value[b];
    else
        for (int64_t b = 0; b < x.rows; b++) {
            const real *part = value + b * x.width;
            SUM(double, sum, x.width, (double)part[i])
            to[b] = x.first ? to[b] + sum : sum;
        }
    if (x.first + x.width == N && divisor != 1)
        for (int64_t b = 0; b < x.rows; b++)
            to[b] /= divisor;
}

/* dy = value·drow_loss / divisor */
SHARED_CODE void scale_rows(real *dy, const real value[BLOCK], const double *drow_loss, fn_block x,
                              double divisor) {
    real *to = dy + x.at;
    if (x.width == 1)
        for (int64_t b = 0; b < x.rows; b++)
            to[b] = value[b] * (real)(drow_loss[x.row + b] / divisor);
    else
        for (int64_t b = 0; b < x.rows; b++) {
            const real share = (real)(drow_loss[x.row + b] / divisor);
            for (int64_t c = 0; c < x.width; c++)
                to[b * x.width + c] = value[b * x.width + c] * share;
        }
}

#endif
