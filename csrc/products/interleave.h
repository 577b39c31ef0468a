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
#include "products/take.h"

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
    real *of[4];
    if (!INTERLEAVES_UPDATES || !call->update || !fn_may_take(call->update, call->at))
        return 0;
    const fn_instruction *at = take_over(call, "adam_update", &adam, 4, g, n, n, of);
    if (!at)
        return 0;
    *p = (update_queue){of[0], of[1], of[2], g, 0, 0, {0}};
    adam_update_numbers(p->number, call->update->hyper + at->group * call->update->hyper_size);
    return 1;
}

#endif
