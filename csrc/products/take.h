/* How a kernel takes over the update of the parameters whose gradient it computes. */
#ifndef FASTNET_TAKE_H
#define FASTNET_TAKE_H

#include "lib/kernel.h"

/* Take over the update of the n parameters whose gradient g this instruction computes, if the update program begins with
 * the rule `name` for them. Returns the rule's instruction, which the update program then skips for elements
 * [g, g + skipped), or NULL. The rule has so many tensors, the last of them the gradient; of[i] points to the first
 * parameter's element of the i-th. The caller asks fn_may_take before. `cache` is NULL at first; every thread stores the
 * same value. */
static inline const fn_instruction *take_over(const fn_call *call, const char *name, fn_entry **cache, int tensors,
                                              const real *g, int64_t n, int64_t skipped, real **of) {
    fn_update *u = call->update;
    if (u->count == FN_TAKEN)
        return NULL;
    if (!__atomic_load_n(cache, __ATOMIC_RELAXED))
        __atomic_store_n(cache, fn_entry_of(name, REAL_IS_DOUBLE ? FN_FLOAT64 : FN_FLOAT32, LEVEL), __ATOMIC_RELAXED);
    const int64_t entry = (int64_t)(intptr_t)__atomic_load_n(cache, __ATOMIC_RELAXED);
    for (const fn_instruction *at = u->program; at < u->end && at->entry == entry; at++) {
        const int64_t gradients = call->segment[at->segment[tensors - 1]] + at->offset[tensors - 1];
        const int64_t begin = ((int64_t)(intptr_t)g - gradients) / (int64_t)sizeof(real);
        if ((int64_t)(intptr_t)g < gradients || begin + n > at->size[0])
            continue;
        for (int i = 0; i < tensors; i++)
            of[i] = (real *)(intptr_t)(call->segment[at->segment[i]] + at->offset[i]) + begin;
        u->taken[u->count++] = (fn_taken){at, begin, smaller(begin + skipped, at->size[0])};
        return at;
    }
    return NULL;
}

#endif
