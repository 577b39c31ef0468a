/* Gaussian radial basis functions. Formulas: fastnet/layers/radial.py.
 *
 * Of few inputs, distances are sums of squared differences, by registers full of columns: nothing cancels, and no pass
 * adds norms. From PRODUCT_INPUTS inputs on, d = ‖x‖² − 2x·μ + ‖μ‖² by matrix products, which take half the operations.
 * Their error is some roundings of n = ‖x‖² + ‖μ‖². It counts where n is large beside d and beside 2σ², which is where
 * x and μ are far from 0 and near to one another; there differences take their place. So do they in the gradients,
 * dμ = xᵀg − μ·Σg and dx = gμᵀ − x·Σg.
 *
 * Which way a number takes depends on values alone: of y on its row and the BUMPS centres of its block, of dx on its
 * row and all centres, of dμ on all rows and its block. Each sum over inputs or rows runs in one order. */
#include "engine/share.h"
#include "lib/elementary.h"
#include "lib/reduce.h"
#include "lib/rows.h"
#include "products/gemm.h"

enum {
    BUMPS = 64,
    ROWS_AT_ONCE = 4,
    INPUTS_AT_ONCE = TILE_ROWS >= 12 ? 6 : 3,
    PRODUCT_INPUTS = 16,
    PRODUCT_ROWS = 8,      /* the fewest rows whose gradients are products; with fewer, passes over μ cost more */
    ROWS_OF_PRODUCT = 128, /* at once */
    CANCELLING = 8,        /* how often n may be d or 2σ² */
    SLOPE_COLUMNS = 8 * TILE_COLUMNS < BUMPS ? 8 * TILE_COLUMNS : BUMPS,
};
_Static_assert(((int)PANELS_OF_B + (int)MANY_ROWS * (int)BUMPS) * (int)sizeof(real) <= FN_SCRATCH, "no room");
_Static_assert((int)SLOPE_COLUMNS < (int)COLUMNS_FOR_COLUMNS_OF_A, "x is packed where slopes lie");

/* The squared distances of `rows` rows x to n centres, at most `vectors` vectors of them. */
static inline __attribute__((always_inline)) void squared_distances(const int rows, const int vectors, real *d,
                                                                    const real *x, const real *mu, int64_t I,
                                                                    int64_t J, int64_t n) {
    vec sum[ROWS_AT_ONCE][2];
    for (int b = 0; b < rows; b++)
        for (int v = 0; v < vectors; v++)
            sum[b][v] = (vec){0};
    for (int64_t i = 0; i < I; i++)
        for (int v = 0; v < vectors; v++) {
            const vec centre = load_first(mu + i * J + v * WIDTH, n - v * WIDTH);
            for (int b = 0; b < rows; b++) {
                const vec difference = broadcast(x[b * I + i]) - centre;
                sum[b][v] = vec_madd(difference, difference, sum[b][v]);
            }
        }
    for (int b = 0; b < rows; b++)
        for (int v = 0; v < vectors; v++)
            store_first(d + b * J + v * WIDTH, sum[b][v], n - v * WIDTH);
}

/* The same to any number of centres. */
static inline __attribute__((always_inline)) void distances_of_rows(const int rows, real *d, const real *x,
                                                                    const real *mu, int64_t I, int64_t J, int64_t n) {
    int64_t j = 0;
    for (; j + 2 * WIDTH <= n; j += 2 * WIDTH)
        squared_distances(rows, 2, d + j, x, mu + j, I, J, 2 * WIDTH);
    for (; j < n; j += WIDTH)
        squared_distances(rows, 1, d + j, x, mu + j, I, J, n - j);
}

/* y = e^(d·exponent) for n bumps of a row. Far from a centre it is 0, which `real_exp_below_0` would compute by a
 * product that underflows: some processors take a hundred cycles for one. */
static inline void bumps_of(real *y, const real *d, const real exponent[BUMPS], int64_t n) {
    const real lowest = REAL(-104.0f, -745.2);
    for (int64_t j = 0; j < n; j += LANES) {
        real value[LANES];
        load_lanes(value, d + j, n - j);
        INDEPENDENT
        for (int l = 0; l < LANES; l++) {
            const real x = value[l] * exponent[j + l];
            const int is_0 = x < lowest;
            const real bump = real_exp_below_0(is_0 ? 0 : x);
            value[l] = is_0 ? 0 : bump;
        }
        store_lanes(y + j, value, n - j);
    }
}

