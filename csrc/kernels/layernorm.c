/* Normalisation of rows. Formulas: fastnet/layers/layernorm.py.
 *
 * Several rows are taken at a time, whose sums do not wait for one another. A row's sum is that of its blocks of PART_OF_ROW,
 * in float64; a block adds element i to lane i % LANES, and the lanes as a binary tree. */
#include "engine/share.h"
#include "lib/columns.h"
#include "lib/reduce.h"
#include "lib/rows.h"

enum {
    TOGETHER = 4,             /* rows of a forward */
    PAIR = 2,                 /* rows of a backward: with four, columns of a power of two would evict one another */
    OF_LANES = LANES / WIDTH, /* vectors that hold LANES numbers */
    PART_OF_ROW = 64 * LANES
};

INLINED real sum_of_lanes(const vec sum[OF_LANES]) {
    real lane[LANES];
    for (int v = 0; v < OF_LANES; v++)
        store(lane + v * WIDTH, sum[v]);
    FOLD(lane[l] += lane[l + half]);
    return lane[0];
}

/* The first n lanes, with zeros in the others. */
INLINED vec first_of(vec a, int64_t n) {
    real lane[WIDTH];
    store(lane, a);
    return load_first(lane, n);
}

/* What is added up over a row: x − from, its squares, or both. A constant, as `rows` is. */
enum { SUM_OF_X = 1, SUM_OF_SQUARES = 2 };

/* Add LANES columns of each row, of which the first n exist. */
INLINED void add_moments(const int rows, const int what, vec sum[TOGETHER][OF_LANES], vec squares[TOGETHER][OF_LANES],
                         const real *x, const real from[TOGETHER], int64_t N, int64_t n) {
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < OF_LANES; v++) {
            vec d = load_first(x + r * N + v * WIDTH, n - v * WIDTH);
            if (what & SUM_OF_X) {
                d -= broadcast(from[r]);
                if (n < LANES)
                    d = first_of(d, n - v * WIDTH);
                sum[r][v] += d;
            }
            if (what & SUM_OF_SQUARES)
                squares[r][v] = vec_madd(d, d, squares[r][v]);
        }
}

/* The sums of each row. For squares alone `from` counts as 0. */
INLINED void moments(const int rows, const int what, double sum[TOGETHER], double squares[TOGETHER], const real *x,
                     const real from[TOGETHER], int64_t N) {
    for (int r = 0; r < rows; r++)
        sum[r] = squares[r] = 0;
    for (int64_t begin = 0; begin < N; begin += PART_OF_ROW) {
        const int64_t end = smaller(begin + PART_OF_ROW, N);
        vec of_sum[TOGETHER][OF_LANES] = {0}, of_squares[TOGETHER][OF_LANES] = {0};
        int64_t c = begin;
        for (; c + LANES <= end; c += LANES)
            add_moments(rows, what, of_sum, of_squares, x + c, from, N, LANES);
        if (c < end)
            add_moments(rows, what, of_sum, of_squares, x + c, from, N, end - c);
        for (int r = 0; r < rows; r++) {
            if (what & SUM_OF_X)
                sum[r] += (double)sum_of_lanes(of_sum[r]);
            if (what & SUM_OF_SQUARES)
                squares[r] += (double)sum_of_lanes(of_squares[r]);
        }
    }
}

/* x̂ of a few columns of a row, given x: (x − centre − rest)·rstd, where off = −rest·rstd. */
INLINED vec xhat_of(const int centres, vec x, real centre, real off, real rstd) {
    return centres ? vec_madd(x - broadcast(centre), broadcast(rstd), broadcast(off)) : x * broadcast(rstd);
}

/* The first n of a vector of columns of y, given those of x. `affine`: gamma and beta are both there. */
INLINED void write_part(const int centres, const int affine, real *y, const real *x, real centre, real off, real rstd,
                        const real *gamma, const real *beta, int64_t c, int64_t n) {
    const vec xhat = xhat_of(centres, load_first(x + c, n), centre, off, rstd);
    const vec factor = affine || gamma ? load_first(gamma + c, n) : broadcast(1);
    store_first(y + c, affine || beta ? vec_madd(xhat, factor, load_first(beta + c, n)) : xhat * factor, n);
}

