/* The linear layer of sparse rows. Formulas: fastnet/layers/sparse_linear.py.
 *
 * Every element gets the bits that the linear layer (linear.c) computes from the same rows with their zeros: there a
 * zero adds nothing to a sum, which begins with +0. So the elements' order is that of the other layer's sums: columns
 * for y, rows for dw.
 *
 * What a step costs is to reach rows of w in memory, in no order that hardware could predict. The forward reads one
 * for each element. The backward takes the elements column by column, so that it reaches a row of w once (touched.h).
 */
#include "products/touched.h"

enum { ELEMENTS_AHEAD = 16 }; /* the prefetch distance */

static inline void prefetch_columns(const int vectors, const real *at) {
    for (int v = 0; v < vectors; v++)
        __builtin_prefetch(at + v * WIDTH);
}

/* n columns of a row of y, at most `vectors` vectors of them: the sum over elements [begin, end) of at most `count`. */
static inline __attribute__((always_inline)) void
sum_of_elements(const int vectors, real *y, const real *x, const int64_t *columns, int64_t begin, int64_t end,
                int64_t count, const real *w, int64_t O, const real *b, int64_t n) {
    vec sum[ROW_VECTORS];
    for (int v = 0; v < vectors; v++)
        sum[v] = (vec){0};
    for (int64_t k = begin; k < end; k++) {
        const vec value = broadcast(x[k]);
        const real *const row = w + columns[k] * O;
        prefetch_columns(vectors, w + columns[smaller(k + ELEMENTS_AHEAD, count - 1)] * O);
        for (int v = 0; v < vectors; v++)
            sum[v] = vec_madd(value, load_first(row + v * WIDTH, n - v * WIDTH), sum[v]);
    }
    for (int v = 0; v < vectors; v++) {
        if (b)
            sum[v] += load_first(b + v * WIDTH, n - v * WIDTH);
        store_first(y + v * WIDTH, sum[v], n - v * WIDTH);
    }
}

KERNEL(sparse_linear_forward, OUT(y), IN(x), IN_AS(int64_t, columns), IN_AS(int64_t, ends), IN(w), IN(b)) {
    const int64_t B = call->rows, O = call->size[1], count = B ? ends[B - 1] : 0;
    SHARED(r, call, B, 1 + 1024 / O)
        for (int64_t i = r.begin; i < r.end; i++) {
            const int64_t begin = i ? ends[i - 1] : 0, end = ends[i];
            int64_t j = 0;
#define SUM_OF(vectors, n)                                                                         \
    sum_of_elements(vectors, y + i * O + j, x, columns, begin, end, count, w + j, O, b ? b + j : NULL, n)
            for (; j + 8 * WIDTH <= O; j += 8 * WIDTH)
                SUM_OF(8, 8 * WIDTH);
            for (; j + 4 * WIDTH <= O; j += 4 * WIDTH)
                SUM_OF(4, 4 * WIDTH);
            for (; j < O; j += WIDTH)
                SUM_OF(1, O - j);
#undef SUM_OF
        }
}

typedef struct {
    touched_rows w;
    const real *x, *dy; /* elements column by column */
    const int64_t *columns, *rows;
    int64_t B, count;
} sparse_gradient;

/* n columns of the gradient of a row of w, at most `vectors` vectors of them, from column j on: the sum over elements
 * [begin, end). */
