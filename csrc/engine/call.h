/* What a kernel receives and how it is registered, whatever its dtype. */
#ifndef FASTNET_CALL_H
#define FASTNET_CALL_H

#include <stddef.h>

#include "engine/fastnet.h"
#include "engine/pool.h"

typedef struct fn_call fn_call;

/* An elementwise kernel as an epilogue: it works on rows of n elements, `stride` apart, from element `first` on. */
typedef void fn_epilogue(const fn_call *call, int64_t first, int64_t stride, int64_t rows, int64_t n);

/* What a product's tiles compute a ReLU mask from: the product itself (forward), or the ReLU's output (backward). */
typedef enum { FN_MASK_NONE, FN_MASK_OF_ITSELF, FN_MASK_OF_OTHER } fn_relu_mask;

/* Rows of the data set that the next step reads. A product's tiles prefetch them. */
typedef struct {
    const char *data;
    const int64_t *index;
    int64_t bytes;      /* of a row */
    int64_t begin, end; /* rows index[begin], …, index[end − 1] are still to be prefetched, */
    int64_t at;         /* but for the first `at` bytes of row index[begin] */
} fn_rows;

/* Elements [begin, end) of an update instruction's vectors, which a product has updated. */
typedef struct {
    const fn_instruction *at;
    int64_t begin, end;
} fn_taken;

enum { FN_TAKEN = 64 };

/* The update program that follows a backward program, and the parts of it that products have interleaved. */
typedef struct {
    const fn_instruction *program, *end, *backward_end;
    const double *hyper;
    int64_t hyper_size;
    int64_t keeps_gradients; /* whether all gradients must be stored, as somebody may read them after this step */
    void *queue; /* the update_queue of the product at work (products/interleave.h), or NULL */
    int64_t count;
    fn_taken taken[FN_TAKEN];
} fn_update;

struct fn_call {
    const fn_instruction *at;
    const int64_t *segment; /* base addresses */
    const int64_t *size;    /* the op's dims */
    const double *scalar;   /* the op's scalars */
    const double *hyper;    /* of an update: the group's hyper-parameters */
    int64_t rows;
    int64_t accumulate;
    uint64_t seed, step;
    int64_t stream;
    void *scratch;     /* this thread's FN_SCRATCH bytes, uninitialised */
    fn_member *member; /* this thread as a member of a team, or NULL: it is alone */
    const fn_call *next;   /* the call of the elementwise kernel fused with this one, or NULL */
    fn_epilogue *epilogue; /* that kernel */
    int64_t relu_mask;     /* that kernel as a mask that tiles can apply: an fn_relu_mask */
    fn_rows *next_rows;    /* to be prefetched, or NULL */
    fn_update *update;     /* of which a kernel may do a part, or NULL */
};

/* The i-th tensor in the order of the reference's arguments; NULL if absent. */
static inline void *fn_tensor(const fn_call *call, int i) {
    const int32_t segment = call->at->segment[i];
    return segment < 0 ? NULL : (void *)(intptr_t)(call->segment[segment] + call->at->offset[i]);
}

typedef void fn_entry(const fn_call *call);

/* An elementwise kernel of other code, for elements [begin, end) of its tensors, which come in the order of the
 * reference's arguments; the scalars are the op's. */
typedef void fn_foreign(void *const *tensors, const double *scalars, int64_t begin, int64_t end);

/* The entry of a kernel at the highest level up to this one that has it, or NULL if there is none. */
fn_entry *fn_entry_of(const char *name, int64_t dtype, int64_t level);

/* Whether a kernel calls `apply_epilogue` for all of its first tensor; a product's tiles can apply a ReLU mask too. */
typedef enum { FN_FUSES_NOTHING, FN_FUSES_PIECES, FN_FUSES_TILES } fn_fusing;

typedef struct {
    const char *name, *tensors;
    int64_t dtype, level;
    fn_entry *entry;
    fn_epilogue *epilogue; /* of an elementwise kernel, else NULL */
    int fuses;             /* an fn_fusing */
} fn_kernel;

/* Whether instruction `by` may update the parameters whose gradient it computes. It may not if a layer is used again
 * further on in the backward program: a later instruction then reads the parameters and adds to a gradient. */
static inline int fn_may_take(const fn_update *u, const fn_instruction *by) {
    for (const fn_instruction *at = by + 1; at < u->backward_end; at++)
        if (at->accumulate)
            return 0;
    return u->count < FN_TAKEN;
}

/* Apply the fused elementwise kernel, if there is one, in place to a piece of this kernel's first tensor. The piece has
 * its final values and is still in cache. */
static inline void apply_epilogue(const fn_call *call, int64_t first, int64_t stride, int64_t rows, int64_t n) {
    if (!call->next)
        return;
    if (stride == n)
        call->epilogue(call->next, first, 0, 1, rows * n);
    else
        call->epilogue(call->next, first, stride, rows, n);
}

#endif