/* A function of its own for each number of rows at once. */
#define DISTANCES_OF_ROWS(rows)                                                                    \
    static __attribute__((noinline)) void distances_of_##rows##_rows(                              \
        real *d, const real *x, const real *mu, int64_t I, int64_t J, int64_t n) {                 \
        distances_of_rows(rows, d, x, mu, I, J, n);                                                \
    }
DISTANCES_OF_ROWS(1)
DISTANCES_OF_ROWS(4)

/* The squared distances of some rows to a block of centres by differences. */
static void differences_of_block(real *d, const real *x, const real *mu, int64_t rows, int64_t I, int64_t J,
                                 int64_t n) {
    int64_t b = 0;
    for (; b + ROWS_AT_ONCE <= rows; b += ROWS_AT_ONCE)
        distances_of_4_rows(d + b * J, x + b * I, mu, I, J, n);
    for (; b < rows; b++)
        distances_of_1_rows(d + b * J, x + b * I, mu, I, J, n);
}

/* What the ways of up to BUMPS centres depend on. */
typedef struct {
    real norm[BUMPS];    /* ‖μ‖² */
    real breadth[BUMPS]; /* 2σ², CANCELLING times */
    real scale[BUMPS];   /* 1/σ² */
} norms;

#if REAL_IS_DOUBLE
typedef int64_t lanes_mask __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef int32_t lanes_mask __attribute__((vector_size(VECTOR_BYTES)));
#endif

static inline int any_lane(lanes_mask mask) {
    uint8_t byte[VECTOR_BYTES], any = 0;
    memcpy(byte, &mask, sizeof mask);
    for (int i = 0; i < VECTOR_BYTES; i++)
        any |= byte[i];
    return any != 0;
}

/* Where a distance by products loses digits that differences keep. */
static inline lanes_mask cancels(vec norm, vec distance, vec breadth) {
    return ~(norm <= vec_max((real)CANCELLING * distance, breadth));
}

static inline real squared_norm(const real *x, int64_t n) {
    SUM(real, sum, n, x[i] * x[i])
    return sum;
}

