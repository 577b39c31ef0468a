/* What a kernel receives, and how it is listed: the part of the kernels' world without a dtype. */
#ifndef FASTNET_CALL_H
#define FASTNET_CALL_H

#include <stddef.h>

#include "engine/fastnet.h"
#include "engine/pool.h"

typedef struct fn_call fn_call;

/* An elementwise kernel on a piece of its tensors: rows of n elements, `stride` apart, from `first` on. */
typedef void fn_piece(const fn_call *call, int64_t first, int64_t stride, int64_t rows, int64_t n);

/* By what tiles of a product rectify it: by itself, or by what the rectifier made of its input. */
typedef enum { FN_GATE_NONE, FN_GATE_ITSELF, FN_GATE_OTHER } fn_gate;

/* Rows of a data set that the next step reads: a product asks for them while its tiles compute. */
typedef struct {
    const char *data;
    const int64_t *index;
    int64_t bytes;      /* of a row */
    int64_t begin, end; /* what is left: rows index[begin], …, index[end − 1] */
    int64_t at;         /* without so many bytes of the first */
} fn_rows;

/* Elements of an update instruction's vectors that are updated already. */
typedef struct {
    const fn_instruction *at;
    int64_t begin, end;
} fn_taken;

enum { FN_TAKEN = 64 };

/* The update that follows a backward, and what kernels of that backward have done of it. */
typedef struct {
    const fn_instruction *program, *end, *backward_end;
    const double *hyper;
    int64_t hyper_size;
    void *pending; /* what tiles of the product at work do of it (beside.h), or NULL */
    int64_t count;
    fn_taken taken[FN_TAKEN];
} fn_update;

struct fn_call {
    const fn_instruction *at;
    const int64_t *segment; /* base addresses */
    const int64_t *size;    /* the op's dims */
    const double *scalar;   /* the op's scalars */
    const double *hyper;    /* updates only: the group's row of hyper-parameters */
    int64_t rows;
    int64_t accumulate;
    uint64_t seed, step;
    int64_t stream;
    void *scratch; /* FN_SCRATCH bytes of this thread's own, of any content */
    fn_member *member; /* this thread's part in a team, or NULL: it is alone */
    const fn_call *next; /* what `finish` calls `piece` with, or NULL */
    fn_piece *piece;
    int64_t gates;       /* an fn_gate, where tiles can do that instead */
    fn_rows *next_rows; /* to be fetched, or NULL */
    fn_update *update;  /* which kernels may do in part, or NULL */
};

/* The i-th tensor in the order of the reference's arguments; NULL: absent. */
static inline void *fn_tensor(const fn_call *call, int i) {
    const int32_t segment = call->at->segment[i];
    return segment < 0 ? NULL : (void *)(intptr_t)(call->segment[segment] + call->at->offset[i]);
}

typedef void fn_entry(const fn_call *call);

/* The entry of the kernel of a name, dtype and level, or NULL. */
fn_entry *fn_entry_of(const char *name, int64_t dtype, int64_t level);

/* Whether a kernel calls `finish` for all of its first tensor; a product's tiles may do the same in registers. */
typedef enum { FN_FINISHES_NOTHING, FN_FINISHES_PIECES, FN_FINISHES_TILES } fn_finishing;

typedef struct {
    const char *name, *tensors;
    int64_t dtype, level;
    fn_entry *entry;
    fn_piece *piece; /* of an elementwise kernel */
    int finishes;    /* an fn_finishing */
} fn_kernel;

/* Whether the instruction `by` may update parameters whose gradient it makes. It reads them no more, and nobody else
 * does where a layer is used once; of one that is used again, a later instruction adds to the gradient. */
static inline int fn_may_take(const fn_update *u, const fn_instruction *by) {
    for (const fn_instruction *at = by + 1; at < u->backward_end; at++)
        if (at->accumulate)
            return 0;
    return u->count < FN_TAKEN;
}

/* Let the elementwise kernel that follows, if it has been fused with this one, work in place on a piece of
 * this one's first tensor, which has its last values now. */
static inline void finish(const fn_call *call, int64_t first, int64_t stride, int64_t rows,
                          int64_t n) {
    if (!call->next)
        return;
    if (stride == n)
        call->piece(call->next, first, 0, 1, rows * n);
    else
        call->piece(call->next, first, stride, rows, n);
}

#endif