static inline __attribute__((always_inline)) void gradient_of_row(const int vectors, const sparse_gradient *p,
                                                                  int64_t begin, int64_t end, int64_t j, int64_t n) {
    vec sum[ROW_VECTORS];
    const int64_t at = p->columns[begin] * p->w.O + j;
    const real *const to = p->w.to + at;
    const int accumulates = p->w.use == ACCUMULATES;
#undef EACH_VECTOR /* of tile.h, where the files are one unit */
#define EACH_VECTOR for (int v = 0; v < vectors; v++)
#define ADD_ELEMENT(k)                                                                             \
    const vec value = broadcast(p->x[k]);                                                          \
    const real *const dy = p->dy + p->rows[k] * p->w.O + j;                                          \
    EACH_VECTOR sum[v] = vec_madd(value, load_first(dy + v * WIDTH, n - v * WIDTH), sum[v]);
    if (p->B <= MANY_ROWS) {
        EACH_VECTOR sum[v] = accumulates ? load_first(to + v * WIDTH, n - v * WIDTH) : (vec){0};
        for (int64_t k = begin; k < end; k++) {
            ADD_ELEMENT(k)
        }
    } else {
        vec total[ROW_VECTORS], lost[ROW_VECTORS];
        EACH_VECTOR total[v] = lost[v] = (vec){0};
        for (int64_t k = begin; k < end;) {
            const int64_t block = p->rows[k] / ROW_BLOCK;
            EACH_VECTOR sum[v] = (vec){0};
            for (; k < end && p->rows[k] / ROW_BLOCK == block; k++) {
                ADD_ELEMENT(k)
            }
            EACH_VECTOR add_block(&total[v], &lost[v], sum[v]);
        }
        EACH_VECTOR {
            sum[v] = with_lost(total[v], lost[v]);
            if (accumulates)
                sum[v] = load_first(to + v * WIDTH, n - v * WIDTH) + sum[v];
        }
    }
    put_gradient(vectors, &p->w, at, sum, n);
#undef ADD_ELEMENT
#undef EACH_VECTOR
}

#define GRADIENT_OF_ROW(vectors)                                                                   \
    static __attribute__((noinline)) void gradient_of_row_##vectors(const sparse_gradient *p, int64_t begin, int64_t end,  \
                                                                    int64_t j, int64_t n) {        \
        gradient_of_row(vectors, p, begin, end, j, n);                                             \
    }
GRADIENT_OF_ROW(1)
GRADIENT_OF_ROW(4)
GRADIENT_OF_ROW(8)

/* The first element from column i on. */
static inline int64_t first_element(const sparse_gradient *p, int64_t i) {
    int64_t low = 0, high = p->count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (p->columns[middle] < i)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The rows of w in the range. */
static void gradients_of_range(const sparse_gradient *p, fn_range r) {
    int64_t i = r.begin;
    for (int64_t k = first_element(p, i), end; k < p->count && p->columns[k] < r.end; k = end) {
        const int64_t column = p->columns[k], O = p->w.O;
        for (end = k + 1; end < p->count && p->columns[end] == column; end++)
            ;
        prefetch_row(&p->w, p->columns[smaller(k + ELEMENTS_AHEAD, p->count - 1)]);
        if (i < column)
            untouched(&p->w, i, column);
        i = column + 1;
        int64_t j = 0;
        for (; j + 8 * WIDTH <= O; j += 8 * WIDTH)
            gradient_of_row_8(p, k, end, j, 8 * WIDTH);
        for (; j + 4 * WIDTH <= O; j += 4 * WIDTH)
            gradient_of_row_4(p, k, end, j, 4 * WIDTH);
        for (; j < O; j += WIDTH)
            gradient_of_row_1(p, k, end, j, smaller(WIDTH, O - j));
    }
    if (i < r.end)
        untouched(&p->w, i, r.end);
}

KERNEL(sparse_linear_vjp, OUT(dw), OUT(db), IN(dy), IN(xt), IN_AS(int64_t, columns_t), IN_AS(int64_t, rows_t),
       IN_AS(int64_t, ends)) {
    const int64_t B = call->rows, I = call->size[0], O = call->size[1];
    const int accumulate = call->accumulate != 0;
    if (dw) {
        const sparse_gradient p = {touched(call, dw, I, O), xt, dy, columns_t, rows_t, B, B ? ends[B - 1] : 0};
        SHARED(r, call, I, 1 + I / 64 + 4096 / O)
            gradients_of_range(&p, r);
    }
    if (!db)
        return;
    SHARED(r, call, O, grain(4 * WIDTH, B)) {
        if (B > MANY_ROWS)
            sum_many_rows(db, dy, B, O, r, accumulate);
        else
            sum_rows(db, dy, B, O, r, accumulate);
    }
}
