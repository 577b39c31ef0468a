/* Piecewise-linear encodings, and linear layers of groups of columns. Formulas: fastnet/layers/piecewise.py. */
#include "engine/share.h"
#include "lib/reduce.h"
#include "lib/rows.h"

static inline real within(real a, real low, real high) { return a < low ? low : a > high ? high : a; }

/* The groups of columns [begin, end), i their number. */
#define GROUPS_OF(i, I, begin, end)                                                                \
    for (int64_t i = 0, begin = 0, end; i < I && (end = (int64_t)ends[i], 1); begin = end, i++)

KERNEL(piecewise_forward, OUT(y), IN(x), IN(edge), IN(scale), IN(ends)) {
    const int64_t I = call->size[0], M = call->size[1];
    SHARED(r, call, call->rows, 1 + 2048 / M)
        for (int64_t b = r.begin; b < r.end; b++)
            GROUPS_OF(i, I, begin, end) {
                const real value = x[b * I + i];
                real *const to = y + b * M;
                for (int64_t m = begin; m < end; m++)
                    to[m] = within((value - edge[m]) * scale[m], 0, 1);
                if (begin < end) {
                    const int64_t last = end - 1;
                    to[begin] = within((value - edge[begin]) * scale[begin], -1, begin == last ? 2 : 1);
                    if (last > begin)
                        to[last] = within((value - edge[last]) * scale[last], 0, 2);
                }
            }
}

KERNEL(piecewise_vjp, OUT(dx), IN(dy), IN(x), IN(edge), IN(scale), IN(ends)) {
    const int64_t I = call->size[0], M = call->size[1];
    SHARED(r, call, call->rows, 1 + 2048 / M)
        for (int64_t b = r.begin; b < r.end; b++)
            GROUPS_OF(k, I, begin, end) {
                const int64_t n = end - begin;
                const real value = x[b * I + k], *const slope = dy + b * M + begin;
                const real *const lower = edge + begin, *const steepness = scale + begin;
#define PLACE ((value - lower[i]) * steepness[i])
#define IS_WITHIN ((PLACE >= (i ? (real)0 : (real)-1)) & (PLACE < (i < n - 1 ? (real)1 : (real)2)))
                SUM(real, sum, n, IS_WITHIN ? slope[i] * steepness[i] : 0)
#undef PLACE
#undef IS_WITHIN
                dx[b * I + k] = sum;
            }
}

KERNEL(grouped_linear_forward, OUT(y), IN(x), IN(w), IN(b), IN(ends)) {
    const int64_t I = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    SHARED(r, call, call->rows, 1 + 4096 / (1 + N * E))
        for (int64_t row = r.begin; row < r.end; row++)
            GROUPS_OF(i, I, begin, end)
                for (int64_t e = 0; e < E; e += WIDTH) {
                    vec sum = {0};
                    for (int64_t n = begin; n < end; n++)
                        sum = vec_madd(broadcast(x[row * N + n]), load_first(w + n * E + e, E - e), sum);
                    sum += load_first(b + i * E + e, E - e);
                    store_first(y + row * M + i * E + e, sum, E - e);
                }
}

KERNEL(grouped_linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w), IN(ends)) {
    const int64_t B = call->rows, I = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    const int64_t block = rows_of_block(B);
    const int accumulate = call->accumulate != 0;
    if (dx)
        SHARED(r, call, B, 1 + 4096 / (1 + N * E))
            for (int64_t row = r.begin; row < r.end; row++)
                GROUPS_OF(k, I, begin, end)
                    for (int64_t n = begin; n < end; n++) {
                        const real *const slope = dy + row * M + k * E, *const weight = w + n * E;
                        SUM(real, sum, E, slope[i] * weight[i])
                        dx[row * N + n] = sum;
                    }
    if (dw)
        SHARED(r, call, I, 1)
            GROUPS_OF(i, I, begin, end)
                for (int64_t n = begin; i >= r.begin && i < r.end && n < end; n++)
                    for (int64_t e = 0; e < E; e += WIDTH) {
                        vec total = {0}, lost = {0};
                        for (int64_t b0 = 0; b0 < B; b0 += block) {
                            vec sum = {0};
                            for (int64_t row = b0; row < smaller(b0 + block, B); row++)
                                sum = vec_madd(broadcast(x[row * N + n]),
                                               load_first(dy + row * M + i * E + e, E - e), sum);
                            add_block(&total, &lost, sum);
                        }
                        real *const to = dw + n * E + e;
                        const vec gradient = with_lost(total, lost);
                        store_first(to, accumulate ? load_first(to, E - e) + gradient : gradient, E - e);
                    }
    if (db)
        SHARED(r, call, M, 4 * WIDTH) {
            if (B > MANY_ROWS)
                sum_many_rows(db, dy, B, M, r, accumulate);
            else
                sum_rows(db, dy, B, M, r, accumulate);
        }
}
