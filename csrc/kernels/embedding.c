/* Vectors in place of codes. Formulas: fastnet/layers/embedding.py. */
#include "engine/share.h"
#include "lib/kernel.h"

#include <string.h>

/* The row of the table for a number, or −1. Of V rows the last is that of unknown numbers, if there is one. */
static inline int64_t row_of_code(real x, int64_t V, int unknown) {
    const int64_t count = V - unknown;
    if (x >= 0 && x < (real)count && x == (real)(int64_t)x)
        return (int64_t)x;
    return unknown ? count : -1;
}

static inline void copy_numbers(real *to, const real *from, int64_t n) { memcpy(to, from, (size_t)n * sizeof(real)); }

KERNEL(embedding_forward, OUT(y), IN(x), IN(w)) {
    const int64_t V = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    const int64_t column = (int64_t)call->scalar[0];
    SHARED(r, call, call->rows, 1 + 2048 / M)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *const from = x + b * N;
            real *const to = y + b * M;
            const int64_t row = row_of_code(from[column], V, call->scalar[1] >= 1);
            copy_numbers(to, from, column);
            copy_numbers(to + column, from + column + 1, N - 1 - column);
            if (row >= 0)
                copy_numbers(to + N - 1, w + row * E, E);
            else
                for (int64_t e = 0; e < E; e++)
                    to[N - 1 + e] = REAL_FN(nan)("");
        }
}

/* Tables of sums in scratch memory, of so many columns at most. */
enum { CODE_SUMS = FN_SCRATCH / (int)sizeof(double), CODE_COLUMNS = 4096 };

/* The gradients of rows [begin, end) and columns [e, e + n) of the table, which fit into scratch memory: each is the sum
 * over the rows of data in order, in float64. */
static inline void gradients_of_codes(const fn_call *call, real *dw, const real *dy, const real *x, int64_t begin,
                                      int64_t end, int64_t e, int64_t n) {
    const int64_t V = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    const int64_t column = (int64_t)call->scalar[0];
    double *const sums = call->scratch;
    memset(sums, 0, (size_t)((end - begin) * n) * sizeof(double));
    for (int64_t b = 0; b < call->rows; b++) {
        const int64_t row = row_of_code(x[b * N + column], V, call->scalar[1] >= 1);
        if (row < begin || row >= end)
            continue;
        double *const to = sums + (row - begin) * n;
        const real *const from = dy + b * M + N - 1 + e;
        for (int64_t k = 0; k < n; k++)
            to[k] += (double)from[k];
    }
    for (int64_t row = begin; row < end; row++)
        for (int64_t k = 0; k < n; k++) {
            real *const to = dw + row * E + e + k;
            const real sum = (real)sums[(row - begin) * n + k];
            *to = call->accumulate ? *to + sum : sum;
        }
}

KERNEL(embedding_vjp, OUT(dx), OUT(dw), IN(dy), IN(x)) {
    const int64_t V = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    const int64_t column = (int64_t)call->scalar[0];
    (void)x;
    if (dx)
        SHARED(r, call, call->rows, 1 + 2048 / N)
            for (int64_t b = r.begin; b < r.end; b++) {
                real *const to = dx + b * N;
                copy_numbers(to, dy + b * M, column);
                to[column] = 0;
                copy_numbers(to + column + 1, dy + b * M + column, N - 1 - column);
            }
    if (!dw)
        return;
    const int64_t width = smaller(E, CODE_COLUMNS), height = CODE_SUMS / width;
    SHARED(r, call, V, 1 + 4096 / width)
        for (int64_t begin = r.begin; begin < r.end; begin += height)
            for (int64_t e = 0; e < E; e += width)
                gradients_of_codes(call, dw, dy, x, begin, smaller(begin + height, r.end), e, smaller(width, E - e));
}
