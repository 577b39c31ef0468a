/* ReLU with trained slopes (PReLU). Formulas: fastnet/layers/prelu.py. */
#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/rows.h"

enum { BLOCK = 64 }; /* columns at a time */

/* The slopes of the columns from j on. */
static inline void take_slopes(real slope[BLOCK], const real *a, int64_t A, int64_t j, int64_t n) {
    for (int64_t c = 0; c < n; c++)
        slope[c] = A == 1 ? a[0] : a[(j + c) % A];
}

KERNEL(prelu_forward, OUT(y), IN(x), IN(a)) {
    const int64_t N = call->size[0], A = call->size[1];
    if (A == 1) { /* a single slope: rows and columns make no difference */
        const real slope = a[0];
        SHARED(r, call, call->rows * N, 2048)
            for (int64_t i = r.begin; i < r.end; i++)
                y[i] = x[i] > 0 ? x[i] : slope * x[i];
        return;
    }
    SHARED(r, call, N, BLOCK)
        for (int64_t j = r.begin; j < r.end; j += BLOCK) {
            const int64_t n = smaller(BLOCK, r.end - j);
            real slope[BLOCK];
            take_slopes(slope, a, A, j, n);
            for (int64_t b = 0; b < call->rows; b++)
                for (int64_t c = 0, at = b * N + j; c < n; c++)
                    y[at + c] = x[at + c] > 0 ? x[at + c] : slope[c] * x[at + c];
        }
}

/* A slope's gradient is a sum over its columns, which lie A apart. Where A is small, `repeats` lanes per slope take
 * them in turn, so that vectors are full; a binary tree then adds the lanes of each slope. */
KERNEL(prelu_vjp, OUT(dx), OUT(da), IN(dy), IN(x), IN(a)) {
    const int64_t N = call->size[0], A = call->size[1];
    if (dx)
        SHARED(r, call, N, BLOCK)
            for (int64_t j = r.begin; j < r.end; j += BLOCK) {
                const int64_t n = smaller(BLOCK, r.end - j);
                real slope[BLOCK];
                take_slopes(slope, a, A, j, n);
                for (int64_t b = 0; b < call->rows; b++)
                    for (int64_t c = 0, at = b * N + j; c < n; c++)
                        dx[at + c] = x[at + c] > 0 ? dy[at + c] : slope[c] * dy[at + c];
            }
    if (!da || !is_first(call))
        return;
    const int64_t block = rows_of_block(call->rows);
    int64_t repeats = 1;
    while (2 * repeats * A <= BLOCK)
        repeats *= 2;
    for (int64_t k = 0; k < A; k += BLOCK) {
        const int64_t slopes = smaller(BLOCK, A - k);
        real sum[BLOCK] = {0}, lost[BLOCK] = {0};
        for (int64_t j = k; j < N; j += A * repeats) {
            const int64_t n = smaller(slopes * repeats, N - j);
            for (int64_t begin = 0; begin < call->rows; begin += block) {
                real part[BLOCK] = {0};
                for (int64_t b = begin; b < smaller(begin + block, call->rows); b++)
                    for (int64_t c = 0, at = b * N + j; c < n; c++)
                        part[c] = madd(dy[at + c], x[at + c] > 0 ? 0 : x[at + c], part[c]);
                for (int c = 0; c < BLOCK; c += WIDTH) {
                    vec total = load(sum + c), rest = load(lost + c);
                    add_block(&total, &rest, load(part + c));
                    store(sum + c, total);
                    store(lost + c, rest);
                }
            }
        }
        for (int c = 0; c < BLOCK; c += WIDTH)
            store(sum + c, with_lost(load(sum + c), load(lost + c)));
        for (int64_t half = slopes * repeats / 2; half >= slopes; half /= 2)
            for (int64_t c = 0; c < half; c++)
                sum[c] += sum[half + c];
        for (int64_t c = 0; c < slopes; c++)
            da[k + c] = call->accumulate ? da[k + c] + sum[c] : sum[c];
    }
}
