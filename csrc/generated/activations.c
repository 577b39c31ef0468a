/* Written by csrc/generate.py from the formulas in fastnet/layers/activations.py: change those. */
#include "lib/formula.h"

ELEMENT sigmoid_forward_of(real x) {
    return real_sigmoid(x);
}

ELEMENTWISE(sigmoid_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = sigmoid_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT sigmoid_vjp_of(real dy, real y) {
    return dy * (y * (R(1.0) - y));
}

CHEAP_ELEMENTWISE(sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = sigmoid_vjp_of(dy[i], y[i]);
}

ELEMENT tanh_forward_of(real x) {
    return real_tanh(x);
}

ELEMENTWISE(tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = tanh_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT tanh_vjp_of(real dy, real y) {
    return dy * (R(1.0) - y * y);
}

CHEAP_ELEMENTWISE(tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        dx[i] = tanh_vjp_of(dy[i], y[i]);
}

ELEMENT scaled_tanh_forward_of(real x, double amplitude, double slope) {
    return R(amplitude) * real_tanh(R(slope) * x);
}

ELEMENTWISE(scaled_tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double amplitude = call->scalar[0];
    const double slope = call->scalar[1];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = scaled_tanh_forward_of(x_at[l], amplitude, slope);
        STORE_REST(y, i, end);
    }
}

ELEMENT scaled_tanh_vjp_of(real dy, real y, double amplitude, double slope) {
    return dy * (R(slope * amplitude) - R(slope / amplitude) * (y * y));
}

ELEMENTWISE(scaled_tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const double amplitude = call->scalar[0];
    const double slope = call->scalar[1];
    ELEMENTS(i)
        dx[i] = scaled_tanh_vjp_of(dy[i], y[i], amplitude, slope);
}

ELEMENT linear_tanh_forward_of(real x, double a) {
    const real t = real_tanh(x);
    return t + R(a) * x;
}

ELEMENT linear_tanh_forward_t_of(real x, double a) {
    const real t = real_tanh(x);
    return t;
}

ELEMENTWISE(linear_tanh_forward, OUT_OVER(y), IN_UNDER(x), OUT(t)) {
    const double a = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        OUTPUT_LANES(t, i, end);
        EACH_LANE(l) {
            const real x_ = x_at[l];
            y_at[l] = linear_tanh_forward_of(x_, a);
            t_at[l] = linear_tanh_forward_t_of(x_, a);
        }
        STORE_REST(y, i, end);
        STORE_REST(t, i, end);
    }
}

ELEMENT linear_tanh_vjp_of(real dy, real t, double a) {
    return dy * (R(1.0) - t * t + R(a));
}

CHEAP_ELEMENTWISE(linear_tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(t)) {
    const double a = call->scalar[0];
    ELEMENTS(i)
        dx[i] = linear_tanh_vjp_of(dy[i], t[i], a);
}

ELEMENT softsign_forward_of(real x) {
    return x / (R(1.0) + real_abs(x));
}

ELEMENTWISE(softsign_forward, OUT_OVER(y), IN_UNDER(x)) {
    ELEMENTS(i)
        y[i] = softsign_forward_of(x[i]);
}

ELEMENT softsign_vjp_of(real dy, real x) {
    const real a = R(1.0) + real_abs(x);
    return dy / a / a;
}

ELEMENTWISE(softsign_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    ELEMENTS(i)
        dx[i] = softsign_vjp_of(dy[i], x[i]);
}

ELEMENT softplus_forward_of(real x, double beta, double bound) {
    const real z = R(beta) * x;
    return where(z > R(bound), x, R(1.0 / beta) * (real_maximum(z, R(0.0)) + real_log1p_exp(-real_abs(z))));
}

ELEMENTWISE(softplus_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double beta = call->scalar[0];
    const double bound = call->scalar[1];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = softplus_forward_of(x_at[l], beta, bound);
        STORE_REST(y, i, end);
    }
}