/* The squares of at most `vectors` vectors of the n centres, and with `row` their products with x. */
static inline __attribute__((always_inline)) void squares_of(const int vectors, const int row, real *norm, real *d,
                                                             const real *x, const real *mu, int64_t I, int64_t J,
                                                             int64_t n) {
    vec sum[4], of_row[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = of_row[v] = (vec){0};
    for (int64_t i = 0; i < I; i++)
        for (int v = 0; v < vectors; v++) {
            const vec centre = load_first(mu + i * J + v * WIDTH, n - v * WIDTH);
            sum[v] = vec_madd(centre, centre, sum[v]);
            if (row)
                of_row[v] = vec_madd(broadcast(x[i]), centre, of_row[v]);
        }
    for (int v = 0; v < vectors; v++) {
        store(norm + v * WIDTH, sum[v]);
        if (row)
            store_first(d + v * WIDTH, of_row[v], n - v * WIDTH);
    }
}

/* A function for a block of centres alone, and one that computes a row's products on the way. */
#define SQUARES_OF_BLOCK(name, row)                                                                \
    static __attribute__((noinline)) void name(real *norm, real *d, const real *x, const real *mu, int64_t I, \
                                               int64_t J, int64_t n) {                             \
        int64_t j = 0;                                                                             \
        for (; j + 4 * WIDTH <= n; j += 4 * WIDTH)                                                 \
            squares_of(4, row, norm + j, d + (row ? j : 0), x, mu + j, I, J, 4 * WIDTH);                       \
        for (; j < n; j += WIDTH)                                                                  \
            squares_of(1, row, norm + j, d + (row ? j : 0), x, mu + j, I, J, n - j);                           \
    }
SQUARES_OF_BLOCK(squares_of_block, 0)
SQUARES_OF_BLOCK(squares_and_products_of_block, 1)

/* The norms of n centres; with a row x, also their products with it. */
static void norms_of(norms *of, real *d, const real *x, const real *mu, const real *sigma, int64_t I, int64_t J,
                     int64_t n) {
    memset(of, 0, sizeof *of);
    (x ? squares_and_products_of_block : squares_of_block)(of->norm, d, x, mu, I, J, n);
    for (int64_t j = 0; j < n; j++) {
        const real square = sigma[j] * sigma[j];
        of->breadth[j] = CANCELLING * 2 * square;
        of->scale[j] = 1 / square;
    }
}

/* Whether a block of centres lies so far from 0, beside their distances from one another and their widths, that
 * products with rows near them cancel. This is a guess by some inputs of two centres, which spares these products:
 * differences are right in any case. */
static int is_far(const real *mu, const real *sigma, int64_t I, int64_t J, int64_t n) {
    enum { SOME = 64 };
    real norm = 0, distance = 0, share = 0;
    for (int64_t i = 0, step = quotient_up(I, SOME); i < I; i += step) {
        const real first = mu[i * J], difference = first - mu[i * J + n - 1];
        norm += first * first;
        distance += difference * difference;
        share += 1;
    }
    const real breadth = 2 * (sigma[0] * sigma[0]) * (share / (real)I);
    return norm > CANCELLING * (distance > breadth ? distance : breadth);
}

/* Turn products of a row and n centres into squared distances; returns whether any of them cancels. */
static inline int distances_of_products(real *d, real squared, const norms *of, int64_t n) {
    const vec most = broadcast(REAL(__FLT_MAX__, __DBL_MAX__)); /* more may be the norms alone */
    lanes_mask any = {0};
    for (int64_t j = 0; j < n; j += WIDTH) {
        const vec norm = broadcast(squared) + load(of->norm + j);
        const vec difference = vec_madd(broadcast(-2), load_first(d + j, n - j), norm);
        const vec distance = vec_max((vec){0}, difference); /* NaN if the difference is */
        store_first(d + j, distance, n - j);
        any |= cancels(norm, distance, load(of->breadth + j)) | ~(distance <= most);
    }
    return any_lane(any);
}

/* The squared distances of some rows to a block of centres, whose products with a lone row are known. */
static inline void distances_of_block(const fn_call *alone, real *d, const real *x, const real *mu,
                                      const real *squared, const norms *of, int64_t rows, int64_t n) {
    const int64_t I = alone->size[0], J = alone->size[1];
    uint8_t by_differences[ROWS_OF_PRODUCT + ROWS_AT_ONCE] = {0};
    if (rows > 1)
        gemm(alone, (product){rows, n, I, {x, I, 1}, {mu, J, 1}, d, J, NULL, 0, 0, alone, NULL, 0});
    for (int64_t b = 0; b < rows; b++)
        by_differences[b] = (uint8_t)distances_of_products(d + b * J, squared[b], of, n);
    for (int64_t b = 0; b < rows; b++) {
        const uint8_t *const all = by_differences + b;
        if (all[0] && all[1] && all[2] && all[3]) {
            distances_of_4_rows(d + b * J, x + b * I, mu, I, J, n);
            b += 3;
        } else if (all[0]) {
            distances_of_1_rows(d + b * J, x + b * I, mu, I, J, n);
        }
    }
}

static inline void exponents_of(real exponent[BUMPS], const real *sigma, int64_t n) {
    memset(exponent, 0, BUMPS * sizeof(real));
    for (int64_t k = 0; k < n; k++)
        exponent[k] = (real)-0.5 / (sigma[k] * sigma[k]);
}

/* The kernel this thread calls for itself, whatever its team does. */
static inline fn_call alone_of(const fn_call *call) {
    fn_call alone = *call;
    alone.member = NULL;
    alone.next_rows = NULL;
    return alone;
}

/* The bumps of rows [begin, end) by products. */
static __attribute__((noinline)) void bumps_by_products(const fn_call *call, real *y, real *d, const real *x,
                                                        const real *mu, const real *sigma, int64_t begin,
                                                        int64_t end) {
    const int64_t I = call->size[0], J = call->size[1], M = call->size[2];
    const fn_call alone = alone_of(call);
    real squared[ROWS_OF_PRODUCT], exponent[BUMPS];
    norms of;
    for (int64_t b0 = begin, rows; b0 < end; b0 += rows) {
        rows = smaller(ROWS_OF_PRODUCT, end - b0);
        for (int64_t b = 0; b < rows; b++)
            squared[b] = squared_norm(x + (b0 + b) * I, I);
        for (int64_t j = 0; j < J; j += BUMPS) {
            const int64_t n = smaller(BUMPS, J - j);
            real *const to = d + b0 * J + j;
            exponents_of(exponent, sigma + j, n);
            if (is_far(mu + j, sigma + j, I, J, n)) {
                differences_of_block(to, x + b0 * I, mu + j, rows, I, J, n);
            } else {
                norms_of(&of, to, rows == 1 ? x + b0 * I : NULL, mu + j, sigma + j, I, J, n);
                distances_of_block(&alone, to, x + b0 * I, mu + j, squared, &of, rows, n);
            }
            for (int64_t b = b0; b < b0 + rows; b++)
                bumps_of(y + b * M + j, d + b * J + j, exponent, n);
        }
    }
}

static __attribute__((noinline)) void bumps_by_differences(const fn_call *call, real *y, real *d, const real *x,
                                                           const real *mu, const real *sigma, int64_t begin,
                                                           int64_t end) {
    const int64_t I = call->size[0], J = call->size[1], M = call->size[2];
    real exponent[BUMPS];
    for (int64_t j = 0; j < J; j += BUMPS) {
        const int64_t n = smaller(BUMPS, J - j);
        exponents_of(exponent, sigma + j, n);
        differences_of_block(d + begin * J + j, x + begin * I, mu + j, end - begin, I, J, n);
        for (int64_t b = begin; b < end; b++)
            bumps_of(y + b * M + j, d + b * J + j, exponent, n);
    }
}

KERNEL(gaussian_basis_forward, OUT(y), OUT(d), IN(x), IN(mu), IN(sigma)) {
    const int64_t I = call->size[0], J = call->size[1], M = call->size[2];
    const int products = I >= PRODUCT_INPUTS;
    SHARED(r, call, call->rows, (products ? 4 : 2) * ROWS_AT_ONCE) {
        (products ? bumps_by_products : bumps_by_differences)(call, y, d, x, mu, sigma, r.begin, r.end);
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t j = J; j < M; j++)
                y[b * M + j] = 1;
    }
}

