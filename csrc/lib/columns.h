/* Kernels that take columns in blocks so narrow that their sums over the rows stay in registers. */
#ifndef FASTNET_COLUMNS_H
#define FASTNET_COLUMNS_H

#include "engine/share.h"
#include "lib/simd.h"

enum { MOST = 8, SOME = 4 }; /* vectors in a block */

#define INLINED static inline __attribute__((always_inline))

/* Call block(call, j, n, vectors, …) for each block of n columns from j on. n and vectors are constants, except for the
 * remainder of less than a vector. */
#define BY_BLOCKS(block, call, ...)                                                                \
    SHARED(r, call, (call)->size[0], MOST * WIDTH)                                                 \
        for (int64_t j = r.begin, n; j < r.end; j += n) {                                          \
            n = r.end - j;                                                                         \
            if (n >= MOST * WIDTH)                                                                 \
                block(call, j, n = MOST * WIDTH, MOST, __VA_ARGS__);                               \
            else if (n >= SOME * WIDTH)                                                            \
                block(call, j, n = SOME * WIDTH, SOME, __VA_ARGS__);                               \
            else                                                                                   \
                block(call, j, n = smaller(n, WIDTH), 1, __VA_ARGS__);                             \
        }

/* The v-th vector of n numbers, of which the last may be partial. */
INLINED vec part(const real *p, int v, int64_t n) {
    return load_first(p + v * WIDTH, n - v * WIDTH);
}

INLINED void put_part(real *p, int v, int64_t n, vec value) {
    store_first(p + v * WIDTH, value, n - v * WIDTH);
}

INLINED vec part_or(const real *p, int64_t j, int v, int64_t n, real otherwise) {
    return p ? part(p + j, v, n) : broadcast(otherwise);
}

/* Write a parameter's gradient, or add to it. NULL: it is not wanted. */
INLINED void put_gradient(real *into, int64_t j, int64_t n, const int vectors, const vec *from,
                          int64_t accumulate) {
    for (int v = 0; into && v < vectors; v++)
        put_part(into + j, v, n, accumulate ? part(into + j, v, n) + from[v] : from[v]);
}

#endif
