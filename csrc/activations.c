/* Elementwise activations: y = f(x), dx = dy·f′. Formulas: fastnet/layers/activations.py. */
#include "elementary.h"
#include "elementwise.h"

/* Comparisons are written so that NaN takes the branch that keeps it. */

ELEMENTWISE(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

ELEMENTWISE(relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i) {
        const real d = dy[i];
        dx[i] = y[i] <= 0 ? 0 : d;
    }
}

ELEMENTWISE(leaky_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const real slope = (real)call->scalar[0];
    ELEMENTS(i)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

ELEMENTWISE(leaky_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const real slope = (real)call->scalar[0];
    ELEMENTS(i) {
        const real d = dy[i];
        dx[i] = x[i] > 0 ? d : slope * d;
    }
}

ELEMENTWISE(sigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    map(y + begin, x + begin, end - begin, real_sigmoid);
}

ELEMENTWISE(sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

ELEMENTWISE(tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    map(y + begin, x + begin, end - begin, real_tanh);
}

ELEMENTWISE(tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}