/* Σ_i (x_i − μ_ij)·(u_i − ν_ij) of `rows` rows and n centres, at most `vectors` vectors of them. */
static inline __attribute__((always_inline)) void products_of_differences(const int rows, const int vectors, real *s,
                                                                          const real *x, const real *mu, const real *u,
                                                                          const real *nu, int64_t I, int64_t J,
                                                                          int64_t n) {
    vec sum[ROWS_AT_ONCE][2];
    for (int b = 0; b < rows; b++)
        for (int v = 0; v < vectors; v++)
            sum[b][v] = (vec){0};
    for (int64_t i = 0; i < I; i++)
        for (int v = 0; v < vectors; v++) {
            const int64_t at = i * J + v * WIDTH;
            const vec centre = load_first(mu + at, n - v * WIDTH);
            const vec moved = nu ? load_first(nu + at, n - v * WIDTH) : (vec){0};
            for (int b = 0; b < rows; b++) {
                const vec along = broadcast(u ? u[b * I + i] : 0) - moved;
                sum[b][v] = vec_madd(broadcast(x[b * I + i]) - centre, along, sum[b][v]);
            }
        }
    for (int b = 0; b < rows; b++)
        for (int v = 0; v < vectors; v++)
            store_first(s + b * J + v * WIDTH, sum[b][v], n - v * WIDTH);
}

#define PRODUCTS_OF_ROWS(rows)                                                                     \
    static __attribute__((noinline)) void products_of_##rows##_rows(                               \
        real *s, const real *x, const real *mu, const real *u, const real *nu, int64_t I, int64_t J) { \
        int64_t j = 0;                                                                             \
        for (; j + 2 * WIDTH <= J; j += 2 * WIDTH)                                                 \
            products_of_differences(rows, 2, s + j, x, mu + j, u, nu ? nu + j : nu, I, J, 2 * WIDTH); \
        for (; j < J; j += WIDTH)                                                                  \
            products_of_differences(rows, 1, s + j, x, mu + j, u, nu ? nu + j : nu, I, J, J - j);  \
    }
