/* Gaussian radial basis functions. Formulas: fastnet/layers/radial.py.
 *
 * Distances are sums of squared differences, by registers full of columns: twice the operations of a matrix product,
 * but nothing cancels, and no second pass adds norms. Each sum over inputs or rows runs in one order. */
#include "engine/share.h"
#include "lib/elementary.h"
#include "lib/reduce.h"
#include "lib/rows.h"

enum { BUMPS = 64, ROWS_AT_ONCE = 4, INPUTS_AT_ONCE = TILE_ROWS >= 12 ? 6 : 3 };

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

/* y = e^(d·exponent) for n bumps of a row. */
static inline void bumps_of(real *y, const real *d, const real exponent[BUMPS], int64_t n) {
    const int64_t padded = (n + LANES - 1) / LANES * LANES;
    real value[BUMPS] = {0};
    memcpy(value, d, (size_t)n * sizeof(real));
    INDEPENDENT
    for (int64_t l = 0; l < padded; l++)
        value[l] = real_exp_below_0(value[l] * exponent[l]);
    memcpy(y, value, (size_t)n * sizeof(real));
}

KERNEL(gaussian_basis_forward, OUT(y), OUT(d), IN(x), IN(mu), IN(sigma)) {
    const int64_t I = call->size[0], J = call->size[1], M = call->size[2];
    SHARED(r, call, call->rows, 2 * ROWS_AT_ONCE) {
        for (int64_t j = 0; j < J; j += BUMPS) {
            const int64_t n = smaller(BUMPS, J - j);
            real exponent[BUMPS] = {0};
            for (int64_t k = 0; k < n; k++)
                exponent[k] = (real)-0.5 / (sigma[j + k] * sigma[j + k]);
            int64_t b = r.begin;
            for (; b + ROWS_AT_ONCE <= r.end; b += ROWS_AT_ONCE)
                distances_of_rows(ROWS_AT_ONCE, d + b * J + j, x + b * I, mu + j, I, J, n);
            for (; b < r.end; b++)
                distances_of_rows(1, d + b * J + j, x + b * I, mu + j, I, J, n);
            for (b = r.begin; b < r.end; b++)
                bumps_of(y + b * M + j, d + b * J + j, exponent, n);
        }
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t j = J; j < M; j++)
                y[b * M + j] = 1;
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

KERNEL(gaussian_basis_vjp, OUT(dx), OUT(dmu), OUT(dsigma), IN(dy), IN(y), IN(d), IN(x), IN(mu), IN(sigma)) {
    const bumps p = {dy, y, d, x, mu, sigma, call->rows, call->size[0], call->size[1], call->size[2]};
    const int accumulate = call->accumulate != 0;
    if (dx)
        SHARED(r, call, p.B, 4)
            for (int64_t b = r.begin; b < r.end; b++)
                for (int64_t k = 0; k < p.I; k++) {
                    const real *const slope = dy + b * p.M, *const bump = y + b * p.M, *const centre = mu + k * p.J;
                    const real value = x[b * p.I + k];
                    SUM(real, sum, p.J, slope[i] * bump[i] / (sigma[i] * sigma[i]) * (value - centre[i]))
                    dx[b * p.I + k] = -sum;
                }
    if (dmu || dsigma)
        SHARED(r, call, p.J, 2 * WIDTH)
            for (int64_t j = r.begin, n; j < r.end; j += n) {
                n = r.end - j >= 2 * WIDTH ? 2 * WIDTH : smaller(WIDTH, r.end - j);
                if (dmu && n == 2 * WIDTH)
                    gradients_of_centers_2(&p, dmu, j, n, accumulate);
                else if (dmu)
                    gradients_of_centers_1(&p, dmu, j, n, accumulate);
                for (int64_t k = 0; dsigma && k < n; k += WIDTH)
                    gradients_of_widths(&p, dsigma, j + k, smaller(WIDTH, n - k), accumulate);
            }
}