INLINED void write_row(const int centres, const int affine, real *y, const real *x, real centre, real off, real rstd,
                       const real *gamma, const real *beta, int64_t N) {
    int64_t c = 0;
    for (; c + WIDTH <= N; c += WIDTH)
        write_part(centres, affine, y, x, centre, off, rstd, gamma, beta, c, WIDTH);
    if (c < N)
        write_part(centres, affine, y, x, centre, off, rstd, gamma, beta, c, N - c);
}

/* A few rows of y. Unless `centres` the mean counts as 0. */
INLINED void norm_rows(const int rows, const int centres, real *y, real *centre, real *rest, real *rstd,
                          const real *x, const real *gamma, const real *beta, int64_t N, real eps) {
    double sum[TOGETHER], squares[TOGETHER];
    real mean[TOGETHER] = {0}, scale[TOGETHER], off[TOGETHER] = {0};
    if (centres) {
        for (int r = 0; r < rows; r++)
            mean[r] = x[r * N];
        moments(rows, SUM_OF_X, sum, squares, x, mean, N);
        for (int r = 0; r < rows; r++)
            mean[r] += (real)(sum[r] / (double)N);
    }
    moments(rows, centres ? SUM_OF_X | SUM_OF_SQUARES : SUM_OF_SQUARES, sum, squares, x, mean, N);
    for (int r = 0; r < rows; r++) {
        double variance = squares[r] / (double)N;
        if (centres) {
            const double left = sum[r] / (double)N;
            variance -= left * left;
            variance = variance < 0 ? 0 : variance;
            centre[r] = mean[r];
            rest[r] = (real)left;
        }
        rstd[r] = scale[r] = 1 / REAL_FN(sqrt)((real)variance + eps);
        if (centres)
            off[r] = -rest[r] * scale[r];
    }
    for (int r = 0; r < rows; r++)
        if (gamma && beta)
            write_row(centres, 1, y + r * N, x + r * N, mean[r], off[r], scale[r], gamma, beta, N);
        else
            write_row(centres, 0, y + r * N, x + r * N, mean[r], off[r], scale[r], gamma, beta, N);
}

INLINED void forward(const fn_call *call, const int centres, real *y, real *centre, real *rest, real *rstd, const real *x,
                     const real *gamma, const real *beta) {
    const int64_t N = call->size[0];
    const real eps = call->scalar[0] > 0 ? (real)call->scalar[0] : REAL(0x1p-23f, 0x1p-52);
#define FORWARD_ROWS(rows)                                                                         \
    norm_rows(rows, centres, y + b * N, centre + b, rest + b, rstd + b, x + b * N, gamma, beta, N, eps)
    SHARED(r, call, call->rows, TOGETHER) {
        int64_t b = r.begin;
        for (; b + TOGETHER <= r.end; b += TOGETHER) {
            FORWARD_ROWS(TOGETHER);
            apply_epilogue(call, b * N, N, TOGETHER, N);
        }
        for (; b < r.end; b++) {
            FORWARD_ROWS(1);
            apply_epilogue(call, b * N, N, 1, N);
        }
    }
}

FUSING_KERNEL(layernorm_forward, OUT(y), OUT(centre), OUT(rest), OUT(rstd), IN(x), IN(gamma), IN(beta)) {
    forward(call, 1, y, centre, rest, rstd, x, gamma, beta);
}

FUSING_KERNEL(rmsnorm_forward, OUT(y), OUT(rstd), IN(x), IN(gamma)) {
    forward(call, 0, y, rstd, rstd, rstd, x, gamma, NULL);
}

/* What the columns of a row of dx need beside x and dy: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) = rstd·g + slope·x̂ + mean,
 * with g = dy·gamma. */
typedef struct {
    real centre, off, rstd, slope, mean;
} fn_row;

/* Add LANES columns of each row, of which the first n exist, to the sums of g and of g·x̂. */
INLINED void add_products(const int rows, const int centres, vec sum[PAIR][OF_LANES], vec products[PAIR][OF_LANES],
                          const real *dy, const real *x, const real *gamma, const fn_row row[PAIR], int64_t N,
                          int64_t n) {
    for (int v = 0; v < OF_LANES; v++) {
        const int64_t at = v * WIDTH;
        const vec factor = gamma ? load_first(gamma + at, n - at) : broadcast(1);
        for (int r = 0; r < rows; r++) {
            const vec g = load_first(dy + r * N + at, n - at) * factor; /* 0 from the n-th on */
            const vec of_x = load_first(x + r * N + at, n - at);
            if (centres)
                sum[r][v] += g;
            products[r][v] =
                vec_madd(g, xhat_of(centres, of_x, row[r].centre, row[r].off, row[r].rstd), products[r][v]);
        }
    }
}

