/* What a kernel receives, and how it is listed: the part of the kernels' world without a dtype. */
#ifndef FASTNET_CALL_H
#define FASTNET_CALL_H

#include <stddef.h>

#include "fastnet.h"
#include "pool.h"

typedef struct {
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
} fn_call;

/* The i-th tensor in the order of the reference's arguments; NULL: absent. */
static inline void *fn_tensor(const fn_call *call, int i) {
    const int32_t segment = call->at->segment[i];
    return segment < 0 ? NULL : (void *)(intptr_t)(call->segment[segment] + call->at->offset[i]);
}

typedef void fn_entry(const fn_call *call);

typedef struct {
    const char *name, *tensors;
    int64_t dtype, level;
    fn_entry *entry;
} fn_kernel;

#endif
