/* The backward of the linear layer for a few rows of data: dX, and dW or the SGD update of W.
 *
 * With so few rows no tile can be filled. What costs is to pass over W. So each row of W is read from memory once: it
 * gives its elements of dX, and while the first cache holds it, its gradient is computed and, with plain SGD, applied.
 *
 * An element of dX is a sum along a row of W. It has LANES running sums, element j going to lane j % LANES by fused
 * multiply-adds from zero, which are added as the binary tree of FOLD (lib/reduce.h). In a last part of less than LANES
 * elements the other lanes add 0·0. Rows of W of less than LANES elements are left to `gemm`.
 */
#ifndef FASTNET_FEW_ROWS_H
#define FASTNET_FEW_ROWS_H

#include "engine/share.h"
#include "generated/sgd_update.h"
#include "products/gemm.h"
#include "products/take.h"

/* GROUP: rows of W between two passes over them. */
enum { FEW_ROWS = 4, LANE_VECTORS = LANES / WIDTH, GROUP = WIDTH < 8 ? 8 : WIDTH,
       LANE_WORDS = VECTOR_BYTES < 8 ? 1 : VECTOR_BYTES / 8 };

/* The backward for rows i of W and of dW: `to` is W itself if `updates`, or dW, to which gradients are added if
 * `accumulate`, or NULL. dX is NULL where it is not wanted. Rows of x and dX are I apart, of W and dW O, of dy ldy. */
typedef struct {
    const real *x, *dy, *w;
    real *dx, *to;
    int64_t I, O, ldy;
    int updates, is_plain, accumulate; /* is_plain: the update has no weight decay */
    real number[SGD_UPDATE_NUMBERS];
} few_rows;

/* Rows of W whose sums are computed at once, so that about eight vectors are running sums: a power of 2. */
static inline int rows_at_once(int B) {
    const int most = 8 / (LANE_VECTORS * (B == 3 ? 4 : B));
    return most < 1 ? 1 : most < WIDTH ? most : WIDTH;
}

/* Element i of dX for WIDTH rows of W, of which the first n exist. Returns whether all are finite. */
static inline __attribute__((always_inline)) int sums_along_rows(const int B, const few_rows *p, int64_t i,
                                                                  int64_t n) {
    const int rows = rows_at_once(B);
    const int64_t O = p->O, ldy = p->ldy;
    const real *const dy = p->dy;
    const real *row = p->w + i * O, *const last = p->w + (i + n - 1) * O;
    vec folded[FEW_ROWS][WIDTH], zero = {0};
    for (int first = 0; first < WIDTH; first += rows) {
        vec sum[8][FEW_ROWS][LANE_VECTORS];
        const real *w[8];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            w[r] = row;
            row += row < last ? O : 0; /* rows that do not exist are the last one again */
#pragma GCC unroll 4
            for (int b = 0; b < B; b++)
#pragma GCC unroll 16
                for (int v = 0; v < LANE_VECTORS; v++)
                    sum[r][b][v] = (vec){0};
        }
#define ADD_LANES(load_from)                                                                       \
    _Pragma("GCC unroll 16") for (int v = 0; v < LANE_VECTORS; v++)                                \
        _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) {                                   \
            const vec of_w = load_from(w[r] + j + v * WIDTH);                                      \
            _Pragma("GCC unroll 4") for (int b = 0; b < B; b++)                                    \
                sum[r][b][v] = vec_madd(of_w, load_from(dy + b * ldy + j + v * WIDTH),       \
                                        sum[r][b][v]);                                             \
        }
        int64_t j = 0;
        for (; j + LANES <= O; j += LANES)
            ADD_LANES(load)
#define LOAD_LAST(at) load_first(at, O - j - v * WIDTH)
        if (j < O)
            ADD_LANES(LOAD_LAST)
#undef LOAD_LAST
#undef ADD_LANES
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int b = 0; b < B; b++) {
#pragma GCC unroll 4
                for (int half = LANE_VECTORS / 2; half; half /= 2)
#pragma GCC unroll 8
                    for (int v = 0; v < half; v++)
                        sum[r][b][v] += sum[r][b][v + half];
                folded[b][first + r] = sum[r][b][0];
            }
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) {
        /* Lanes of two vectors are folded together; in the end lane l is the sum of row l. */
#pragma GCC unroll 4
        for (int half = WIDTH / 2; half; half /= 2)
#pragma GCC unroll 8
            for (int r = 0; r < half; r++)
                folded[b][r] = interleave_low(folded[b][r], folded[b][r + half]) +
                               interleave_high(folded[b][r], folded[b][r + half]);
        store_first(p->dx + b * p->I + i, folded[b][0], n);
        zero += folded[b][0] - folded[b][0]; /* else NaN */
    }
    uint64_t words[LANE_WORDS] = {0}, bits = 0;
    memcpy(words, &zero, sizeof zero);
    for (int l = 0; l < LANE_WORDS; l++)
        bits |= words[l];
    return !bits;
}

