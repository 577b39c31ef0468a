/* How the threads of a team share a kernel's work. Every thread runs the whole kernel; a loop over SHARED ranges hands
 * each range to one of them:
 *
 *     SHARED(r, call, rows, 16)
 *         for (int64_t i = r.begin; i < r.end; i++) …
 *
 * Ranges begin at multiples of the grain and cover [0, n) once. Neither their lengths nor the thread that takes one are
 * specified, and a thread that is alone takes [0, n) whole. Results must not depend on that, so no element may be
 * computed from another range's results. `together` is a barrier; run_program has one between two kernels. Every thread
 * must meet the same loops in the same order.
 */
#ifndef FASTNET_SHARE_H
#define FASTNET_SHARE_H

#include "engine/call.h"
#include "engine/pool.h"

#define SHARED(r, call, n, grain)                                                                  \
    for (fn_range r = share_first(call, n, grain); r.begin < r.end; r = share_next(call, n, grain))

static inline fn_range share_first(const fn_call *call, int64_t n, int64_t grain) {
    return call->member ? fn_first_range(call->member, n, grain) : (fn_range){0, n};
}

static inline fn_range share_next(const fn_call *call, int64_t n, int64_t grain) {
    return call->member ? fn_next_range(call->member, n, grain) : (fn_range){n, n};
}

static inline void together(const fn_call *call) {
    if (call->member)
        fn_barrier(call->member);
}

/* Whether this thread does what only one of its team must do. */
static inline int is_first(const fn_call *call) { return !call->member || !call->member->number; }

#endif
