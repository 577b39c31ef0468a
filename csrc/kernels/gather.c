/* Gathering minibatches and checking inputs: see engine/gather.h. */
#include "engine/gather.h"

#include <string.h>

#include "lib/kernel.h"
#include "lib/order.h"

#if REAL_IS_DOUBLE
typedef float other_real;
#else
typedef double other_real;
#endif

enum { OWN = REAL_IS_DOUBLE ? FN_FLOAT64 : FN_FLOAT32 };

/* Prefetch a row: the hardware cannot predict where in a large data set the next one lies. */
static inline void prefetch(const void *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += FN_LINE)
        __builtin_prefetch((const char *)row + i);
}

#define CONVERT_FROM(type)                                                                         \
    for (int64_t r = begin; r < end; r++) {                                                        \
        const type *const data = source->data;                                                     \
        const type *restrict from = data + index[r] * n;                                           \
        real *restrict to = (real *)source->stage + r * n;                                         \
        if (r + 1 < end)                                                                           \
            prefetch(data + index[r + 1] * n, n * (int64_t)sizeof(type));                             \
        for (int64_t j = 0; j < n; j++)                                                            \
            to[j] = (real)from[j];                                                                 \
    }

/* Copy a row. A few bytes are not worth a call of memcpy, and the branches are well predicted: all rows have one
 * length. */
static inline __attribute__((always_inline)) void copy(char *restrict to, const char *restrict from, int64_t bytes) {
    if (bytes == 4) {
        memcpy(to, from, 4);
    } else if (bytes >= 8 && bytes <= 16) {
        memcpy(to, from, 8);
        memcpy(to + bytes - 8, from + bytes - 8, 8);
    } else if (bytes > 16 && bytes <= 32) {
        memcpy(to, from, 16);
        memcpy(to + bytes - 16, from + bytes - 16, 16);
    } else {
        memcpy(to, from, (size_t)bytes);
    }
}

static void gather(const fn_source *source, const int64_t *index, int64_t begin, int64_t end) {
    const int64_t n = source->width;
    if (source->kind == OWN)
        for (int64_t r = begin; r < end; r++)
            copy((char *)((real *)source->stage + r * n), (const char *)((const real *)source->data + index[r] * n),
                 n * (int64_t)sizeof(real));
    else if (source->kind == FN_UINT8)
        CONVERT_FROM(uint8_t)
    else if (source->kind == FN_INT64)
        CONVERT_FROM(int64_t)
    else
        CONVERT_FROM(other_real)
}

#if REAL_IS_DOUBLE
typedef int64_t word_bits;
#else
typedef int32_t word_bits;
#endif

/* Only infinities and NaN have all bits of the exponent set. */
static int all_finite(const void *numbers, int64_t n) {
    enum { PIECE = 4 * LANES, AHEAD = 1024 }; /* elements at a time; the prefetch distance in bytes */
    const word_bits exponent = REAL(0x7F800000, 0x7FF0000000000000), *word = numbers;
    word_bits greatest[PIECE] = {0};
    int64_t at = 0;
    for (; at + PIECE <= n; at += PIECE) {
        prefetch((const char *)(word + at) + AHEAD, PIECE * sizeof(real));
        for (int l = 0; l < PIECE; l++) {
            const word_bits own = word[at + l] & exponent;
            greatest[l] = own > greatest[l] ? own : greatest[l];
        }
    }
    word_bits all = 0;
    for (int l = 0; l < PIECE; l++)
        all = greatest[l] > all ? greatest[l] : all;
    for (; at < n; at++)
        all = (word[at] & exponent) > all ? word[at] & exponent : all;
    return all < exponent;
}

static const fn_data_functions info = {OWN, LEVEL, gather, all_finite, order};
static const fn_data_functions *const listed __attribute__((section("fn_data_functions"), used)) = &info;