PRODUCTS_OF_ROWS(1)
PRODUCTS_OF_ROWS(4)

KERNEL(gaussian_slope_forward, OUT(s), IN(x), IN(mu), IN(u), IN(nu)) {
    const int64_t I = call->size[0], J = call->size[1];
    SHARED(r, call, call->rows, 2 * ROWS_AT_ONCE) {
        int64_t b = r.begin;
        for (; b + ROWS_AT_ONCE <= r.end; b += ROWS_AT_ONCE)
            products_of_4_rows(s + b * J, x + b * I, mu, u ? u + b * I : u, nu, I, J);
        for (; b < r.end; b++)
            products_of_1_rows(s + b * J, x + b * I, mu, u ? u + b * I : u, nu, I, J);
    }
}

typedef struct {
    const real *dy, *y, *d, *x, *mu, *sigma;
    int64_t B, I, J, M;
} bumps;

/* dy·y of n bumps of a row, from the j-th on. */
static inline __attribute__((always_inline)) vec slope_of(const bumps *p, int64_t b, int64_t j, int64_t n) {
    return load_first(p->dy + b * p->M + j, n) * load_first(p->y + b * p->M + j, n);
}

/* 1/σ², or 1/σ³, of n bumps. */
static inline vec inverse_power(const bumps *p, int64_t j, int64_t n, int power) {
    real value[WIDTH] = {0};
    for (int64_t l = 0; l < smaller(n, WIDTH); l++) {
        const real s = p->sigma[j + l];
        value[l] = 1 / (power == 2 ? s * s : s * s * s);
    }
    return load(value);
}

/* Σ dy·y·(x_i − μ_ij) over rows [begin, end), for `inputs` inputs from the i-th on and n bumps from the j-th on, at most
 * `vectors` vectors of them. */
static inline __attribute__((always_inline)) void slopes_of_rows(const int inputs, const int vectors, const bumps *p,
                                                                 int64_t begin, int64_t end, int64_t i, int64_t j,
                                                                 int64_t n, vec sum[INPUTS_AT_ONCE][2]) {
    vec mu[INPUTS_AT_ONCE][2], total[INPUTS_AT_ONCE][2];
    for (int k = 0; k < inputs; k++)
        for (int v = 0; v < vectors; v++) {
            mu[k][v] = load_first(p->mu + (i + k) * p->J + j + v * WIDTH, n - v * WIDTH);
            total[k][v] = (vec){0};
        }
    const real *dy = p->dy + begin * p->M + j, *y = p->y + begin * p->M + j, *x = p->x + begin * p->I + i;
    for (int64_t b = begin; b < end; b++, dy += p->M, y += p->M, x += p->I) {
        vec slope[2];
        for (int v = 0; v < vectors; v++)
            slope[v] = load_first(dy + v * WIDTH, n - v * WIDTH) * load_first(y + v * WIDTH, n - v * WIDTH);
        for (int k = 0; k < inputs; k++) {
            const vec value = broadcast(x[k]);
            for (int v = 0; v < vectors; v++)
                total[k][v] = vec_madd(slope[v], value - mu[k][v], total[k][v]);
        }
    }
    for (int k = 0; k < inputs; k++)
        for (int v = 0; v < vectors; v++)
            sum[k][v] = total[k][v];
}

