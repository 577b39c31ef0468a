/* Adam's update, interleaved with the product dW = Xᵀ·dY that computes its gradient.
 *
 * While the micro-kernel computes one tile of dW, it updates parameters whose gradient earlier tiles have completed:
 * one vector of them after every few iterations of its loop over k. The update's square roots, divisions and cache
 * misses then overlap with the multiply-adds. Each parameter is computed as by the update alone, so no bit changes.
 */
#ifndef FASTNET_INTERLEAVE_H
#define FASTNET_INTERLEAVE_H

#include "generated/adam_update.h"
#include "lib/simd.h"

/* Interleaving needs registers for both computations, so only AVX-512 has it. float64 goes without: training in it
 * is rare, and the code is large. Each vector costs the micro-kernel's loop an interruption, which too small a K does
 * not hide; see docs/tuning.md. */
enum { INTERLEAVES_UPDATES = VECTOR_BYTES == 64 && !REAL_IS_DOUBLE, MIN_INTERLEAVED_K = 96 };

/* A queue of parameters: the gradient of elements [at, end) is complete, and their update is still to be done. */
typedef struct {
    real *w, *m, *v;
    const real *g;
    int64_t at, end;
    real number[ADAM_UPDATE_NUMBERS];
} update_queue;

/* Update the first vector of the queue, and prefetch one further back. */
static inline __attribute__((always_inline)) void update_vector(update_queue *p) {
    enum { AHEAD = 52 * WIDTH }; /* what two tiles update: 2 · INTERLEAVED_ROWS · 2 vectors */
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

/* Whether the product at work interleaves an update. */
static inline int is_interleaving(const fn_call *call) {
    return INTERLEAVES_UPDATES && call->update && call->update->queue;
}

/* Update the whole queue. */
static __attribute__((noinline, unused)) void update_all(update_queue *p) {
    while (p->end - p->at >= WIDTH)
        update_vector(p);
    for (; p->at < p->end; p->at++)
        adam_update_element(p->w + p->at, p->m + p->at, p->v + p->at, p->g + p->at, p->number);
}

/* Try to take over the update of the n parameters whose gradient g this instruction computes. Returns whether that
 * succeeded: then the update program skips them, and p is their queue, still empty. */
static inline int take_update(const fn_call *call, const real *g, int64_t n, update_queue *p) {
    static fn_entry *adam; /* a cache; every thread stores the same value */
    fn_update *u = call->update;
    if (!INTERLEAVES_UPDATES || !u || !fn_may_take(u, call->at))
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
        *p = (update_queue){(real *)(intptr_t)of[0], (real *)(intptr_t)of[1], (real *)(intptr_t)of[2], g, 0, 0, {0}};
        adam_update_numbers(p->number, u->hyper + at->group * u->hyper_size);
        u->taken[u->count++] = (fn_taken){at, begin, begin + n};
        return 1;
    }
    return 0;
}

#endif