/* The first n of a vector of columns of a few rows of dx; with `sums` (dgamma's, dbeta's) also what they add there. */
INLINED void vjp_columns(const int rows, const int centres, real *dx, real *const sums[2], const real *dy,
                         const real *x, const real *gamma, const fn_row row[PAIR], int64_t N, int64_t c, int64_t n) {
    const vec factor = gamma ? load_first(gamma + c, n) : broadcast(1);
    vec of_gamma = {0}, of_beta = {0};
    if (sums) {
        of_gamma = load(sums[0] + c);
        of_beta = load(sums[1] + c);
    }
    for (int r = 0; r < rows; r++) {
        const vec d = load_first(dy + r * N + c, n), of_x = load_first(x + r * N + c, n);
        const vec xhat = xhat_of(centres, of_x, row[r].centre, row[r].off, row[r].rstd);
        if (sums) {
            of_gamma = vec_madd(d, xhat, of_gamma);
            of_beta += d;
        }
        const vec rest = vec_madd(xhat, broadcast(row[r].slope), broadcast(row[r].mean));
        store_first(dx + r * N + c, vec_madd(d * factor, broadcast(row[r].rstd), rest), n);
    }
    if (sums) {
        store(sums[0] + c, of_gamma);
        store(sums[1] + c, of_beta);
    }
}

/* A few rows of dx. */
INLINED void vjp_rows(const int rows, const int centres, real *dx, real *const sums[2], const real *dy,
                      const real *centre, const real *rest, const real *rstd, const real *x, const real *gamma,
                      int64_t N) {
    double of_g[PAIR] = {0}, along[PAIR] = {0};
    fn_row row[PAIR];
    for (int r = 0; r < rows; r++)
        row[r] = (fn_row){centre[r], -rest[r] * rstd[r], rstd[r], 0, 0};
    for (int64_t begin = 0; begin < N; begin += PART_OF_ROW) {
        const int64_t end = smaller(begin + PART_OF_ROW, N);
        vec sum[PAIR][OF_LANES] = {0}, products[PAIR][OF_LANES] = {0};
        int64_t c = begin;
        for (; c + LANES <= end; c += LANES)
            add_products(rows, centres, sum, products, dy + c, x + c, gamma ? gamma + c : NULL, row, N, LANES);
        if (c < end)
            add_products(rows, centres, sum, products, dy + c, x + c, gamma ? gamma + c : NULL, row, N, end - c);
        for (int r = 0; r < rows; r++) {
            if (centres)
                of_g[r] += (double)sum_of_lanes(sum[r]);
            along[r] += (double)sum_of_lanes(products[r]);
        }
    }
    for (int r = 0; r < rows; r++) {
        row[r].mean = -rstd[r] * (real)(of_g[r] / (double)N);
        row[r].slope = -rstd[r] * (real)(along[r] / (double)N);
    }
    int64_t c = 0;
    for (; c + WIDTH <= N; c += WIDTH)
        vjp_columns(rows, centres, dx, sums, dy, x, gamma, row, N, c, WIDTH);
    if (c < N)
        vjp_columns(rows, centres, dx, sums, dy, x, gamma, row, N, c, N - c);
}

/* The gradients of the parameters alone, for a block of columns; NULL: it is not wanted. */
INLINED void gradient_block(const fn_call *call, int64_t j, int64_t n, const int vectors, const int centres, real *dgamma, real *dbeta,
                            const real *dy, const real *centre, const real *rest, const real *rstd, const real *x) {
    const int64_t B = call->rows, N = call->size[0], block = rows_of_block(B);
    vec of_gamma[MOST], of_beta[MOST], lost_gamma[MOST], lost_beta[MOST];
    for (int v = 0; v < vectors; v++)
        of_gamma[v] = of_beta[v] = lost_gamma[v] = lost_beta[v] = (vec){0};
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        vec part_gamma[MOST], part_beta[MOST];
        for (int v = 0; v < vectors; v++)
            part_gamma[v] = part_beta[v] = (vec){0};
        for (int64_t b = b0, at = b0 * N + j; b < smaller(b0 + block, B); b++, at += N)
            for (int v = 0; v < vectors; v++) {
                const vec d = part(dy + at, v, n);
                const vec xhat = xhat_of(centres, part(x + at, v, n), centre[b], -rest[b] * rstd[b], rstd[b]);
                part_gamma[v] = vec_madd(d, xhat, part_gamma[v]);
                part_beta[v] += d;
            }
        for (int v = 0; v < vectors; v++) {
            add_block(&of_gamma[v], &lost_gamma[v], part_gamma[v]);
            add_block(&of_beta[v], &lost_beta[v], part_beta[v]);
        }
    }
    for (int v = 0; v < vectors; v++) {
        of_gamma[v] = with_lost(of_gamma[v], lost_gamma[v]);
        of_beta[v] = with_lost(of_beta[v], lost_beta[v]);
    }
    put_gradient(dgamma, j, n, vectors, of_gamma, call->accumulate);
    put_gradient(dbeta, j, n, vectors, of_beta, call->accumulate);
}

