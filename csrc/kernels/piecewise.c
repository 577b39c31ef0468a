/* Piecewise-linear encodings, and linear layers of groups of columns. Formulas: fastnet/layers/piecewise.py. */
#include "engine/share.h"
#include "lib/columns.h"
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

enum {
    ABREAST = 8,       /* sums that are added to in turn, as one waits for its last addition */
    GROUP_COLUMNS = 64 /* of a group, whose weights lie transposed at a time */
};

/* The outputs of `count` rows from x and y on. */
INLINED void grouped_rows(const fn_call *call, const int count, real *y, const real *x, const real *w, const real *b,
                          const real *ends) {
    const int64_t I = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    GROUPS_OF(i, I, begin, end)
        for (int64_t e = 0; e < E; e += WIDTH) {
            vec sum[ABREAST] = {0};
            for (int64_t n = begin; n < end; n++) {
                const vec weight = load_first(w + n * E + e, E - e);
                for (int q = 0; q < count; q++)
                    sum[q] = vec_madd(broadcast(x[q * N + n]), weight, sum[q]);
            }
            const vec bias = load_first(b + i * E + e, E - e);
            for (int q = 0; q < count; q++)
                store_first(y + q * M + i * E + e, sum[q] + bias, E - e);
        }
}

KERNEL(grouped_linear_forward, OUT(y), IN(x), IN(w), IN(b), IN(ends)) {
    const int64_t E = call->size[1], N = call->size[2], M = call->size[3];
    SHARED(r, call, call->rows, 1 + 4096 / (1 + N * E)) {
        int64_t row = r.begin;
        for (; row + ABREAST <= r.end; row += ABREAST)
            grouped_rows(call, ABREAST, y + row * M, x + row * N, w, b, ends);
        for (; row < r.end; row++)
            grouped_rows(call, 1, y + row * M, x + row * N, w, b, ends);
    }
}

/* dx of a group's columns for some rows, for E < LANES: lanes run along the columns, and each adds as SUM does. dy are
 * the group's gradients of row 0. */
static inline void grouped_dx(const fn_call *call, real *dx, const real *dy, const real *w, fn_range rows, int64_t begin,
                              int64_t end) {
    const int64_t E = call->size[1], N = call->size[2], M = call->size[3];
    for (int64_t first = begin; first < end; first += GROUP_COLUMNS) {
        const int64_t columns = smaller(GROUP_COLUMNS, end - first);
        real turned[LANES][GROUP_COLUMNS] = {0};
        for (int64_t c = 0; c < columns; c++)
            for (int64_t e = 0; e < E; e++)
                turned[e][c] = w[(first + c) * E + e];
        for (int64_t row = rows.begin; row < rows.end; row++)
            for (int64_t c = 0; c < columns; c += WIDTH) {
                vec sum = {0};
                for (int64_t e = 0; e < E; e++)
                    sum += broadcast(dy[row * M + e]) * load(turned[e] + c);
                store_first(dx + row * N + first + c, sum, columns - c);
            }
    }
}

/* dw of `count` columns of a group, from the n-th on, whose outputs begin at column m. */
INLINED void grouped_dw(const fn_call *call, const int count, real *dw, const real *dy, const real *x, int64_t n,
                        int64_t m) {
    const int64_t B = call->rows, E = call->size[1], N = call->size[2], M = call->size[3];
    const int64_t block = rows_of_block(B);
    for (int64_t e = 0; e < E; e += WIDTH) {
        vec total[ABREAST] = {0}, lost[ABREAST] = {0};
        for (int64_t b0 = 0; b0 < B; b0 += block) {
            vec sum[ABREAST] = {0};
            for (int64_t row = b0; row < smaller(b0 + block, B); row++) {
                const vec slope = load_first(dy + row * M + m + e, E - e);
                for (int q = 0; q < count; q++)
                    sum[q] = vec_madd(broadcast(x[row * N + n + q]), slope, sum[q]);
            }
            for (int q = 0; q < count; q++)
                add_block(&total[q], &lost[q], sum[q]);
        }
        for (int q = 0; q < count; q++) {
            real *const to = dw + (n + q) * E + e;
            const vec gradient = with_lost(total[q], lost[q]);
            store_first(to, call->accumulate ? load_first(to, E - e) + gradient : gradient, E - e);
        }
    }
}

KERNEL(grouped_linear_vjp, OUT(dx), OUT(dw), OUT(db), IN(dy), IN(x), IN(w), IN(ends)) {
    const int64_t B = call->rows, I = call->size[0], E = call->size[1], N = call->size[2], M = call->size[3];
    const int accumulate = call->accumulate != 0;
    if (dx && E < LANES)
        SHARED(r, call, B, 1 + 4096 / (1 + N * E))
            GROUPS_OF(k, I, begin, end)
                grouped_dx(call, dx, dy + k * E, w, r, begin, end);
    else if (dx)
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
            GROUPS_OF(i, I, begin, end) {
                int64_t n = i >= r.begin && i < r.end ? begin : end;
                for (; n + ABREAST <= end; n += ABREAST)
                    grouped_dw(call, ABREAST, dw, dy, x, n, i * E);
                for (; n < end; n++)
                    grouped_dw(call, 1, dw, dy, x, n, i * E);
            }
    if (db)
        SHARED(r, call, M, 4 * WIDTH) {
            if (B > MANY_ROWS)
                sum_many_rows(db, dy, B, M, r, accumulate);
            else
                sum_rows(db, dy, B, M, r, accumulate);
        }
}
