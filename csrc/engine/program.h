/* How a thread runs the instructions of a program. */
#ifndef FASTNET_PROGRAM_H
#define FASTNET_PROGRAM_H

#include "engine/share.h"

static inline void *pointer(int64_t address) { return (void *)(intptr_t)address; }

/* Work that a product interleaves with its own. */
typedef struct {
    fn_rows *next_rows; /* to be prefetched by the last kernel, or NULL */
    fn_update *update;  /* of which any kernel may do a part, or NULL */
} fn_side_work;

static inline void point_to(fn_call *call, const fn_instruction *at, const fn_context *context) {
    call->at = at;
    call->size = at->size;
    call->scalar = at->scalar;
    call->stream = at->stream;
    call->rows = context->rows * (1 + at->more_rows);
    call->accumulate = context->accumulate | at->accumulate;
    if (context->hyper)
        call->hyper = (const double *)pointer(context->hyper) + at->group * context->hyper_size;
}

/* Run this thread's part of the kernels in [at, end), up to the first control instruction; return where it stopped.
 *
 * An instruction that has an epilogue runs fused with the instruction after it. That pays for tensors that exceed the
 * first caches, and wherever tiles apply a ReLU mask in registers, which they do for a thread that is alone. */
static inline const fn_instruction *run_program(const fn_instruction *at, const fn_instruction *end,
                                                const fn_context *context, fn_member *member,
                                                const fn_side_work *side_work) {
    fn_call call = {
        .segment = context->segment,
        .seed = context->seed,
        .step = context->step,
        .scratch = pointer(context->scratch + (member ? member->number * FN_SCRATCH : 0)),
        .member = member,
        .update = side_work ? side_work->update : NULL,
    };
    for (; at < end && at->kernel >= 0; at++) {
        fn_call next;
        point_to(&call, at, context);
        call.next_rows = side_work && at + 1 == end ? side_work->next_rows : NULL;
        if (at->epilogue &&
            (context->rows * (1 + at[1].more_rows) * at[1].size[0] >= context->elements_to_fuse ||
             (at->relu_mask && !member))) {
            call.relu_mask = at->relu_mask;
            next = call;
            point_to(&next, ++at, context);
            call.next = &next;
            call.epilogue = (fn_epilogue *)pointer(at[-1].epilogue);
        }
        ((fn_entry *)pointer(call.at->entry))(&call);
        call.next = NULL;
        together(&call);
    }
    return at;
}

#endif
