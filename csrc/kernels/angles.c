/* The angles of periodic features. Formulas: fastnet/layers/periodic.py. Outputs of an input stand together, K for each
 * of its phases. */
#include "engine/share.h"
#include "lib/elementary.h"
#include "lib/reduce.h"
#include "lib/rows.h"

static const real TURN = REAL(6.28318531f, 6.2831853071795864769);

/* w·x less the nearest integer, by one rounding where there is FMA. */
ELEMENT part_of_turn(real w, real x) {
    const real most = REAL(0x1p22f, 0x1p51), turns = w * x;
    const real whole = REAL_FN(fabs)(turns) < most ? turns + ROUNDER - ROUNDER : turns;
    return madd(w, x, -whole);
}

KERNEL(angles_forward, OUT(y), IN(x), IN(w), IN(p)) {
    const int64_t I = call->size[0], K = call->size[1], M = call->size[2], S = M / (I * K);
    SHARED(r, call, call->rows, 1 + 2048 / M)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t i = 0; i < I; i++)
                for (int64_t s = 0; s < S; s++) {
                    const real value = x[b * I + i], *const frequency = w + i * K, *const phase = p + (i * S + s) * K;
                    real *const to = y + b * M + (i * S + s) * K;
                    for (int64_t k = 0; k < K; k++)
                        to[k] = madd(TURN, part_of_turn(frequency[k], value), phase[k]);
                }
}

/* Σ_s dy of n frequencies of an input, from the k-th on. */
static inline vec slope_of_angles(const real *dy, int64_t K, int64_t S, int64_t n) {
    vec sum = load_first(dy, n);
    for (int64_t s = 1; s < S; s++)
        sum += load_first(dy + s * K, n);
    return sum;
}

KERNEL(angles_vjp, OUT(dx), OUT(dw), OUT(dp), IN(dy), IN(x), IN(w)) {
    const int64_t B = call->rows, I = call->size[0], K = call->size[1], M = call->size[2], S = M / (I * K);
    const int64_t block = rows_of_block(B), per_input = S * K;
    const int accumulate = call->accumulate != 0;
    if (dx)
        SHARED(r, call, B, 1 + 2048 / M)
            for (int64_t b = r.begin; b < r.end; b++)
                for (int64_t f = 0; f < I; f++) {
                    const real *const slope = dy + b * M + f * per_input, *const frequency = w + f * K;
                    real total = 0;
                    for (int64_t s = 0; s < S; s++) {
                        SUM(real, sum, K, slope[s * K + i] * frequency[i])
                        total += sum;
                    }
                    dx[b * I + f] = TURN * total;
                }
    if (dw)
        SHARED(r, call, I, 1)
            for (int64_t i = r.begin; i < r.end; i++)
                for (int64_t k = 0; k < K; k += WIDTH) {
                    const int64_t n = smaller(WIDTH, K - k);
                    vec total = {0}, lost = {0};
                    for (int64_t b0 = 0; b0 < B; b0 += block) {
                        vec sum = {0};
                        for (int64_t b = b0; b < smaller(b0 + block, B); b++)
                            sum = vec_madd(slope_of_angles(dy + b * M + i * per_input + k, K, S, n),
                                           broadcast(x[b * I + i]), sum);
                        add_block(&total, &lost, sum);
                    }
                    real *const to = dw + i * K + k;
                    const vec gradient = broadcast(TURN) * with_lost(total, lost);
                    store_first(to, accumulate ? load_first(to, n) + gradient : gradient, n);
                }
    if (dp)
        SHARED(r, call, M, 4 * WIDTH) {
            if (B > MANY_ROWS)
                sum_many_rows(dp, dy, B, M, r, accumulate);
            else
                sum_rows(dp, dy, B, M, r, accumulate);
        }
}
