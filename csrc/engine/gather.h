/* Functions on a caller's data: gather rows of a data set, converted to the plan's dtype; check inputs for NaN and
 * infinity. */
#ifndef FASTNET_GATHER_H
#define FASTNET_GATHER_H

#include "engine/fastnet.h"

typedef struct {
    const void *data; /* rows of `width` elements of a kind */
    int64_t kind, width;
    void *stage;  /* where its rows go, in the plan's dtype */
    double scale; /* the factor of each number, once converted; 0: none */
    /* Of sparse rows, or NULL: `data` has the elements of all rows, row r those from begins[r] to begins[r + 1]. */
    const int64_t *begins;
    const int32_t *columns; /* the caller may change them meanwhile */
} fn_source;

/* Copy rows index[begin], …, index[end − 1] of the data to rows [begin, end) of the stage. Returns whether
 * all columns lie in [0, width), which only those of sparse rows may not. */
typedef int fn_gather(const fn_source *source, const int64_t *index, int64_t begin, int64_t end);

/* Where the elements of a minibatch of sparse rows go, as kernels read them: its numbers and their columns, row by row,
 * and where each row ends. And the same elements column by column, where rows follow in order, or NULL. */
typedef struct {
    void *x;
    int64_t *columns, *ends;
    void *xt;
    int64_t *columns_t, *rows_t;
    uint64_t *room; /* 3 words for each element */
} fn_elements;

/* Copy the elements of `rows` rows. Returns whether all columns lie in [0, width); else nothing may be read. */
typedef int fn_gather_elements(const fn_source *source, const int64_t *index, int64_t rows, const fn_elements *to);

/* Whether all of n numbers are finite. */
typedef int fn_all_finite(const void *numbers, int64_t n);

/* The order of an epoch's n rows: a permutation that is a function of (seed, stream, epoch). `room` is for n words. */
typedef void fn_order(uint64_t seed, int64_t stream, uint64_t epoch, int64_t n, int64_t *rows, uint64_t *room);

/* Draws of 64 bits: see fn_draws. */
typedef void fn_draw(uint64_t seed, int64_t stream, uint64_t step, int64_t first, int64_t n, uint64_t *drawn);

/* Registered in a linker section as kernels are. All levels give the same results. */
typedef struct {
    int64_t dtype, level;
    fn_gather *gather;
    fn_gather_elements *gather_elements;
    fn_all_finite *all_finite;
    fn_order *order;
    fn_draw *draw;
} fn_data_functions;

/* The functions of the highest level that this machine runs. */
const fn_data_functions *fn_data_functions_of(int64_t dtype);

static inline int64_t fn_bytes_of(int64_t kind) {
    return kind == FN_FLOAT32 ? 4 : kind == FN_UINT8 ? 1 : 8;
}

#endif