ELEMENT softplus_vjp_of(real dy, real x, double beta, double bound) {
    const real z = R(beta) * x;
    return where(z > R(bound), dy, dy * real_sigmoid(z));
}

ELEMENTWISE(softplus_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double beta = call->scalar[0];
    const double bound = call->scalar[1];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = softplus_vjp_of(dy_at[l], x_at[l], beta, bound);
        STORE_REST(dx, i, end);
    }
}

ELEMENT log_sigmoid_forward_of(real x) {
    return real_minimum(x, R(0.0)) - real_log1p_exp(-real_abs(x));
}

ELEMENT log_sigmoid_forward_s_of(real x) {
    return real_sigmoid(-x);
}

ELEMENTWISE(log_sigmoid_forward, OUT_OVER(y), IN_UNDER(x), OUT(s)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        OUTPUT_LANES(s, i, end);
        EACH_LANE(l) {
            const real x_ = x_at[l];
            y_at[l] = log_sigmoid_forward_of(x_);
            s_at[l] = log_sigmoid_forward_s_of(x_);
        }
        STORE_REST(y, i, end);
        STORE_REST(s, i, end);
    }
}

ELEMENT log_sigmoid_vjp_of(real dy, real s) {
    return dy * s;
}

CHEAP_ELEMENTWISE(log_sigmoid_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(s)) {
    ELEMENTS(i)
        dx[i] = log_sigmoid_vjp_of(dy[i], s[i]);
}

ELEMENT gelu_forward_of(real x) {
    const real half = R(0.5) * x;
    return madd(half, real_erf(x * R(0.7071067811865476)), half);
}

ELEMENTWISE(gelu_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = gelu_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT gelu_vjp_of(real dy, real x) {
    const real distribution = madd(R(0.5), real_erf(x * R(0.7071067811865476)), R(0.5));
    const real density = R(0.3989422804014327) * real_exp_below_0(R(-0.5) * (x * x));
    return dy * madd(x, density, distribution);
}

ELEMENTWISE(gelu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = gelu_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}

ELEMENT gelu_tanh_forward_of(real x) {
    const real square = real_minimum(x * x, R(100.0));
    const real t = real_tanh(R(0.7978845608028654) * x * (R(1.0) + R(0.044715) * square));
    return R(0.5) * x * (R(1.0) + t);
}

ELEMENTWISE(gelu_tanh_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = gelu_tanh_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT gelu_tanh_vjp_of(real dy, real x) {
    const real square = real_minimum(x * x, R(100.0));
    const real t = real_tanh(R(0.7978845608028654) * x * (R(1.0) + R(0.044715) * square));
    const real slope = R(0.7978845608028654) * (R(1.0) + R(3.0 * 0.044715) * square);
    return dy * (R(0.5) * (R(1.0) + t) + R(0.5) * x * ((R(1.0) - t * t) * slope));
}

ELEMENTWISE(gelu_tanh_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = gelu_tanh_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}

ELEMENT silu_forward_of(real x) {
    return x * real_sigmoid(x);
}

ELEMENTWISE(silu_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = silu_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT silu_vjp_of(real dy, real x) {
    const real s = real_sigmoid(x);
    return dy * (s * (R(1.0) + x * (R(1.0) - s)));
}

ELEMENTWISE(silu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = silu_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}

ELEMENT mish_forward_of(real x) {
    const real e = real_exp(real_minimum(x, R(40.0)));
    const real n = e * (e + R(2.0));
    return x * (n / (n + R(2.0)));
}

ELEMENTWISE(mish_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = mish_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT mish_vjp_of(real dy, real x) {
    const real z = real_minimum(x, R(40.0));
    const real e = real_exp(z);
    const real n = e * (e + R(2.0));
    const real share = R(1.0) / (n + R(2.0));
    return dy * (n / (n + R(2.0)) + z * (R(4.0) * e * share * ((e + R(1.0)) * share)));
}

ELEMENTWISE(mish_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = mish_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}
