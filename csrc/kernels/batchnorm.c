/* Batch normalisation. Formulas: fastnet/layers/batchnorm.py. Columns are taken in blocks, whose rows stay in cache from
 * one pass to the next. */
#include "engine/share.h"
#include "lib/columns.h"
#include "lib/rows.h"

static inline vec inverse_root(vec a) {
    real lane[WIDTH];
    store(lane, a);
    for (int l = 0; l < WIDTH; l++)
        lane[l] = 1 / REAL_FN(sqrt)(lane[l]);
    return load(lane);
}

/* to ← to + momentum·(from − to) */
INLINED void approach(real *to, int v, int64_t n, vec from, real momentum) {
    const vec old = part(to, v, n);
    put_part(to, v, n, old + momentum * (from - old));
}

INLINED void forward_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *y,
                           real *shift, real *rstd, real *running_mean, real *running_var,
                           const real *x, const real *gamma, const real *beta, real momentum) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0];
    const real unbiased = (real)((double)B / (double)(B - 1));
    const int64_t block = rows_of_block(B);
    vec first[MOST], centre[MOST], squares[MOST], lost[MOST], part_sum[MOST], scale[MOST], offset[MOST];
    for (int v = 0; v < vectors; v++) {
        first[v] = part(x + j, v, n);
        centre[v] = squares[v] = lost[v] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        for (int v = 0; v < vectors; v++)
            part_sum[v] = (vec){0};
        for (int64_t b = b0; b < smaller(b0 + block, B); b++)
            for (int v = 0; v < vectors; v++)
                part_sum[v] += part(x + b * N + j, v, n) - first[v];
        for (int v = 0; v < vectors; v++)
            add_block(&centre[v], &lost[v], part_sum[v]);
    }
    for (int v = 0; v < vectors; v++) {
        centre[v] = with_lost(centre[v], lost[v]) / (real)B;
        lost[v] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        for (int v = 0; v < vectors; v++)
            part_sum[v] = (vec){0};
        for (int64_t b = b0; b < smaller(b0 + block, B); b++)
            for (int v = 0; v < vectors; v++) {
                const vec centred = part(x + b * N + j, v, n) - first[v] - centre[v];
                part_sum[v] = vec_madd(centred, centred, part_sum[v]);
            }
        for (int v = 0; v < vectors; v++)
            add_block(&squares[v], &lost[v], part_sum[v]);
    }
    for (int v = 0; v < vectors; v++) {
        const vec variance = with_lost(squares[v], lost[v]) / (real)B;
        scale[v] = inverse_root(variance + eps);
        put_part(shift + j, v, n, centre[v]);
        put_part(rstd + j, v, n, scale[v]);
        if (running_mean) {
            approach(running_mean + j, v, n, first[v] + centre[v], momentum);
            approach(running_var + j, v, n, variance * unbiased, momentum);
        }
        scale[v] *= part_or(gamma, j, v, n, 1);
        offset[v] = vec_madd(-centre[v], scale[v], part_or(beta, j, v, n, 0));
    }
    for (int64_t b = 0; b < B; b++)
        for (int v = 0; v < vectors; v++) {
            const vec from_first = part(x + b * N + j, v, n) - first[v];
            put_part(y + b * N + j, v, n, vec_madd(from_first, scale[v], offset[v]));
        }
    apply_epilogue(call, j, N, B, n);
}

FUSING_KERNEL(batchnorm_forward, OUT(y), OUT(shift), OUT(rstd), INOUT(running_mean),
                 INOUT(running_var),
                 INOUT_AS(int64_t, batches), IN(x), IN(gamma), IN(beta)) {
    const int counts = call->scalar[1] < 0; /* the running statistics are means over all minibatches */
    const real momentum = (real)(counts && batches ? 1 / (double)(batches[0] + 1) : call->scalar[1]);
    BY_BLOCKS(forward_block, call, y, shift, rstd, running_mean, running_var, x, gamma, beta, momentum)
    if (counts)
        together(call); /* until no member reads the count any more */
    if (batches && is_first(call))
        batches[0]++;
}

/* The sums over the rows of dy and of dy·x̂, with x̂ = (x − first − centre)·rstd. */
INLINED void column_sums(vec *sum_dy, vec *sum_dy_xhat, int64_t B, int64_t N, int64_t n,
                         const int vectors, const real *dy, const real *x, const vec *first,
                         const vec *centre, const vec *rstd) {
    const int64_t block = rows_of_block(B);
    vec lost_dy[MOST], lost_dy_xhat[MOST];
    for (int v = 0; v < vectors; v++)
        sum_dy[v] = sum_dy_xhat[v] = lost_dy[v] = lost_dy_xhat[v] = (vec){0};
    for (int64_t b0 = 0; b0 < B; b0 += block) {
        vec part_dy[MOST], part_dy_xhat[MOST];
        for (int v = 0; v < vectors; v++)
            part_dy[v] = part_dy_xhat[v] = (vec){0};
        for (int64_t b = b0; b < smaller(b0 + block, B); b++)
            for (int v = 0; v < vectors; v++) {
                const vec d = part(dy + b * N, v, n);
                const vec centred = part(x + b * N, v, n) - first[v] - centre[v];
                part_dy[v] += d;
                part_dy_xhat[v] = vec_madd(d, centred, part_dy_xhat[v]);
            }
        for (int v = 0; v < vectors; v++) {
            add_block(&sum_dy[v], &lost_dy[v], part_dy[v]);
            add_block(&sum_dy_xhat[v], &lost_dy_xhat[v], part_dy_xhat[v]);
        }
    }
    for (int v = 0; v < vectors; v++) {
        sum_dy[v] = with_lost(sum_dy[v], lost_dy[v]);
        sum_dy_xhat[v] = with_lost(sum_dy_xhat[v], lost_dy_xhat[v]) * rstd[v];
    }
}

