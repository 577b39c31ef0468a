/* What is done to a caller's data: rows of a data set become rows of an array of the plan's dtype; inputs are
 * searched for what is not finite. */
#ifndef FASTNET_GATHER_H
#define FASTNET_GATHER_H

#include "engine/fastnet.h"

typedef struct {
    const void *data; /* rows of `width` elements of a kind */
    int64_t kind, width;
    void *stage; /* rows of the plan's dtype */
} fn_source;

/* Rows [begin, end) of the stage become rows index[begin], … of the data. */
typedef void fn_gather(const fn_source *source, const int64_t *index, int64_t begin, int64_t end);

/* Whether none of n numbers of a dtype is infinite or NaN. */
typedef int fn_all_finite(const void *numbers, int64_t n);

/* Listed in a linker section as the kernels are. All levels give the same results. */
typedef struct {
    int64_t dtype, level;
    fn_gather *gather;
    fn_all_finite *all_finite;
} fn_data_functions;

/* Those of the highest level of this machine. */
const fn_data_functions *fn_data_functions_of(int64_t dtype);

static inline int64_t fn_bytes_of(int64_t kind) {
    return kind == FN_FLOAT32 ? 4 : kind == FN_UINT8 ? 1 : 8;
}

#endif
