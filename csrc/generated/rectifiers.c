/* Written by csrc/generate.py from the formulas in fastnet/layers/rectifiers.py: change those. */
#include "lib/formula.h"

ELEMENT relu_forward_of(real x) {
    return where(x <= R(0.0), R(0.0), x);
}

ELEMENTWISE(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = relu_forward_of(x[i]);
}

ELEMENT relu_vjp_of(real dy, real y) {
    return where(y <= R(0.0), R(0.0), dy);
}

CHEAP_ELEMENTWISE(relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = relu_vjp_of(dy[i], y[i]);
}

ELEMENT leaky_relu_forward_of(real x, double negative_slope) {
    return where(x > R(0.0), x, R(negative_slope) * x);
}

ELEMENTWISE(leaky_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double negative_slope = call->scalar[0];
    ELEMENTS(i)
        y[i] = leaky_relu_forward_of(x[i], negative_slope);
}

ELEMENT leaky_relu_vjp_of(real dy, real x, double negative_slope) {
    return where(x > R(0.0), dy, R(negative_slope) * dy);
}

CHEAP_ELEMENTWISE(leaky_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double negative_slope = call->scalar[0];
    ELEMENTS(i)
        dx[i] = leaky_relu_vjp_of(dy[i], x[i], negative_slope);
}

ELEMENT elu_forward_of(real x, double alpha) {
    return where(x > R(0.0), x, R(alpha) * real_expm1(real_minimum(x, R(0.0))));
}

ELEMENTWISE(elu_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double alpha = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = elu_forward_of(x_at[l], alpha);
        STORE_REST(y, i, end);
    }
}

ELEMENT elu_vjp_of(real dy, real x, double alpha) {
    return where(x > R(0.0), dy, dy * (R(alpha) * real_exp_below_0(real_minimum(x, R(0.0)))));
}

ELEMENTWISE(elu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double alpha = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = elu_vjp_of(dy_at[l], x_at[l], alpha);
        STORE_REST(dx, i, end);
    }
}

ELEMENT selu_forward_of(real x) {
    return where(x > R(0.0), R(1.0507009873554805) * x, R(1.0507009873554805 * 1.6732632423543772) * real_expm1(real_minimum(x, R(0.0))));
}

ELEMENTWISE(selu_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = selu_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT selu_vjp_of(real dy, real x) {
    return dy * where(x > R(0.0), R(1.0507009873554805), R(1.0507009873554805 * 1.6732632423543772) * real_exp_below_0(real_minimum(x, R(0.0))));
}

ELEMENTWISE(selu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = selu_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}

ELEMENT hardtanh_forward_of(real x, double min_val, double max_val) {
    return real_minimum(real_maximum(x, R(min_val)), R(max_val));
}

ELEMENTWISE(hardtanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double min_val = call->scalar[0];
    const double max_val = call->scalar[1];
    ELEMENTS(i)
        y[i] = hardtanh_forward_of(x[i], min_val, max_val);
}

ELEMENT hardtanh_vjp_of(real dy, real x, double min_val, double max_val) {
    return where((x <= R(min_val)) | (x >= R(max_val)), R(0.0), dy);
}

CHEAP_ELEMENTWISE(hardtanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double min_val = call->scalar[0];
    const double max_val = call->scalar[1];
    ELEMENTS(i)
        dx[i] = hardtanh_vjp_of(dy[i], x[i], min_val, max_val);
}

ELEMENT hardsigmoid_forward_of(real x) {
    return real_minimum(real_maximum(x + R(3.0), R(0.0)), R(6.0)) * R(0.16666666666666666);
}

ELEMENTWISE(hardsigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = hardsigmoid_forward_of(x[i]);
}

ELEMENT hardsigmoid_vjp_of(real dy, real x) {
    return where((x <= R(-3.0)) | (x >= R(3.0)), R(0.0), dy * R(0.16666666666666666));
}

CHEAP_ELEMENTWISE(hardsigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    ELEMENTS(i)
        dx[i] = hardsigmoid_vjp_of(dy[i], x[i]);
}

ELEMENT hardswish_forward_of(real x) {
    return x * (real_minimum(real_maximum(x + R(3.0), R(0.0)), R(6.0)) * R(0.16666666666666666));
}

ELEMENTWISE(hardswish_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = hardswish_forward_of(x[i]);
}

ELEMENT hardswish_vjp_of(real dy, real x) {
    return where(x <= R(-3.0), R(0.0), where(x >= R(3.0), dy, dy * (x * R(0.3333333333333333) + R(0.5))));
}

CHEAP_ELEMENTWISE(hardswish_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    ELEMENTS(i)
        dx[i] = hardswish_vjp_of(dy[i], x[i]);
}