/* The SGD update of a vector. */
static inline __attribute__((always_inline)) vec updated(vec w, vec g, const real *number) {
    real of_w[WIDTH], of_g[WIDTH];
    store(of_w, w);
    store(of_g, g);
    INDEPENDENT ROLLED
    for (int l = 0; l < WIDTH; l++)
        sgd_update_element(of_w + l, of_g + l, number);
    return load(of_w);
}

/* What becomes of gradients. PLAIN is the SGD update without weight decay, for finite weights. There 1·w is w, and
 * g + 0·w is g but for the sign of a zero, which the result does not show. */
typedef enum { STORED, APPLIED, APPLIED_PLAIN } fate;

/* The gradients of `rows` rows of W from the i-th on. Each adds the rows of data in order. */
static inline __attribute__((always_inline)) void gradients_of_rows(const int B, const int rows, const fate fate,
                                                                    const few_rows *p, int64_t i) {
    const int64_t O = p->O, ldy = p->ldy;
    const real *const dy = p->dy;
    const int accumulate = fate == STORED && p->accumulate;
    vec x[4][FEW_ROWS];
    real *to[4], number[SGD_UPDATE_NUMBERS];
    memcpy(number, p->number, sizeof number);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        to[r] = p->to + (i + r) * O;
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            x[r][b] = broadcast(p->x[b * p->I + i + r]);
    }
#define EACH_GRADIENT(load_from, store_to)                                                         \
    vec y[FEW_ROWS];                                                                               \
    _Pragma("GCC unroll 4") for (int b = 0; b < B; b++)                                            \
        y[b] = load_from(dy + b * ldy + j);                                                        \
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++) {                                       \
        vec g = accumulate ? load_from(to[r] + j) : (vec){0};                                      \
        _Pragma("GCC unroll 4") for (int b = 0; b < B; b++)                                        \
            g = vec_madd(x[r][b], y[b], g);                                                        \
        store_to(to[r] + j, fate == STORED    ? g                                                  \
                            : fate == APPLIED ? updated(load_from(to[r] + j), g, number)           \
                                              : vec_madd(broadcast(number[0]), g, load_from(to[r] + j)));   \
    }
    int64_t j = 0;
#pragma GCC unroll 2
    for (; j + WIDTH <= O; j += WIDTH) {
        EACH_GRADIENT(load, store)
    }
#define LOAD_LAST(at) load_first(at, O - j)
#define STORE_LAST(at, v) store_first(at, v, O - j)
    if (j < O) {
        EACH_GRADIENT(LOAD_LAST, STORE_LAST)
    }
#undef LOAD_LAST
#undef STORE_LAST
#undef EACH_GRADIENT
}

static inline __attribute__((always_inline)) void gradients(const int B, const fate fate, const few_rows *p, int64_t i,
                                                            int64_t n) {
    const int rows = B == 1 ? 4 : 2;
    for (; n >= rows; n -= rows, i += rows)
        gradients_of_rows(B, rows, fate, p, i);
    for (; n > 0; n--, i++)
        gradients_of_rows(B, 1, fate, p, i);
}

/* All rows of W in the range. */
static inline __attribute__((always_inline)) void by_rows(const int B, const few_rows *p, fn_range range,
                                                          fn_rows *next_rows) {
    for (int64_t i = range.begin; i < range.end; i += GROUP) {
        const int64_t n = smaller(GROUP, range.end - i);
        int finite = p->dx != NULL; /* the sums, and so the weights in them */
        if (p->dx)
            for (int64_t r = 0; r < n; r += WIDTH)
                finite &= sums_along_rows(B, p, i + r, smaller(WIDTH, n - r));
        if (!p->to)
            ;
        else if (!p->updates)
            gradients(B, STORED, p, i, n);
        else if (p->is_plain && finite)
            gradients(B, APPLIED_PLAIN, p, i, n);
        else
            gradients(B, APPLIED, p, i, n);
        strip ahead = next_rows_of(next_rows);
        for (; ahead.runs > 0; next_run(&ahead))
            __builtin_prefetch(ahead.at);
    }
}

