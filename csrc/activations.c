/* Written by csrc/generate.py from the formulas in fastnet/layers/activations.py: change those. */
#include "formula.h"

static inline real relu_forward_of(real x) {
    return where(x <= R(0.0), R(0.0), x);
}

ELEMENTWISE(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = relu_forward_of(x[i]);
}

static inline real relu_vjp_of(real dy, real y) {
    return where(y <= R(0.0), R(0.0), dy);
}

ELEMENTWISE(relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = relu_vjp_of(dy[i], y[i]);
}

static inline real leaky_relu_forward_of(real x, double slope) {
    return where(x > R(0.0), x, R(slope) * x);
}

ELEMENTWISE(leaky_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double slope = call->scalar[0];
    ELEMENTS(i)
        y[i] = leaky_relu_forward_of(x[i], slope);
}

static inline real leaky_relu_vjp_of(real dy, real x, double slope) {
    return where(x > R(0.0), dy, R(slope) * dy);
}

ELEMENTWISE(leaky_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double slope = call->scalar[0];
    ELEMENTS(i)
        dx[i] = leaky_relu_vjp_of(dy[i], x[i], slope);
}

static inline real sigmoid_forward_of(real x) {
    return real_sigmoid(x);
}

ELEMENTWISE(sigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t whole = end - (end - begin) % LANES;
    INDEPENDENT
    for (int64_t i = begin; i < whole; i++)
        y[i] = sigmoid_forward_of(x[i]);
    if (whole < end) {
        REST(x, whole, end);
        for (int l = 0; l < LANES; l++)
            x_rest[l] = sigmoid_forward_of(x_rest[l]);
        store_lanes(y + whole, x_rest, end - whole);
    }
}

static inline real sigmoid_vjp_of(real dy, real y) {
    return dy * (y * (R(1.0) - y));
}

ELEMENTWISE(sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = sigmoid_vjp_of(dy[i], y[i]);
}

static inline real tanh_forward_of(real x) {
    return real_tanh(x);
}

ELEMENTWISE(tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    const int64_t whole = end - (end - begin) % LANES;
    INDEPENDENT
    for (int64_t i = begin; i < whole; i++)
        y[i] = tanh_forward_of(x[i]);
    if (whole < end) {
        REST(x, whole, end);
        for (int l = 0; l < LANES; l++)
            x_rest[l] = tanh_forward_of(x_rest[l]);
        store_lanes(y + whole, x_rest, end - whole);
    }
}

static inline real tanh_vjp_of(real dy, real y) {
    return dy * (R(1.0) - y * y);
}

ELEMENTWISE(tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = tanh_vjp_of(dy[i], y[i]);
}
