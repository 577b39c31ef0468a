/* Elementwise activations: y = f(x), dx = dy·f′. Formulas: fastnet/layers/activations.py. */
#include "elementary.h"
#include "share.h"

enum { GRAIN = 4096, COSTLY_GRAIN = 1024 };

/* Elements i of the range that a thread is handed; outputs may lie over inputs. */
#define ELEMENTS(i, call)                                                                          \
    SHARED(r, call, (call)->rows * (call)->size[0], GRAIN)                                         \
        INDEPENDENT                                                                                \
        for (int64_t i = r.begin; i < r.end; i++)

/* Comparisons are written so that NaN takes the branch that keeps it. */

KERNEL(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i, call)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

KERNEL(relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i, call) {
        const real d = dy[i];
        dx[i] = y[i] <= 0 ? 0 : d;
    }
}

KERNEL(leaky_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const real slope = (real)call->scalar[0];
    ELEMENTS(i, call)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

KERNEL(leaky_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const real slope = (real)call->scalar[0];
    ELEMENTS(i, call) {
        const real d = dy[i];
        dx[i] = x[i] > 0 ? d : slope * d;
    }
}

KERNEL(sigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    SHARED(r, call, call->rows * call->size[0], COSTLY_GRAIN)
        map(y + r.begin, x + r.begin, r.end - r.begin, real_sigmoid);
}

KERNEL(sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i, call)
        dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

KERNEL(tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    SHARED(r, call, call->rows * call->size[0], COSTLY_GRAIN)
        map(y + r.begin, x + r.begin, r.end - r.begin, real_tanh);
}

KERNEL(tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i, call)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}
