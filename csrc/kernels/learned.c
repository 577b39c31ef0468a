/* The learned optimizer: for each parameter a step of the same LSTM. Formulas: fastnet/optim/learned.py.
 *
 * A block of parameters goes through all layers at once: vectors run across parameters, and each sum over the rows of a
 * table of weights runs in order. So no bit depends on the block that a parameter is in. */
#include "engine/share.h"
#include "lib/elementary.h"

enum { LSTM_GATES = 4, LSTM_FEATURES = 2, LSTM_BLOCK = 2 * LANES, LSTM_MOST_UNITS = 64, LSTM_GRAIN = 2 * LSTM_BLOCK };

typedef real lstm_row[LSTM_BLOCK];

/* The first n elements of a row; the others are zeros. */
static inline void lstm_load(real *to, const real *from, int64_t n) {
    load_lanes(to, from, n);
    load_lanes(to + LANES, from + LANES, n - LANES);
}

static inline void lstm_store(real *to, const real *from, int64_t n) {
    store_lanes(to, from, n);
    store_lanes(to + LANES, from + LANES, n - LANES);
}

/* Two features of a gradient: log(|g|)/p and the sign, or −1 and e^p·g where |g| < e^−p; p = 10. */
static __attribute__((noinline)) void lstm_features(lstm_row *x, const real *w, const real *g, real weight_decay) {
    const real small = REAL(4.5399929762484854e-05f, 4.5399929762484854e-05);
    const real large = REAL(22026.465794806718f, 22026.465794806718);
    INDEPENDENT
    for (int l = 0; l < LSTM_BLOCK; l++) {
        const real d = madd(weight_decay, w[l], g[l]), size = REAL_FN(fabs)(d);
        const real logarithm = real_log(size) / 10;
        x[0][l] = size >= small ? logarithm : -1;
        x[1][l] = size >= small ? REAL_FN(copysign)(1, d) : large * d;
    }
}

/* The four gates' sums of a unit: its biases, and its weights times the rows of x. */
static __attribute__((noinline)) void lstm_gates(lstm_row *sums, const real *weights, lstm_row *x, int64_t rows) {
    for (int first = 0; first < LSTM_BLOCK; first += 2 * WIDTH) {
        const real *at = weights;
        vec sum[LSTM_GATES][2];
#pragma GCC unroll 4
        for (int k = 0; k < LSTM_GATES; k++)
            sum[k][0] = sum[k][1] = broadcast(at[k]);
        for (int64_t r = 0; r < rows; r++) {
            const vec a = load(x[r] + first), b = load(x[r] + first + WIDTH);
            at += LSTM_GATES;
#pragma GCC unroll 4
            for (int k = 0; k < LSTM_GATES; k++) {
                const vec factor = broadcast(at[k]);
                sum[k][0] = vec_madd(factor, a, sum[k][0]);
                sum[k][1] = vec_madd(factor, b, sum[k][1]);
            }
        }
#pragma GCC unroll 4
        for (int k = 0; k < LSTM_GATES; k++) {
            store(sums[k] + first, sum[k][0]);
            store(sums[k] + first + WIDTH, sum[k][1]);
        }
    }
}

/* A unit's cell c and output h, from the gates' sums. */
static __attribute__((noinline)) void lstm_unit(real *restrict h, real *restrict c, lstm_row *sums) {
    INDEPENDENT
    for (int l = 0; l < LSTM_BLOCK; l++)
        h[l] = real_sigmoid(sums[0][l]) * real_tanh(sums[2][l]);
    INDEPENDENT
    for (int l = 0; l < LSTM_BLOCK; l++)
        c[l] = madd(real_sigmoid(sums[1][l]), c[l], h[l]);
    INDEPENDENT
    for (int l = 0; l < LSTM_BLOCK; l++)
        h[l] = real_sigmoid(sums[3][l]) * real_tanh(c[l]);
}

KERNEL(learned_update, INOUT(w), INOUT(h), INOUT(c), IN(g), IN(weights)) {
    const int64_t N = call->size[0], L = call->size[1], H = call->size[2];
    const real lr = (real)call->hyper[0], weight_decay = (real)call->hyper[1], shrink = (real)call->hyper[2];
    lstm_row *const x = call->scratch, *const fresh = x + 2 * LSTM_MOST_UNITS; /* a layer's inputs and old h; its new h */
    SHARED(r, call, N, LSTM_GRAIN)
        for (int64_t i = r.begin; i < r.end; i += LSTM_BLOCK) {
            const int64_t n = smaller(LSTM_BLOCK, r.end - i);
            const real *table = weights;
            int64_t inputs = LSTM_FEATURES;
            lstm_row values, gradients, sums[LSTM_GATES];
            lstm_load(values, w + i, n);
            lstm_load(gradients, g + i, n);
            lstm_features(x, values, gradients, weight_decay);
            for (int64_t layer = 0; layer < L; layer++) {
                real *const own_h = h + layer * H * N + i, *const own_c = c + layer * H * N + i;
                for (int64_t j = 0; j < H; j++)
                    lstm_load(x[inputs + j], own_h + j * N, n);
                for (int64_t j = 0; j < H; j++) {
                    lstm_row cell;
                    lstm_gates(sums, table, x, inputs + H);
                    table += LSTM_GATES * (1 + inputs + H);
                    lstm_load(cell, own_c + j * N, n);
                    lstm_unit(fresh[j], cell, sums);
                    lstm_store(own_c + j * N, cell, n);
                    lstm_store(own_h + j * N, fresh[j], n);
                }
                memcpy(x, fresh, (size_t)H * sizeof(lstm_row));
                inputs = H;
            }
            for (int l = 0; l < LSTM_BLOCK; l++)
                sums[0][l] = table[H];
            for (int64_t j = 0; j < H; j++)
                for (int l = 0; l < LSTM_BLOCK; l++)
                    sums[0][l] = madd(table[j], x[j][l], sums[0][l]);
            for (int l = 0; l < LSTM_BLOCK; l++)
                values[l] = madd(lr, sums[0][l], shrink * values[l]);
            lstm_store(w + i, values, n);
        }
}
