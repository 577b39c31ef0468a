/* Optimizer updates, one pass over the flat vectors. Formulas: fastnet/optim/rules.py. */
#include "kernel.h"
#include "share.h"

enum { GRAIN = 2048 };
static const real SMALLEST_NORMAL = REAL(0x1p-126f, 0x1p-1022);

static inline int is_tiny(real a) { return REAL_FN(fabs)(a) < SMALLEST_NORMAL; }

KERNEL(sgd_update, INOUT(w), IN(g)) {
    const real lr = (real)call->hyper[0], weight_decay = (real)call->hyper[1];
    SHARED(r, call, call->size[0], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++)
            w[i] = madd(-lr, madd(weight_decay, w[i], g[i]), w[i]);
}

KERNEL(sgd_momentum_update, INOUT(w), INOUT(v), IN(g)) {
    const real lr = (real)call->hyper[0], weight_decay = (real)call->hyper[1];
    const real momentum = (real)call->hyper[2], damping = (real)call->hyper[3];
    SHARED(r, call, call->size[0], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++) {
            const real d = madd(weight_decay, w[i], g[i]), next = madd(damping, d, momentum * v[i]);
            const real velocity = is_tiny(next) ? 0 : next;
            v[i] = velocity;
            w[i] = madd(-lr, velocity, w[i]);
        }
}

KERNEL(sgd_nesterov_update, INOUT(w), INOUT(v), IN(g)) {
    const real lr = (real)call->hyper[0], weight_decay = (real)call->hyper[1];
    const real momentum = (real)call->hyper[2];
    SHARED(r, call, call->size[0], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++) {
            const real d = madd(weight_decay, w[i], g[i]), next = madd(momentum, v[i], d);
            v[i] = is_tiny(next) ? 0 : next;
            w[i] = madd(-lr, madd(momentum, v[i], d), w[i]);
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

/* Moves the moments towards d and takes the step from w. Fused, so that no square is denormal. */
static inline real adam_step(adam_rates h, real w, real *m, real *v, real d) {
    const real first = madd(h.rest1, d, h.beta1 * *m), second = madd(h.rest2 * d, d, h.beta2 * *v);
    const real moved = is_tiny(first) ? 0 : first;
    *m = moved;
    *v = is_tiny(first) & (second < SMALLEST_NORMAL) ? 0 : second;
    return madd(-h.step_size, moved / madd(REAL_FN(sqrt)(second), h.root_scale, h.eps), w);
}

KERNEL(adam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const adam_rates rates = rates_of(call->hyper);
    const real weight_decay = (real)call->hyper[5];
    SHARED(r, call, call->size[0], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++)
            w[i] = adam_step(rates, w[i], &m[i], &v[i], madd(weight_decay, w[i], g[i]));
}

KERNEL(adamw_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const adam_rates rates = rates_of(call->hyper);
    const real shrink = (real)call->hyper[5];
    SHARED(r, call, call->size[0], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++)
            w[i] = adam_step(rates, shrink * w[i], &m[i], &v[i], g[i]);
}
