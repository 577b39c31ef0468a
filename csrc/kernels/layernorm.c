/* Normalisation of rows. Formulas: fastnet/layers/layernorm.py.
 *
 * Several rows are taken at a time, whose sums do not wait for one another. A row's sum is that of its blocks of COLUMNS,
 * in float64; a block adds element i to lane i % LANES, and the lanes as a binary tree. */
#include "engine/share.h"
#include "lib/columns.h"
#include "lib/reduce.h"
#include "lib/rows.h"

enum {
    TOGETHER = 4,             /* rows */
    OF_LANES = LANES / WIDTH, /* vectors that hold LANES numbers */
    COLUMNS = 64 * LANES
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

/* For each row the sum of x − from, unless NULL, and that of its squares, unless NULL. */
INLINED void moments(const int rows, double *sum, double *squares, const real *x, const real *from, int64_t N) {
    for (int r = 0; r < rows; r++) {
        if (sum)
            sum[r] = 0;
        if (squares)
            squares[r] = 0;
    }
    for (int64_t begin = 0; begin < N; begin += COLUMNS) {
        const int64_t end = smaller(begin + COLUMNS, N);
        vec of_sum[TOGETHER][OF_LANES] = {0}, of_squares[TOGETHER][OF_LANES] = {0};
        for (int64_t c = begin; c < end; c += LANES) {
            const int whole = end - c >= LANES;
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < OF_LANES; v++) {
                    const int64_t n = end - c - v * WIDTH;
                    const real *at = x + r * N + c + v * WIDTH;
                    vec d = whole ? load(at) : load_first(at, n);
                    if (from)
                        d -= broadcast(from[r]);
                    if (from && !whole)
                        d = first_of(d, n);
                    if (sum)
                        of_sum[r][v] += d;
                    if (squares)
                        of_squares[r][v] = vec_madd(d, d, of_squares[r][v]);
                }
        }
        for (int r = 0; r < rows; r++) {
            if (sum)
                sum[r] += (double)sum_of_lanes(of_sum[r]);
            if (squares)
                squares[r] += (double)sum_of_lanes(of_squares[r]);
        }
    }
}

/* A few rows of y. Without `centre` the mean counts as 0. */
INLINED void forward_rows(const int rows, real *y, real *centre, real *rest, real *rstd, const real *x,
                          const real *gamma, const real *beta, int64_t N, real eps) {
    double sum[TOGETHER], squares[TOGETHER];
    real mean[TOGETHER], left[TOGETHER], scale[TOGETHER];
    if (centre) {
        for (int r = 0; r < rows; r++)
            mean[r] = x[r * N];
        moments(rows, sum, NULL, x, mean, N);
        for (int r = 0; r < rows; r++)
            mean[r] += (real)(sum[r] / (double)N);
    }
    moments(rows, centre ? sum : NULL, squares, x, centre ? mean : NULL, N);
    for (int r = 0; r < rows; r++) {
        double variance = squares[r] / (double)N;
        if (centre) {
            const double off = sum[r] / (double)N;
            variance -= off * off;
            variance = variance < 0 ? 0 : variance;
            centre[r] = mean[r];
            rest[r] = left[r] = (real)off;
        }
        rstd[r] = scale[r] = 1 / REAL_FN(sqrt)((real)variance + eps);
    }
    for (int64_t c = 0; c < N; c += WIDTH) {
        const int64_t n = N - c;
        const vec factor = gamma ? load_first(gamma + c, n) : broadcast(1);
        const vec summand = beta ? load_first(beta + c, n) : (vec){0};
        for (int r = 0; r < rows; r++) {
            vec d = load_first(x + r * N + c, n);
            if (centre)
                d = d - broadcast(mean[r]) - broadcast(left[r]);
            d *= broadcast(scale[r]);
            store_first(y + r * N + c, gamma || beta ? vec_madd(d, factor, summand) : d, n);
        }
    }
}

INLINED void forward(const fn_call *call, real *y, real *centre, real *rest, real *rstd, const real *x,
                     const real *gamma, const real *beta) {
    const int64_t N = call->size[0];
    const real eps = call->scalar[0] > 0 ? (real)call->scalar[0] : REAL(0x1p-23f, 0x1p-52);
#define FORWARD_ROWS(rows)                                                                         \
    forward_rows(rows, y + b * N, centre ? centre + b : NULL, rest ? rest + b : NULL, rstd + b,    \
                 x + b * N, gamma, beta, N, eps)
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
    forward(call, y, centre, rest, rstd, x, gamma, beta);
}

FUSING_KERNEL(rmsnorm_forward, OUT(y), OUT(rstd), IN(x), IN(gamma)) {
    forward(call, y, NULL, NULL, rstd, x, gamma, NULL);
}

/* x̂ of a few columns of a row, given x. */
INLINED vec xhat_of(vec x, const real *centre, const real *rest, real rstd, int64_t r) {
    if (centre)
        x = x - broadcast(centre[r]) - broadcast(rest[r]);
    return x * broadcast(rstd);
}

