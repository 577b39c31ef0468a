/* Gathering minibatches: see gather.h. */
#include "gather.h"

#include <string.h>

#include "kernel.h"

#if REAL_IS_DOUBLE
typedef float other_real;
#else
typedef double other_real;
#endif

enum { OWN = REAL_IS_DOUBLE ? FN_FLOAT64 : FN_FLOAT32 };

/* Rows lie anywhere in a large array: ask for the next one while this one is at work. */
static inline void fetch(const void *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += FN_LINE)
        __builtin_prefetch((const char *)row + i);
}

#define CONVERT_FROM(type)                                                                         \
    for (int64_t r = begin; r < end; r++) {                                                        \
        const type *const data = source->data;                                                     \
        const type *restrict from = data + index[r] * n;                                           \
        real *restrict to = (real *)source->stage + r * n;                                         \
        if (r + 1 < end)                                                                           \
            fetch(data + index[r + 1] * n, n * (int64_t)sizeof(type));                             \
        for (int64_t j = 0; j < n; j++)                                                            \
            to[j] = (real)from[j];                                                                 \
    }

static void gather(const fn_source *source, const int64_t *index, int64_t begin, int64_t end) {
    const int64_t n = source->width;
    if (source->kind == OWN)
        for (int64_t r = begin; r < end; r++)
            memcpy((real *)source->stage + r * n, (const real *)source->data + index[r] * n,
                   (size_t)n * sizeof(real));
    else if (source->kind == FN_UINT8)
        CONVERT_FROM(uint8_t)
    else if (source->kind == FN_INT64)
        CONVERT_FROM(int64_t)
    else
        CONVERT_FROM(other_real)
}

static const fn_gatherer info = {OWN, LEVEL, gather};
static const fn_gatherer *const listed __attribute__((section("fn_gatherers"), used)) = &info;
