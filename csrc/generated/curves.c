/* Written by csrc/generate.py from the formulas in fastnet/tangents/curves.py: change those. */
#include "lib/pointwise.h"

ELEMENT bce_curve_forward_of(real ty, real y, real t) {
    const real q = R(1.0) - y;
    return ty * where(y * q > R(9.999999960041972e-13), t / (y * y) + (R(1.0) - t) / (q * q), R(1.0 / 9.999999960041972e-13));
}

KERNEL(bce_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_curve_forward_of(ty_at[l], y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT bce_with_logits_curve_forward_of(real ty, real y) {
    return real_sigmoid(y) * real_sigmoid(-y) * ty;
}

KERNEL(bce_with_logits_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_with_logits_curve_forward_of(ty_at[l], y_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT cosine_curve_forward_of(real tdy, real tx, real dy, real x) {
    return real_sin(x) * -tdy + -dy * (real_cos(x) * tx);
}

ELEMENTWISE(cosine_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = cosine_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT elu_curve_forward_of(real tdy, real tx, real dy, real x, double alpha) {
    const real slope = R(alpha) * real_exp_below_0(real_minimum(x, R(0.0)));
    return where(x > R(0.0), tdy, slope * (tdy + where(x < R(0.0), dy * tx, R(0.0))));
}

ELEMENTWISE(elu_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    const double alpha = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = elu_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l], alpha);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT full_log_poisson_curve_forward_of(real ty, real y, real t) {
    const real h = real_exp(R(0.5) * y);
    const real v = t / h;
    const real v1 = R(0.0) * t + R(1.0);
    const real v2 = h * (R(0.5) * ty);
    return where(y > R(0.0), (h - v * v1) * v2 + h * (v2 - v1 * (-(v * v2) / h)), R(2.0) * h * v2);
}

KERNEL(full_log_poisson_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_log_poisson_curve_forward_of(ty_at[l], y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT full_poisson_curve_forward_of(real ty, real y, real t, double eps) {
    const real v = y + R(eps);
    return -(-(t / v * ty) / v);
}

KERNEL(full_poisson_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_poisson_curve_forward_of(ty_at[l], y_at[l], t_at[l], eps);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT gelu_tanh_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real z = real_minimum(real_maximum(x, R(-10.0)), R(10.0));
    const real square = z * z;
    const real u = R(2.0 * 0.7978845608028654) * z * (R(1.0) + R(0.044715) * square);
    const real p = real_sigmoid(u);
    const real q = real_sigmoid(-u);
    const real slope = R(2.0 * 0.7978845608028654) * (R(1.0) + R(3.0 * 0.044715) * square);
    const real both = R(2.0) * slope + R(12.0 * 0.044715 * 0.7978845608028654) * square + z * (q - p) * (slope * slope);
    return tdy * (p + z * (p * q) * slope) + dy * tx * (p * q * both);
}

ELEMENTWISE(gelu_tanh_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = gelu_tanh_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT gelu_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real v = real_exp_below_0(R(-0.5) * (x * x));
    const real density = R(0.3989422804014327) * v;
    const real v1 = x * R(0.7071067811865476);
    return madd(x, density, madd(R(0.5), real_erf(v1), R(0.5))) * tdy + dy * madd(density, tx, madd(x, R(0.3989422804014327) * (v * (R(-0.5) * (R(2.0) * x * tx))), R(0.5) * (R(1.1283791670955126) * real_exp_below_0(-(v1 * v1)) * (R(0.7071067811865476) * tx))));
}

ELEMENTWISE(gelu_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = gelu_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT half_squared_error_curve_forward_of(real ty) {
    return ty;
}

KERNEL(half_squared_error_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = half_squared_error_curve_forward_of(ty_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT hardswish_curve_forward_of(real tdy, real tx, real dy, real x) {
    return where(x <= R(-3.0), R(0.0), where(x >= R(3.0), tdy, (x * R(0.3333333333333333) + R(0.5)) * tdy + dy * (R(0.3333333333333333) * tx)));
}

CHEAP_ELEMENTWISE(hardswish_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    ELEMENTS(i)
        tdx[i] = hardswish_curve_forward_of(tdy[i], tx[i], dy[i], x[i]);
}

ELEMENT huber_curve_forward_of(real ty, real y, real t, double delta) {
    return where(real_abs(y - t) < R(delta), ty, R(0.0));
}

KERNEL(huber_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    const double delta = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = huber_curve_forward_of(ty_at[l], y_at[l], t_at[l], delta);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT linear_tanh_curve_forward_of(real tdy, real tx, real x, real dy, double a) {
    const real t = real_tanh(x);
    const real v = R(1.0) - t * t;
    return (v + R(a)) * tdy + dy * -(R(2.0) * t * (v * tx));
}

ELEMENTWISE(linear_tanh_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(x), IN_UNDER(dy)) {
    const double a = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(x, i, end);
        INPUT_LANES(dy, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = linear_tanh_curve_forward_of(tdy_at[l], tx_at[l], x_at[l], dy_at[l], a);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT log_cosh_curve_forward_of(real ty, real y, real t) {
    const real e = R(2.0) * (y - t);
    return R(4.0) * real_sigmoid(e) * real_sigmoid(-e) * ty;
}

KERNEL(log_cosh_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_cosh_curve_forward_of(ty_at[l], y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT log_poisson_curve_forward_of(real ty, real y, real t) {
    const real h = real_exp(R(0.5) * y);
    const real v = t / h;
    const real v1 = R(0.0) * t + R(1.0);
    const real v2 = h * (R(0.5) * ty);
    return where(y > R(0.0), (h - v * v1) * v2 + h * (v2 - v1 * (-(v * v2) / h)), R(2.0) * h * v2);
}

KERNEL(log_poisson_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_poisson_curve_forward_of(ty_at[l], y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT log_sigmoid_curve_forward_of(real tdy, real tx, real x, real dy) {
    const real v = real_sigmoid(-x);
    return v * tdy + dy * (v * (R(1.0) - v) * -tx);
}

ELEMENTWISE(log_sigmoid_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(x), IN_UNDER(dy)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(x, i, end);
        INPUT_LANES(dy, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = log_sigmoid_curve_forward_of(tdy_at[l], tx_at[l], x_at[l], dy_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT mish_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real z = real_minimum(x, R(40.0));
    const real e = real_exp(z);
    const real v = e + R(2.0);
    const real n = e * v;
    const real v1 = n + R(2.0);
    const real v2 = n / v1;
    const real v3 = R(4.0) * e;
    const real share = R(1.0) / v1;
    const real v4 = v3 * share;
    const real v5 = e + R(1.0);
    const real v6 = v5 * share;
    const real v7 = v4 * v6;
    const real v8 = where(R(40.0) < x, R(0.0), tx);
    const real v9 = e * v8;
    const real v10 = v * v9 + e * v9;
    const real v11 = -(share * v10) / v1;
    return (v2 + z * v7) * tdy + dy * ((v10 - v2 * v10) / v1 + (v7 * v8 + z * (v6 * (share * (R(4.0) * v9) + v3 * v11) + v4 * (share * v9 + v5 * v11))));
}

ELEMENTWISE(mish_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = mish_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT noisy_relu_curve_forward_of(real tdy, real tx, real ty, real dy, real x, real y) {
    const real v = R(0.5) * (y - x);
    const real v1 = real_sigmoid(x);
    const real v2 = R(1.0) - v1;
    return where(y <= R(0.0), R(0.0), (R(1.0) + v * v2) * tdy + dy * (v2 * (R(0.5) * (ty - tx)) + v * -(v1 * v2 * tx)));
}

ELEMENTWISE(noisy_relu_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(ty), IN_UNDER(dy), IN_UNDER(x), IN_UNDER(y)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(ty, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        INPUT_LANES(y, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = noisy_relu_curve_forward_of(tdy_at[l], tx_at[l], ty_at[l], dy_at[l], x_at[l], y_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT poisson_curve_forward_of(real ty, real y, real t, double eps) {
    const real v = y + R(eps);
    return -(-(t / v * ty) / v);
}

KERNEL(poisson_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = poisson_curve_forward_of(ty_at[l], y_at[l], t_at[l], eps);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT rbf_curve_forward_of(real ty, real y, real t, real u, real beta) {
    const real v = R(-0.5) * beta;
    const real e = y - t;
    const real v1 = v * e;
    const real h = real_exp_below_0(v1 * e);
    const real v2 = R(-2.0) * beta;
    const real v3 = u * h;
    const real v4 = h * (e * (v * ty) + v1 * ty);
    return where(h == R(0.0), R(0.0), h * (v2 * (v3 * ty + e * (u * v4))) + v2 * (e * v3) * v4);
}

KERNEL(rbf_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t), IN(u), IN(beta)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        real beta_[BLOCK];
        repeat(u_, u, x);
        repeat(beta_, beta, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = rbf_curve_forward_of(ty_at[l], y_at[l], t_at[l], u_[i + l], beta_[i + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT scaled_tanh_curve_forward_of(real tdy, real ty, real dy, real y, double amplitude, double slope) {
    const double v = slope / amplitude;
    return (R(slope * amplitude) - R(v) * (y * y)) * tdy + dy * -(R(v) * (R(2.0) * y * ty));
}

ELEMENTWISE(scaled_tanh_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(ty), IN_UNDER(dy), IN_UNDER(y)) {
    const double amplitude = call->scalar[0];
    const double slope = call->scalar[1];
    ELEMENTS(i)
        tdx[i] = scaled_tanh_curve_forward_of(tdy[i], ty[i], dy[i], y[i], amplitude, slope);
}

ELEMENT selu_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real slope = R(1.0507009873554805 * 1.6732632423543772) * real_exp_below_0(real_minimum(x, R(0.0)));
    return where(x > R(0.0), R(1.0507009873554805) * tdy, slope * (tdy + where(x < R(0.0), dy * tx, R(0.0))));
}

ELEMENTWISE(selu_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = selu_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT sigmoid_curve_forward_of(real tdy, real ty, real dy, real y) {
    const real v = R(1.0) - y;
    return y * v * tdy + dy * (v * ty + y * -ty);
}

CHEAP_ELEMENTWISE(sigmoid_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(ty), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        tdx[i] = sigmoid_curve_forward_of(tdy[i], ty[i], dy[i], y[i]);
}

ELEMENT silu_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real s = real_sigmoid(x);
    const real v = R(1.0) - s;
    const real v1 = R(1.0) + x * v;
    const real v2 = s * v * tx;
    return s * v1 * tdy + dy * (v1 * v2 + s * (v * tx + x * -v2));
}

ELEMENTWISE(silu_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = silu_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l]);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT smooth_clip_curve_forward_of(real tdy, real tx, real dy, real x, double bound) {
    const double v = 1.0 / bound;
    const real v1 = x * R(v);
    const real v2 = real_maximum(v1, R(-1099511627776.0));
    const real u = real_minimum(v2, R(1099511627776.0));
    const real v3 = real_sqrt(R(1.0) + u * u);
    const real s = R(1.0) / v3;
    const real v4 = s * s;
    const real v5 = -(s * (R(2.0) * u * where(R(1099511627776.0) < v2, R(0.0), where(R(-1099511627776.0) > v1, R(0.0), R(v) * tx)) / (R(2.0) * v3))) / v3;
    return v4 * s * tdy + dy * (s * (R(2.0) * s * v5) + v4 * v5);
}

ELEMENTWISE(smooth_clip_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    const double bound = call->scalar[0];
    ELEMENTS(i)
        tdx[i] = smooth_clip_curve_forward_of(tdy[i], tx[i], dy[i], x[i], bound);
}

ELEMENT smooth_l1_curve_forward_of(real ty, real y, real t, double width) {
    return where(real_abs((y - t) / R(width)) < R(1.0), ty / R(width), R(0.0));
}

KERNEL(smooth_l1_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t)) {
    const double width = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = smooth_l1_curve_forward_of(ty_at[l], y_at[l], t_at[l], width);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT softplus_curve_forward_of(real tdy, real tx, real dy, real x, double beta, double bound) {
    const real z = R(beta) * x;
    const real bend = dy * tx * (R(beta) * real_sigmoid(-z));
    return where(z > R(bound), tdy, real_sigmoid(z) * (tdy + where(z < R(bound), bend, R(0.0))));
}

ELEMENTWISE(softplus_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    const double beta = call->scalar[0];
    const double bound = call->scalar[1];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(tdy, i, end);
        INPUT_LANES(tx, i, end);
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(tdx, i, end);
        EACH_LANE(l)
            tdx_at[l] = softplus_curve_forward_of(tdy_at[l], tx_at[l], dy_at[l], x_at[l], beta, bound);
        STORE_REST(tdx, i, end);
    }
}

ELEMENT softsign_curve_forward_of(real tdy, real tx, real dy, real x) {
    const real a = R(1.0) + real_abs(x);
    const real v = dy / a;
    const real v1 = real_sign(x) * tx;
    return ((tdy - v * v1) / a - v / a * v1) / a;
}

ELEMENTWISE(softsign_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(tx), IN_UNDER(dy), IN_UNDER(x)) {
    ELEMENTS(i)
        tdx[i] = softsign_curve_forward_of(tdy[i], tx[i], dy[i], x[i]);
}

ELEMENT squared_error_curve_forward_of(real ty) {
    return R(2.0) * ty;
}

KERNEL(squared_error_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = squared_error_curve_forward_of(ty_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT tanh_curve_forward_of(real tdy, real ty, real dy, real y) {
    return (R(1.0) - y * y) * tdy + dy * -(R(2.0) * y * ty);
}

CHEAP_ELEMENTWISE(tanh_curve_forward, OUT_OVER(tdx), IN_UNDER(tdy), IN_UNDER(ty), IN_UNDER(dy), IN_UNDER(y)) {
    ELEMENTS(i)
        tdx[i] = tanh_curve_forward_of(tdy[i], ty[i], dy[i], y[i]);
}

ELEMENT weighted_bce_with_logits_curve_forward_of(real ty, real y, real t, real u) {
    return (R(1.0) - t + u * t) * (real_sigmoid(y) * real_sigmoid(-y)) * ty;
}

KERNEL(weighted_bce_with_logits_curve_forward, OUT(dy), IN_AS(double, drow_loss), IN(ty), IN(y), IN(t), IN(u)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        repeat(u_, u, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(ty, x.at + i, x.at + x.n);
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = weighted_bce_with_logits_curve_forward_of(ty_at[l], y_at[l], t_at[l], u_[i + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
