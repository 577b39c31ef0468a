/* Optimizer updates, one pass over the flat vectors. Formulas: fastnet/optim/rules.py. */
#include "kernel.h"

KERNEL(sgd_update, INOUT(w), IN(g)) {
    const double *hyper = call->hyper;
    const real lr = (real)hyper[0], weight_decay = (real)hyper[1];
    for (int64_t i = 0; i < call->size[0]; i++)
        w[i] -= lr * (g[i] + weight_decay * w[i]);
}

KERNEL(sgd_momentum_update, INOUT(w), INOUT(v), IN(g)) {
    const double *hyper = call->hyper;
    const real lr = (real)hyper[0], weight_decay = (real)hyper[1];
    const real momentum = (real)hyper[2], damping = (real)hyper[3];
    for (int64_t i = 0; i < call->size[0]; i++) {
        v[i] = momentum * v[i] + damping * (g[i] + weight_decay * w[i]);
        w[i] -= lr * v[i];
    }
}

KERNEL(sgd_nesterov_update, INOUT(w), INOUT(v), IN(g)) {
    const double *hyper = call->hyper;
    const real lr = (real)hyper[0], weight_decay = (real)hyper[1], momentum = (real)hyper[2];
    for (int64_t i = 0; i < call->size[0]; i++) {
        const real d = g[i] + weight_decay * w[i];
        v[i] = momentum * v[i] + d;
        w[i] -= lr * (d + momentum * v[i]);
    }
}

typedef struct {
    real step_size, root_scale, beta1, rest1, beta2, rest2, eps;
} adam_rates;

static inline adam_rates rates_of(const double *hyper) {
    return (adam_rates){
        .step_size = (real)hyper[0],
        .root_scale = (real)hyper[1],
        .beta1 = (real)hyper[2],
        .rest1 = (real)(1.0 - hyper[2]),
        .beta2 = (real)hyper[3],
        .rest2 = (real)(1.0 - hyper[3]),
        .eps = (real)hyper[4],
    };
}

/* Moves the moments towards d and returns the step against it. */
static inline real adam_step(adam_rates h, real *m, real *v, real d) {
    *m = h.beta1 * *m + h.rest1 * d;
    *v = h.beta2 * *v + h.rest2 * (d * d);
    return h.step_size * (*m / (REAL_FN(sqrt)(*v) * h.root_scale + h.eps));
}

KERNEL(adam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const adam_rates rates = rates_of(call->hyper);
    const real weight_decay = (real)call->hyper[5];
    for (int64_t i = 0; i < call->size[0]; i++)
        w[i] -= adam_step(rates, &m[i], &v[i], g[i] + weight_decay * w[i]);
}

KERNEL(adamw_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const adam_rates rates = rates_of(call->hyper);
    const real shrink = (real)call->hyper[5];
    for (int64_t i = 0; i < call->size[0]; i++)
        w[i] = shrink * w[i] - adam_step(rates, &m[i], &v[i], g[i]);
}