typedef void by_few_rows(const few_rows *p, fn_range range, fn_rows *next_rows);
#define ROWS_OF_DATA(B)                                                                            \
    static __attribute__((noinline)) void by_rows_##B(const few_rows *p, fn_range range, fn_rows *next_rows) {  \
        by_rows(B, p, range, next_rows);                                                           \
    }
ROWS_OF_DATA(1)
ROWS_OF_DATA(2)
ROWS_OF_DATA(3)
ROWS_OF_DATA(4)
static by_few_rows *const few_rows_of[FEW_ROWS] = {by_rows_1, by_rows_2, by_rows_3, by_rows_4};

/* Try to take over the SGD update of the n parameters whose gradient is g (or NULL), and the padding behind them, which
 * is zero and stays zero. Returns the parameters, or NULL. *is_plain: whether the update has no weight decay. */
static inline real *take_sgd(const fn_call *call, const real *g, int64_t n, real number[SGD_UPDATE_NUMBERS],
                             int *is_plain) {
    static fn_entry *sgd; /* a cache; every thread stores the same value */
    const int64_t line = FN_LINE / sizeof(real);
    real *of[2];
    if (!g)
        return NULL;
    const fn_instruction *at = take_over(call, "sgd_update", &sgd, 2, g, n, quotient_up(n, line) * line, of);
    if (!at)
        return NULL;
    const double *const hyper = call->update->hyper + at->group * call->update->hyper_size;
    sgd_update_numbers(number, hyper);
    *is_plain = hyper[1] == 0 && hyper[2] == 1; /* weight_decay and shrink */
    return of[0];
}

/* The same for a single row of W, or of something like it. */
static inline void by_columns(const fn_call *call, const few_rows *p) {
    SHARED(r, call, p->O, 16 * LANES) {
        few_rows part = *p;
        part.dy += r.begin;
        part.to += r.begin;
        part.O = r.end - r.begin;
        few_rows_of[call->rows - 1](&part, (fn_range){0, 1}, NULL);
    }
}

/* The backward of the linear layer for up to FEW_ROWS rows of data; see linear_vjp. */
static __attribute__((noinline)) void backward_of_few_rows(const fn_call *call, real *dx, real *dw, real *db,
                                                           const real *dy, const real *x, const real *w) {
    static const real ones[FEW_ROWS] = {1, 1, 1, 1};
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    const fn_update *const update = call->update;
    const int updates = update && !accumulate && !update->keeps_gradients && fn_may_take(update, call->at);
    few_rows p = {x, dy, w, O >= LANES ? dx : NULL, dw, I, O, O, 0, 0, accumulate, {0}};
    real *const own = updates ? take_sgd(call, dw, I * O, p.number, &p.is_plain) : NULL;
    if (dx && !p.dx) {
        gemm(call, (product){B, I, O, {dy, O, 1}, {w, 1, O}, dx, I, NULL, 0, 1, call, dx, 0});
        if (own)
            together(call); /* until no member reads w any more */
    }
    if (own) {
        p.to = own;
        p.updates = 1;
    } else if (dw && exceeds_cache(I * O)) { /* bypasses the caches */
        p.to = NULL;
        gemm(call, (product){I, O, B, {x, 1, I}, {dy, O, 1}, dw, O, NULL, accumulate, 0, call, NULL, 0});
    }
    if (p.to && O == 1) { /* a column is contiguous: it is the row of the transposed product */
        few_rows column = p;
        column.x = dy;
        column.dy = x;
        column.I = 1;
        column.O = column.ldy = I;
        by_columns(call, &column);
    } else if (p.dx || p.to) {
        SHARED(r, call, I, 4 * GROUP) {
            few_rows_of[B - 1](&p, r, call->next_rows);
            if (p.dx)
                apply_epilogue(call, r.begin, I, B, r.end - r.begin);
        }
    }
    if (!db)
        return;
    few_rows bias = {ones, dy, NULL, NULL, db, 1, O, O, 0, 0, accumulate, {0}}; /* 1·dy is dy */
    real *const own_bias = updates ? take_sgd(call, db, O, bias.number, &bias.is_plain) : NULL;
    if (own_bias) {
        bias.to = own_bias;
        bias.updates = 1;
    }
    by_columns(call, &bias);
}

#endif