#define VJP_ROWS(rows, sums)                                                                       \
    vjp_rows(rows, centres, dx + b * N, sums, dy + b * N, centre + b, rest + b, rstd + b, x + b * N, gamma, N)

/* dx and the gradients of the parameters in one pass over dy and x, for a thread that is alone: with vectors of sums of
 * all columns in its scratch memory. The bits are those of gradient_block. */
INLINED void vjp_with_sums(const fn_call *call, const int centres, real *dx, real *dgamma, real *dbeta, const real *dy, const real *centre,
                           const real *rest, const real *rstd, const real *x, const real *gamma) {
    const int64_t B = call->rows, N = call->size[0], block = rows_of_block(B);
    const int64_t width = (N + LANES - 1) / LANES * LANES;
    real *const into[] = {dgamma, dbeta}, *const sums = call->scratch;
    real *const of_block[] = {sums, sums + width}, *const total = sums + 2 * width, *const lost = sums + 4 * width;
    memset(total, 0, 4 * (size_t)width * sizeof(real)); /* and `lost` */
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        const int64_t end = smaller(b0 + block, B);
        memset(sums, 0, 2 * (size_t)width * sizeof(real));
        int64_t b = b0;
        for (; b + PAIR <= end; b += PAIR)
            VJP_ROWS(PAIR, of_block);
        for (; b < end; b++)
            VJP_ROWS(1, of_block);
        for (int64_t c = 0; c < 2 * width; c += WIDTH) {
            vec sum = load(total + c), rounded = load(lost + c);
            add_block(&sum, &rounded, load(sums + c));
            store(total + c, sum);
            store(lost + c, rounded);
        }
    }
    for (int k = 0; k < 2; k++)
        for (int64_t c = 0; into[k] && c < N; c += WIDTH) {
            const vec sum = with_lost(load(total + k * width + c), load(lost + k * width + c));
            put_gradient(into[k], c, smaller(N - c, WIDTH), 1, &sum, call->accumulate);
        }
}

INLINED void vjp(const fn_call *call, const int centres, real *dx, real *dgamma, real *dbeta, const real *dy, const real *centre,
                 const real *rest, const real *rstd, const real *x, const real *gamma) {
    const int64_t N = call->size[0];
    const int gradients = dgamma || dbeta;
    if (dx && gradients && !call->member && 6 * (N + LANES) * (int64_t)sizeof(real) <= FN_SCRATCH) {
        vjp_with_sums(call, centres, dx, dgamma, dbeta, dy, centre, rest, rstd, x, gamma);
        return;
    }
    if (dx)
        SHARED(r, call, call->rows, PAIR) {
            int64_t b = r.begin;
            for (; b + PAIR <= r.end; b += PAIR)
                VJP_ROWS(PAIR, NULL);
            for (; b < r.end; b++)
                VJP_ROWS(1, NULL);
        }
    if (gradients)
        BY_BLOCKS(gradient_block, call, centres, dgamma, dbeta, dy, centre, rest, rstd, x)
}

KERNEL(layernorm_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(centre), IN(rest), IN(rstd), IN(x), IN(gamma)) {
    vjp(call, 1, dx, dgamma, dbeta, dy, centre, rest, rstd, x, gamma);
}

KERNEL(rmsnorm_vjp, OUT(dx), OUT(dgamma), IN(dy), IN(rstd), IN(x), IN(gamma)) {
    vjp(call, 0, dx, dgamma, NULL, dy, rstd, rstd, rstd, x, gamma);
}
