/* The gradient of a matrix of which a minibatch touches some rows alone, and the update that takes its place.
 *
 * A kernel computes the gradient of a touched row in registers and reaches that row once: it stores the gradient, or
 * applies it. It passes over the other rows only where something must be written there: zeros for a gradient that
 * somebody reads, Adam's update of weights without a gradient; plain SGD's is none.
 */
#ifndef FASTNET_TOUCHED_H
#define FASTNET_TOUCHED_H

#include "generated/adam_update.h"
#include "lib/rows.h"
#include "products/few_rows.h"

/* What becomes of a gradient. */
typedef enum { IS_STORED, ACCUMULATES, UPDATES_BY_SGD, UPDATES_BY_ADAM } gradient_use;

/* A matrix with rows of O numbers. */
typedef struct {
    int64_t O;
    gradient_use use;
    real *to; /* the gradient, or the matrix itself for an update */
    real *m, *v;
    real number[ADAM_UPDATE_NUMBERS];
} touched_rows;
_Static_assert((int)SGD_UPDATE_NUMBERS <= (int)ADAM_UPDATE_NUMBERS, "no room for SGD's numbers");

/* A matrix of I rows whose gradient is g; where possible with the update of the matrix, whose elements nobody may read
 * any more. */
static inline touched_rows touched(const fn_call *call, real *g, int64_t I, int64_t O) {
    static fn_entry *adam; /* a cache; every thread stores the same value */
    const int64_t line = FN_LINE / (int64_t)sizeof(real), n = I * O;
    const fn_update *const update = call->update;
    touched_rows p = {O, call->accumulate ? ACCUMULATES : IS_STORED, g, NULL, NULL, {0}};
    int is_plain = 0;
    real *of[4];
    if (!update || call->accumulate || update->keeps_gradients || !fn_may_take(update, call->at))
        return p;
    const fn_instruction *const at = take_over(call, "adam_update", &adam, 4, g, n, quotient_up(n, line) * line, of);
    if (at) {
        adam_update_numbers(p.number, update->hyper + at->group * update->hyper_size);
        p.use = UPDATES_BY_ADAM;
        p.to = of[0];
        p.m = of[1];
        p.v = of[2];
        return p;
    }
    real *const w = take_sgd(call, g, n, p.number, &is_plain);
    if (w && !is_plain) { /* it changes all of the matrix */
        call->update->count--;
    } else if (w) {
        p.use = UPDATES_BY_SGD;
        p.to = w;
    }
    return p;
}

/* What becomes of n elements of the gradient, at most `vectors` vectors of them, from element `at` on. Sums that
 * accumulate began with what is there. */
static inline __attribute__((always_inline)) void put_gradient(const int vectors, const touched_rows *p, int64_t at,
                                                               const vec *sum, int64_t n) {
    real *const to = p->to + at;
    if (p->use == UPDATES_BY_SGD) {
        for (int v = 0; v < vectors; v++)
            store_first(to + v * WIDTH,
                        updated(load_first(to + v * WIDTH, n - v * WIDTH), sum[v], p->number), n - v * WIDTH);
    } else if (p->use == UPDATES_BY_ADAM) {
        real g[ROW_VECTORS * WIDTH], number[ADAM_UPDATE_NUMBERS];
        real *const m = p->m + at, *const v_ = p->v + at;
        memcpy(number, p->number, sizeof number);
        for (int v = 0; v < vectors; v++)
            store(g + v * WIDTH, sum[v]);
        INDEPENDENT
        for (int64_t l = 0; l < n; l++)
            adam_update_element(to + l, m + l, v_ + l, g + l, number);
    } else {
        for (int v = 0; v < vectors; v++)
            store_first(to + v * WIDTH, sum[v], n - v * WIDTH);
    }
}

/* Rows [begin, end), which are not touched. */
static __attribute__((noinline)) void untouched(const touched_rows *p, int64_t begin, int64_t end) {
    if (p->use == IS_STORED)
        memset(p->to + begin * p->O, 0, (size_t)((end - begin) * p->O) * sizeof(real));
    if (p->use != UPDATES_BY_ADAM)
        return;
    real *const w = p->to, *const m = p->m, *const v = p->v, number[ADAM_UPDATE_NUMBERS];
    const real none = 0;
    memcpy(number, p->number, sizeof number);
    INDEPENDENT
    for (int64_t i = begin * p->O; i < end * p->O; i++)
        adam_update_element(w + i, m + i, v + i, &none, number);
}

/* Fetch a row. */
static inline void prefetch_row(const touched_rows *p, int64_t row) {
    for (int64_t j = 0; j < p->O; j += FN_LINE / (int64_t)sizeof(real))
        __builtin_prefetch(p->to + row * p->O + j, 1);
}

#endif
