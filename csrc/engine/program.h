/* How a thread runs the instructions of a program. */
#ifndef FASTNET_PROGRAM_H
#define FASTNET_PROGRAM_H

#include "engine/share.h"

static inline void *pointer(int64_t address) { return (void *)(intptr_t)address; }

/* What is done beside the last kernel of a range of instructions, and who may do it. */
typedef struct {
    fn_rows *next_rows; /* to be fetched, or NULL */
    fn_update *update;  /* to be done in part, or NULL */
} fn_beside;

static inline void point_to(fn_call *call, const fn_instruction *at, const fn_context *context) {
    call->at = at;
    call->size = at->size;
    call->scalar = at->scalar;
    call->stream = at->stream;
    call->accumulate = context->accumulate | at->accumulate;
    if (context->hyper)
        call->hyper = (const double *)pointer(context->hyper) + at->group * context->hyper_size;
}

/* This thread's part of the kernels in [at, end), up to the first control instruction; returns where it stopped. An
 * instruction with a piece takes the one behind it along. `beside` is NULL or for all of them. */
static inline const fn_instruction *run_program(const fn_instruction *at, const fn_instruction *end,
                                                const fn_context *context, fn_member *member,
                                                const fn_beside *beside) {
    fn_call call = {
        .segment = context->segment,
        .rows = context->rows,
        .seed = context->seed,
        .step = context->step,
        .scratch = pointer(context->scratch + (member ? member->number * FN_SCRATCH : 0)),
        .member = member,
        .update = beside ? beside->update : NULL,
    };
    for (; at < end && at->kernel >= 0; at++) {
        fn_call next;
        point_to(&call, at, context);
        call.next_rows = beside && at + 1 == end ? beside->next_rows : NULL;
        if (at->piece && (context->rows * at[1].size[0] >= context->elements_to_fuse || (at->gates && !member))) {
            call.gates = at->gates;
            next = call;
            point_to(&next, ++at, context);
            call.next = &next;
            call.piece = (fn_piece *)pointer(at[-1].piece);
        }
        ((fn_entry *)pointer(call.at->entry))(&call);
        call.next = NULL;
        together(&call);
    }
    return at;
}

#endif