/* A few rows of dx; with `sums` (dgamma's, dbeta's) also what they add to the gradients. */
INLINED void vjp_rows(const int rows, real *dx, real *const sums[2], const real *dy, const real *centre,
                      const real *rest, const real *rstd, const real *x, const real *gamma, int64_t N) {
    double of_g[TOGETHER] = {0}, along[TOGETHER] = {0};
    real mean[TOGETHER], slope[TOGETHER];
    for (int64_t begin = 0; begin < N; begin += COLUMNS) {
        const int64_t end = smaller(begin + COLUMNS, N);
        vec sum[TOGETHER][OF_LANES] = {0}, products[TOGETHER][OF_LANES] = {0};
        for (int64_t c = begin; c < end; c += LANES) {
            const int whole = end - c >= LANES;
            for (int v = 0; v < OF_LANES; v++) {
                const int64_t n = whole ? WIDTH : end - c - v * WIDTH, at = c + v * WIDTH;
                const vec factor = gamma ? load_first(gamma + at, n) : broadcast(1);
                for (int r = 0; r < rows; r++) {
                    vec g = load_first(dy + r * N + at, n);
                    const vec xhat = xhat_of(load_first(x + r * N + at, n), centre, rest, rstd[r], r);
                    if (gamma)
                        g *= factor;
                    if (centre)
                        sum[r][v] += g;
                    products[r][v] = vec_madd(g, xhat, products[r][v]); /* g is 0 from the n-th lane on */
                }
            }
        }
        for (int r = 0; r < rows; r++) {
            if (centre)
                of_g[r] += (double)sum_of_lanes(sum[r]);
            along[r] += (double)sum_of_lanes(products[r]);
        }
    }
    for (int r = 0; r < rows; r++) {
        mean[r] = (real)(of_g[r] / (double)N);
        slope[r] = (real)(along[r] / (double)N);
    }
    for (int64_t c = 0; c < N; c += WIDTH) {
        const int64_t n = N - c;
        const vec factor = gamma ? load_first(gamma + c, n) : broadcast(1);
        vec of_gamma = {0}, of_beta = {0};
        if (sums) {
            of_gamma = load(sums[0] + c);
            of_beta = load(sums[1] + c);
        }
        for (int r = 0; r < rows; r++) {
            const vec d = load_first(dy + r * N + c, n);
            const vec xhat = xhat_of(load_first(x + r * N + c, n), centre, rest, rstd[r], r);
            vec g = gamma ? d * factor : d;
            if (sums) {
                of_gamma = vec_madd(d, xhat, of_gamma);
                of_beta += d;
            }
            if (centre)
                g -= broadcast(mean[r]);
            store_first(dx + r * N + c, broadcast(rstd[r]) * vec_madd(-xhat, broadcast(slope[r]), g), n);
        }
        if (sums) {
            store(sums[0] + c, of_gamma);
            store(sums[1] + c, of_beta);
        }
    }
}

/* The gradients of the parameters alone, for a block of columns; NULL: it is not wanted. */
INLINED void gradient_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *dgamma, real *dbeta,
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
                const vec xhat = xhat_of(part(x + at, v, n), centre, rest, rstd[b], b);
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
    vjp_rows(rows, dx + b * N, sums, dy + b * N, centre ? centre + b : NULL,                       \
             rest ? rest + b : NULL, rstd + b, x + b * N, gamma, N)

/* dx and the gradients of the parameters in one pass over dy and x, for a thread that is alone: with vectors of sums of
 * all columns in its scratch memory. The bits are those of gradient_block. */
INLINED void vjp_with_sums(const fn_call *call, real *dx, real *dgamma, real *dbeta, const real *dy, const real *centre,
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
        for (; b + TOGETHER <= end; b += TOGETHER)
            VJP_ROWS(TOGETHER, of_block);
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

INLINED void vjp(const fn_call *call, real *dx, real *dgamma, real *dbeta, const real *dy, const real *centre,
                 const real *rest, const real *rstd, const real *x, const real *gamma) {
    const int64_t N = call->size[0];
    const int gradients = dgamma || dbeta;
    if (dx && gradients && !call->member && 6 * (N + LANES) * (int64_t)sizeof(real) <= FN_SCRATCH) {
        vjp_with_sums(call, dx, dgamma, dbeta, dy, centre, rest, rstd, x, gamma);
        return;
    }
    if (dx)
        SHARED(r, call, call->rows, TOGETHER) {
            int64_t b = r.begin;
            for (; b + TOGETHER <= r.end; b += TOGETHER)
                VJP_ROWS(TOGETHER, NULL);
            for (; b < r.end; b++)
                VJP_ROWS(1, NULL);
        }
    if (gradients)
        BY_BLOCKS(gradient_block, call, dgamma, dbeta, dy, centre, rest, rstd, x)
}

KERNEL(layernorm_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(centre), IN(rest), IN(rstd), IN(x), IN(gamma)) {
    vjp(call, dx, dgamma, dbeta, dy, centre, rest, rstd, x, gamma);
}

KERNEL(rmsnorm_vjp, OUT(dx), OUT(dgamma), IN(dy), IN(rstd), IN(x), IN(gamma)) {
    vjp(call, dx, dgamma, NULL, dy, NULL, NULL, rstd, x, gamma);
}