/* The gradients of the centres of `inputs` inputs and n bumps. */
static inline __attribute__((always_inline)) void gradients_of_inputs(const int inputs, const int vectors,
                                                                      const bumps *p, real *dmu, int64_t i, int64_t j,
                                                                      int64_t n, int accumulate) {
    vec sum[INPUTS_AT_ONCE][2];
    if (p->B <= MANY_ROWS) {
        slopes_of_rows(inputs, vectors, p, 0, p->B, i, j, n, sum);
    } else {
        vec part[INPUTS_AT_ONCE][2], lost[INPUTS_AT_ONCE][2];
        for (int k = 0; k < inputs; k++)
            for (int v = 0; v < vectors; v++)
                sum[k][v] = lost[k][v] = (vec){0};
        for (int64_t b = 0; b < p->B; b += ROW_BLOCK) {
            slopes_of_rows(inputs, vectors, p, b, smaller(b + ROW_BLOCK, p->B), i, j, n, part);
            for (int k = 0; k < inputs; k++)
                for (int v = 0; v < vectors; v++)
                    add_block(&sum[k][v], &lost[k][v], part[k][v]);
        }
        for (int k = 0; k < inputs; k++)
            for (int v = 0; v < vectors; v++)
                sum[k][v] = with_lost(sum[k][v], lost[k][v]);
    }
    for (int v = 0; v < vectors; v++) {
        const int64_t left = n - v * WIDTH;
        const vec scale = inverse_power(p, j + v * WIDTH, left, 2);
        for (int k = 0; k < inputs; k++) {
            real *const to = dmu + (i + k) * p->J + j + v * WIDTH;
            const vec gradient = sum[k][v] * scale;
            store_first(to, accumulate ? load_first(to, left) + gradient : gradient, left);
        }
    }
}

#define GRADIENTS_OF_CENTERS(vectors, columns)                                                     \
    static __attribute__((noinline)) void gradients_of_centers_##vectors(const bumps *p, real *dmu, int64_t j,    \
                                                                         int64_t n, int accumulate) {             \
        int64_t i = 0;                                                                             \
        (void)n;                                                                                   \
        for (; i + INPUTS_AT_ONCE <= p->I; i += INPUTS_AT_ONCE)                                    \
            gradients_of_inputs(INPUTS_AT_ONCE, vectors, p, dmu, i, j, columns, accumulate);       \
        for (; i < p->I; i++)                                                                      \
            gradients_of_inputs(1, vectors, p, dmu, i, j, columns, accumulate);                    \
    }
GRADIENTS_OF_CENTERS(1, n)
GRADIENTS_OF_CENTERS(2, 2 * WIDTH)

static inline void gradients_of_widths(const bumps *p, real *dsigma, int64_t j, int64_t n, int accumulate) {
    const int64_t block = rows_of_block(p->B);
    vec total = {0}, lost = {0};
    for (int64_t b0 = 0; b0 < p->B; b0 += block) {
        vec sum = {0};
        for (int64_t b = b0; b < smaller(b0 + block, p->B); b++)
            sum = vec_madd(slope_of(p, b, j, n), load_first(p->d + b * p->J + j, n), sum);
        add_block(&total, &lost, sum);
    }
    const vec gradient = with_lost(total, lost) * inverse_power(p, j, n, 3);
    store_first(dsigma + j, accumulate ? load_first(dsigma + j, n) + gradient : gradient, n);
}

/* The gradients of n centres from the j-th on, and of their widths, by differences. */
static void gradients_by_differences(const bumps *p, real *dmu, real *dsigma, int64_t j, int64_t n, int accumulate) {
    for (const int64_t end = j + n; j < end; j += n) {
        n = end - j >= 2 * WIDTH ? 2 * WIDTH : smaller(WIDTH, end - j);
        if (dmu && n == 2 * WIDTH)
            gradients_of_centers_2(p, dmu, j, n, accumulate);
        else if (dmu)
            gradients_of_centers_1(p, dmu, j, n, accumulate);
        for (int64_t k = 0; dsigma && k < n; k += WIDTH)
            gradients_of_widths(p, dsigma, j + k, smaller(WIDTH, n - k), accumulate);
    }
}

/* The gradients of a row by differences: dx_i = −Σ_j g_j·(x_i − μ_ij), block of centres by block. */
static void row_by_differences(const bumps *p, real *dx, int64_t b) {
    const real *const x = p->x + b * p->I;
    for (int64_t j = 0; j < p->J; j += BUMPS) {
        const int64_t n = smaller(BUMPS, p->J - j);
        real slope[BUMPS];
        for (int64_t k = 0; k < n; k++)
            slope[k] = p->dy[b * p->M + j + k] * p->y[b * p->M + j + k] / (p->sigma[j + k] * p->sigma[j + k]);
        for (int64_t k = 0; k < p->I; k++) {
            const real *const centre = p->mu + k * p->J + j;
            SUM(real, sum, n, slope[i] * (x[k] - centre[i]))
            dx[b * p->I + k] = (j ? dx[b * p->I + k] : 0) - sum;
        }
    }
}

