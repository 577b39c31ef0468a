/* Elementwise activations: y = f(x), dx = dy·f′. Formulas: fastnet/layers/activations.py. */
#include "elementary.h"
#include "kernel.h"

/* Comparisons are written so that NaN takes the branch that keeps it. */

KERNEL(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

KERNEL(relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        dx[i] = y[i] <= 0 ? 0 : dy[i];
}

KERNEL(leaky_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t n = call->rows * call->size[0];
    const real slope = (real)call->scalar[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

KERNEL(leaky_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const int64_t n = call->rows * call->size[0];
    const real slope = (real)call->scalar[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
}

KERNEL(sigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        y[i] = real_sigmoid(x[i]);
}

KERNEL(sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

KERNEL(tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        y[i] = real_tanh(x[i]);
}

KERNEL(tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const int64_t n = call->rows * call->size[0];
    INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}
