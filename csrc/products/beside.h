/* An update beside the product that makes its gradient: while a tile of dW computes, parameters whose gradient the
 * tiles before have completed are updated, a vector every so many k. Square root and division then run beside the
 * tile's multiply-adds, and what comes from memory has time to come. No bit changes. */
#ifndef FASTNET_BESIDE_H
#define FASTNET_BESIDE_H

#include "generated/adam_update.h"
#include "lib/simd.h"

/* Where this pays: with registers enough for both, for vectors that exceed the cache, and for so many k at least, as
 * every turn of a tile takes time of its own. Measured. Its code is large, and float64 is trained in seldom. */
enum { UPDATES_BESIDE = VECTOR_BYTES == 64 && !REAL_IS_DOUBLE, LEAST_K_BESIDE = 96 };

/* Vectors of so many elements, of which [at, end) have their gradient and wait to be updated. */
typedef struct {
    real *w, *m, *v;
    const real *g;
    int64_t at, end;
    real number[ADAM_UPDATE_NUMBERS];
} pending;

static inline __attribute__((always_inline)) void update_vector(pending *p) {
    enum { AHEAD = 52 * WIDTH }; /* as many as two tiles update */
    real *w = p->w + p->at, *m = p->m + p->at, *v = p->v + p->at;
    const real *g = p->g + p->at;
    __builtin_prefetch(w + AHEAD, 1);
    __builtin_prefetch(m + AHEAD, 1);
    __builtin_prefetch(v + AHEAD, 1);
    __builtin_prefetch(g + AHEAD);
    INDEPENDENT
    for (int l = 0; l < WIDTH; l++)
        adam_update_element(w + l, m + l, v + l, g + l, p->number);
    p->at += WIDTH;
}

/* Whether the product at work updates beside. */
static inline int is_updating(const fn_call *call) { return UPDATES_BESIDE && call->update && call->update->pending; }

/* All that wait. */
static __attribute__((noinline, unused)) void update_rest(pending *p) {
    while (p->end - p->at >= WIDTH)
        update_vector(p);
    for (; p->at < p->end; p->at++)
        adam_update_element(p->w + p->at, p->m + p->at, p->v + p->at, p->g + p->at, p->number);
}

/* Whether the update of n parameters, whose gradient this instruction makes, is its own business from now on. Then p
 * is ready for that, with no element that waits. */
static inline int takes_update(const fn_call *call, const real *g, int64_t n, pending *p) {
    static fn_entry *adam; /* any thread finds the same */
    fn_update *u = call->update;
    if (!UPDATES_BESIDE || !u || !fn_may_take(u, call->at))
        return 0;
    if (!__atomic_load_n(&adam, __ATOMIC_RELAXED))
        __atomic_store_n(&adam, fn_entry_of("adam_update", REAL_IS_DOUBLE ? FN_FLOAT64 : FN_FLOAT32, LEVEL),
                         __ATOMIC_RELAXED);
    const int64_t entry = (int64_t)(intptr_t)__atomic_load_n(&adam, __ATOMIC_RELAXED);
    for (const fn_instruction *at = u->program; at < u->end && at->entry == entry; at++) {
        int64_t of[4]; /* addresses of w, m, v and g */
        for (int i = 0; i < 4; i++)
            of[i] = call->segment[at->segment[i]] + at->offset[i];
        const int64_t begin = ((int64_t)(intptr_t)g - of[3]) / (int64_t)sizeof(real);
        if ((int64_t)(intptr_t)g < of[3] || begin + n > at->size[0])
            continue;
        for (int i = 0; i < 4; i++)
            of[i] += begin * (int64_t)sizeof(real);
        *p = (pending){(real *)(intptr_t)of[0], (real *)(intptr_t)of[1], (real *)(intptr_t)of[2], g, 0, 0, {0}};
        adam_update_numbers(p->number, u->hyper + at->group * u->hyper_size);
        u->taken[u->count++] = (fn_taken){at, begin, begin + n};
        return 1;
    }
    return 0;
}

#endif