/* g = dy·y/σ² of rows [begin, end) and of at most `vectors` vectors of the n centres from the j-th on, with Σg and
 * Σ dy·y·d. Returns where products with g would cancel. */
static inline __attribute__((always_inline)) lanes_mask slopes_of(const int vectors, const bumps *p, real *to,
                                                                  const real *squared, const norms *of, int64_t begin,
                                                                  int64_t end, int64_t j, int64_t k, int64_t n,
                                                                  vec *sum, vec *of_d) {
    lanes_mask any = {0};
    vec sums[4], sums_of_d[4];
    for (int v = 0; v < vectors; v++)
        sums[v] = sums_of_d[v] = (vec){0};
    for (int64_t b = begin; b < end; b++, to += BUMPS)
        for (int v = 0; v < vectors; v++) {
            const int64_t at = j + k + v * WIDTH, left = n - k - v * WIDTH;
            const vec slope = slope_of(p, b, at, left), distance = load_first(p->d + b * p->J + at, left);
            const vec g = slope * load(of->scale + k + v * WIDTH);
            const vec norm = broadcast(squared[b - begin]) + load(of->norm + k + v * WIDTH);
            store(to + k + v * WIDTH, g);
            sums[v] += g;
            sums_of_d[v] = vec_madd(slope, distance, sums_of_d[v]);
            any |= cancels(norm, distance, load(of->breadth + k + v * WIDTH)) & (g != (vec){0});
        }
    for (int v = 0; v < vectors; v++) {
        sum[v] = sums[v];
        of_d[v] = sums_of_d[v];
    }
    return any;
}

/* The same for a block of n centres. */
static inline lanes_mask slopes_of_block(const bumps *p, real *to, const real *squared, const norms *of, int64_t begin,
                                         int64_t end, int64_t j, int64_t n, vec *sum, vec *of_d) {
    lanes_mask any = {0};
    int64_t k = 0;
    for (; k + 4 * WIDTH <= n; k += 4 * WIDTH)
        any |= slopes_of(4, p, to, squared, of, begin, end, j, k, k + 4 * WIDTH, sum + k / WIDTH, of_d + k / WIDTH);
    for (; k < n; k += WIDTH)
        any |= slopes_of(1, p, to, squared, of, begin, end, j, k, n, sum + k / WIDTH, of_d + k / WIDTH);
    return any;
}

/* The gradients of a block of centres, and of their widths, of at most MANY_ROWS rows. */
static __attribute__((noinline)) void gradients_by_products(const fn_call *alone, const bumps *p, real *dmu,
                                                            real *dsigma, const real *squared, int64_t j, int64_t n,
                                                            int accumulate) {
    real *const slope = (real *)alone->scratch + PANELS_OF_B;
    vec sum[BUMPS / WIDTH], of_d[BUMPS / WIDTH];
    norms of;
    norms_of(&of, NULL, NULL, p->mu + j, p->sigma + j, p->I, p->J, n);
    const lanes_mask any = slopes_of_block(p, slope, squared, &of, 0, p->B, j, n, sum, of_d);
    for (int64_t k = 0; dsigma && k < n; k += WIDTH) {
        const vec gradient = of_d[k / WIDTH] * inverse_power(p, j + k, n - k, 3);
        real *const to = dsigma + j + k;
        store_first(to, accumulate ? load_first(to, n - k) + gradient : gradient, n - k);
    }
    if (any_lane(any)) {
        gradients_by_differences(p, dmu, NULL, j, n, accumulate);
        return;
    }
    for (int64_t k = 0; k < n; k += SLOPE_COLUMNS)
        gemm(alone, (product){p->I, smaller(SLOPE_COLUMNS, n - k), p->B, {p->x, 1, p->I}, {slope + k, BUMPS, 1},
                              dmu + j + k, p->J, NULL, accumulate, 0, alone, NULL, 0});
    for (int64_t i = 0; i < p->I; i++)
        for (int64_t k = 0; k < n; k += WIDTH) {
            const int64_t at = i * p->J + j + k;
            store_first(dmu + at, vec_madd(-sum[k / WIDTH], load_first(p->mu + at, n - k), load_first(dmu + at, n - k)),
                        n - k);
        }
}