INLINED void vjp_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *dx,
                       real *dgamma, real *dbeta, const real *dy, const real *shift,
                       const real *rstd, const real *x, const real *gamma) {
    const int64_t B = call->rows, N = call->size[0];
    vec sum_dy[MOST], sum_dy_xhat[MOST], first[MOST], centre[MOST], inverse[MOST];
    for (int v = 0; v < vectors; v++) {
        first[v] = part(x + j, v, n);
        centre[v] = part(shift + j, v, n);
        inverse[v] = part(rstd + j, v, n);
    }
    column_sums(sum_dy, sum_dy_xhat, B, N, n, vectors, dy + j, x + j, first, centre, inverse);
    put_gradient(dgamma, j, n, vectors, sum_dy_xhat, call->accumulate);
    put_gradient(dbeta, j, n, vectors, sum_dy, call->accumulate);
    if (!dx)
        return;
    /* dx = scale·(dy − Σdy/B − x̂·Σdy·x̂/B), written as a linear function of dy and x − first. */
    vec scale[MOST], slope[MOST], offset[MOST];
    for (int v = 0; v < vectors; v++) {
        scale[v] = inverse[v] * part_or(gamma, j, v, n, 1);
        slope[v] = -scale[v] * inverse[v] * (sum_dy_xhat[v] / (real)B);
        offset[v] = vec_madd(-slope[v], centre[v], -scale[v] * (sum_dy[v] / (real)B));
    }
    for (int64_t b = 0; b < B; b++)
        for (int v = 0; v < vectors; v++) {
            const vec from_first = part(x + b * N + j, v, n) - first[v];
            const vec d = part(dy + b * N + j, v, n);
            put_part(dx + b * N + j, v, n,
                     vec_madd(scale[v], d, vec_madd(slope[v], from_first, offset[v])));
        }
}

KERNEL(batchnorm_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(shift), IN(rstd), IN(x),
       IN(gamma)) {
    BY_BLOCKS(vjp_block, call, dx, dgamma, dbeta, dy, shift, rstd, x, gamma)
}

INLINED void inference_block(const fn_call *call, int64_t j, int64_t n, const int vectors, real *y,
                             const real *x, const real *gamma, const real *beta,
                             const real *running_mean, const real *running_var) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0];
    vec centre[MOST], scale[MOST], shift[MOST];
    for (int v = 0; v < vectors; v++) {
        centre[v] = part(running_mean + j, v, n);
        scale[v] = inverse_root(part(running_var + j, v, n) + eps) * part_or(gamma, j, v, n, 1);
        shift[v] = part_or(beta, j, v, n, 0);
    }
    for (int64_t b = 0; b < B; b++)
        for (int v = 0; v < vectors; v++) {
            const vec centred = part(x + b * N + j, v, n) - centre[v];
            put_part(y + b * N + j, v, n, vec_madd(centred, scale[v], shift[v]));
        }
}

KERNEL(batchnorm_inference_forward, OUT(y), IN(x), IN(gamma), IN(beta), IN(running_mean),
       IN(running_var)) {
    BY_BLOCKS(inference_block, call, y, x, gamma, beta, running_mean, running_var)
}

INLINED void inference_vjp_block(const fn_call *call, int64_t j, int64_t n, const int vectors,
                                 real *dx, real *dgamma, real *dbeta, const real *dy,
                                 const real *x, const real *gamma, const real *running_mean,
                                 const real *running_var) {
    const int64_t B = call->rows, N = call->size[0];
    const real eps = (real)call->scalar[0];
    vec sum_dy[MOST], sum_dy_xhat[MOST], centre[MOST], nothing[MOST], inverse[MOST];
    for (int v = 0; v < vectors; v++) {
        nothing[v] = (vec){0};
        centre[v] = part(running_mean + j, v, n);
        inverse[v] = inverse_root(part(running_var + j, v, n) + eps);
    }
    if (dgamma || dbeta) {
        column_sums(sum_dy, sum_dy_xhat, B, N, n, vectors, dy + j, x + j, centre, nothing, inverse);
        put_gradient(dgamma, j, n, vectors, sum_dy_xhat, call->accumulate);
        put_gradient(dbeta, j, n, vectors, sum_dy, call->accumulate);
    }
    if (!dx)
        return;
    for (int v = 0; v < vectors; v++)
        inverse[v] *= part_or(gamma, j, v, n, 1);
    for (int64_t b = 0; b < B; b++)
        for (int v = 0; v < vectors; v++)
            put_part(dx + b * N + j, v, n, part(dy + b * N + j, v, n) * inverse[v]);
}

KERNEL(batchnorm_inference_vjp, OUT(dx), OUT(dgamma), OUT(dbeta), IN(dy), IN(x), IN(gamma),
       IN(running_mean), IN(running_var)) {
    BY_BLOCKS(inference_vjp_block, call, dx, dgamma, dbeta, dy, x, gamma, running_mean, running_var)
}
