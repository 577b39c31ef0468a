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
        if (scale)                                                                                 \
            for (int64_t j = 0; j < n; j++)                                                        \
                to[j] = (real)from[j] * scale;                                                     \
        else                                                                                       \
            for (int64_t j = 0; j < n; j++)                                                        \
                to[j] = (real)from[j];                                                             \
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

/* One element of sparse rows, in the dtype. */
static inline real element_of(const fn_source *source, int64_t k) {
    const real value = source->kind == OWN          ? ((const real *)source->data)[k]
                       : source->kind == FN_UINT8 ? (real)((const uint8_t *)source->data)[k]
                                                    : (real)((const other_real *)source->data)[k];
    return source->scale ? value * (real)source->scale : value;
}

/* The same for sparse rows: zeros, and the elements of each. */
static int gather_sparse(const fn_source *source, const int64_t *index, int64_t begin, int64_t end) {
    const int64_t n = source->width;
    const volatile int32_t *const columns = source->columns;
    for (int64_t r = begin; r < end; r++) {
        real *const to = (real *)source->stage + r * n;
        memset(to, 0, (size_t)n * sizeof(real));
        for (int64_t k = source->begins[index[r]]; k < source->begins[index[r] + 1]; k++) {
            const int32_t column = columns[k]; /* read once */
            if (column < 0 || column >= n)
                return 0;
            to[column] = element_of(source, k);
        }
    }
    return 1;
}

static int gather(const fn_source *source, const int64_t *index, int64_t begin, int64_t end) {
    const int64_t n = source->width;
    const real scale = (real)source->scale;
    if (source->begins)
        return gather_sparse(source, index, begin, end);
    if (source->kind == OWN && !scale)
        for (int64_t r = begin; r < end; r++)
            copy((char *)((real *)source->stage + r * n), (const char *)((const real *)source->data + index[r] * n),
                 n * (int64_t)sizeof(real));
    else if (source->kind == FN_UINT8)
        CONVERT_FROM(uint8_t)
    else if (source->kind == FN_INT64)
        CONVERT_FROM(int64_t)
    else if (source->kind == OWN)
        CONVERT_FROM(real)
    else
        CONVERT_FROM(other_real)
    return 1;
}

/* Sort keys by their upper half, in which they are less than `width`, by 11 bits after the other; equal ones keep their
 * order. Returns where they are then: in place, or in `other`. */
static uint64_t *sorted(uint64_t *keys, uint64_t *other, int64_t n, int64_t width) {
    enum { BITS = 11, DIGITS = 1 << BITS };
    for (int shift = 0; (width - 1) >> shift; shift += BITS) {
        int64_t begin[DIGITS] = {0};
        for (int64_t k = 0; k < n; k++)
            begin[keys[k] >> (32 + shift) & (DIGITS - 1)]++;
        for (int64_t d = 0, sum = 0; d < DIGITS; d++) {
            const int64_t count = begin[d];
            begin[d] = sum;
            sum += count;
        }
        for (int64_t k = 0; k < n; k++)
            other[begin[keys[k] >> (32 + shift) & (DIGITS - 1)]++] = keys[k];
        uint64_t *const before = keys;
        keys = other;
        other = before;
    }
    return keys;
}

static int gather_elements(const fn_source *source, const int64_t *index, int64_t rows, const fn_elements *to) {
    const volatile int32_t *const columns = source->columns;
    real *const x = to->x, *const xt = to->xt;
    int64_t n = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = source->begins[index[r]]; k < source->begins[index[r] + 1]; k++, n++) {
            const int32_t column = columns[k]; /* read once */
            if (column < 0 || column >= source->width)
                return 0;
            to->columns[n] = column;
            x[n] = element_of(source, k);
        }
        to->ends[r] = n;
    }
    if (!xt)
        return 1;
    uint64_t *const keys = to->room, *const row_of = keys + 2 * n;
    for (int64_t r = 0, k = 0; r < rows; r++)
        for (; k < to->ends[r]; k++) {
            keys[k] = (uint64_t)to->columns[k] << 32 | (uint64_t)k;
            row_of[k] = (uint64_t)r;
        }
    const uint64_t *const by_column = sorted(keys, keys + n, n, source->width);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t k = by_column[i] & UINT32_MAX;
        xt[i] = x[k];
        to->columns_t[i] = (int64_t)(by_column[i] >> 32);
        to->rows_t[i] = (int64_t)row_of[k];
    }
    return 1;
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

static const fn_data_functions info = {OWN, LEVEL, gather, gather_elements, all_finite, order, draw_many};
static const fn_data_functions *const listed __attribute__((section("fn_data_functions"), used)) = &info;