/* The gradients of rows [begin, end) by products. */
static __attribute__((noinline)) void rows_by_products(const fn_call *call, const bumps *p, real *dx, int64_t begin,
                                                       int64_t end) {
    const fn_call alone = alone_of(call);
    real *const slope = (real *)call->scratch + PANELS_OF_B;
    const int64_t I = p->I;
    norms of;
    for (int64_t b0 = begin, rows; b0 < end; b0 += rows) {
        real squared[ROWS_OF_PRODUCT], sum[ROWS_OF_PRODUCT] = {0};
        uint8_t by_differences[ROWS_OF_PRODUCT] = {0};
        rows = smaller(ROWS_OF_PRODUCT, end - b0);
        for (int64_t b = 0; b < rows; b++)
            squared[b] = squared_norm(p->x + (b0 + b) * I, I);
        for (int64_t j = 0; j < p->J; j += BUMPS) {
            const int64_t n = smaller(BUMPS, p->J - j);
            norms_of(&of, NULL, NULL, p->mu + j, p->sigma + j, I, p->J, n);
            for (int64_t b = 0; b < rows; b++) {
                vec sum_of_row[BUMPS / WIDTH], of_d[BUMPS / WIDTH];
                const lanes_mask any = slopes_of_block(p, slope + b * BUMPS, squared + b, &of, b0 + b, b0 + b + 1, j, n,
                                                       sum_of_row, of_d);
                by_differences[b] |= (uint8_t)any_lane(any);
                SUM(real, part, n, slope[b * BUMPS + i])
                sum[b] += part;
            }
            gemm(&alone, (product){rows, I, n, {slope, BUMPS, 1}, {p->mu + j, 1, p->J}, dx + b0 * I, I, NULL, j > 0, 0,
                                   &alone, NULL, 0});
        }
        for (int64_t b = 0; b < rows; b++) {
            real *const to = dx + (b0 + b) * I;
            const real *const x = p->x + (b0 + b) * I;
            if (by_differences[b])
                row_by_differences(p, dx, b0 + b);
            else
                for (int64_t i = 0; i < I; i += WIDTH) {
                    const vec product = load_first(to + i, I - i);
                    store_first(to + i, vec_madd(broadcast(-sum[b]), load_first(x + i, I - i), product), I - i);
                }
        }
    }
}

static __attribute__((noinline)) void centers_by_products(const fn_call *call, const bumps *p, real *dmu, real *dsigma,
                                                          int accumulate) {
    const fn_call alone = alone_of(call);
    real squared[MANY_ROWS];
    for (int64_t b = 0; b < p->B; b++) /* each thread computes all, as it would wait for others as long */
        squared[b] = squared_norm(p->x + b * p->I, p->I);
    SHARED(r, call, p->J, BUMPS)
        for (int64_t j = r.begin; j < r.end; j += BUMPS)
            gradients_by_products(&alone, p, dmu, dsigma, squared, j, smaller(BUMPS, r.end - j), accumulate);
}

KERNEL(gaussian_basis_vjp, OUT(dx), OUT(dmu), OUT(dsigma), IN(dy), IN(y), IN(d), IN(x), IN(mu), IN(sigma)) {
    const bumps p = {dy, y, d, x, mu, sigma, call->rows, call->size[0], call->size[1], call->size[2]};
    const int accumulate = call->accumulate != 0, products = p.I >= PRODUCT_INPUTS && p.B >= PRODUCT_ROWS;
    if (dx)
        SHARED(r, call, p.B, products ? 16 : 4) {
            if (products)
                rows_by_products(call, &p, dx, r.begin, r.end);
            else
                for (int64_t b = r.begin; b < r.end; b++)
                    row_by_differences(&p, dx, b);
        }
    if (dmu && products && p.B <= MANY_ROWS)
        centers_by_products(call, &p, dmu, dsigma, accumulate);
    else if (dmu || dsigma)
        SHARED(r, call, p.J, 2 * WIDTH)
            gradients_by_differences(&p, dmu, dsigma, r.begin, r.end - r.begin, accumulate);
}
