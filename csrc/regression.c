/* Written by csrc/generate.py from the formulas in fastnet/losses/regression.py: change those. */
#include "pointwise.h"

ELEMENT squared_error_forward_of(real y, real t) {
    const real e = y - t;
    return e * e;
}

KERNEL(squared_error_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = squared_error_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = squared_error_forward_of(y_rest[l], t_rest[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT squared_error_vjp_of(real y, real t) {
    return R(2.0) * (y - t);
}

KERNEL(squared_error_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = squared_error_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = squared_error_vjp_of(y_rest[l], t_rest[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT half_squared_error_forward_of(real y, real t) {
    const real e = y - t;
    return R(0.5) * e * e;
}

KERNEL(half_squared_error_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = half_squared_error_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = half_squared_error_forward_of(y_rest[l], t_rest[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT half_squared_error_vjp_of(real y, real t) {
    return y - t;
}

KERNEL(half_squared_error_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = half_squared_error_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = half_squared_error_vjp_of(y_rest[l], t_rest[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT absolute_error_forward_of(real y, real t) {
    return real_abs(y - t);
}

KERNEL(absolute_error_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = absolute_error_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = absolute_error_forward_of(y_rest[l], t_rest[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT absolute_error_vjp_of(real y, real t) {
    return real_sign(y - t);
}

KERNEL(absolute_error_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = absolute_error_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = absolute_error_vjp_of(y_rest[l], t_rest[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT huber_forward_of(real y, real t, double delta) {
    const real a = real_abs(y - t);
    const real m = real_minimum(a, R(delta));
    return m * (a - R(0.5) * m);
}

KERNEL(huber_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const double delta = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = huber_forward_of(y[x.at + i], t[x.at + i], delta);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = huber_forward_of(y_rest[l], t_rest[l], delta);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT huber_vjp_of(real y, real t, double delta) {
    return real_minimum(real_maximum(y - t, R(-delta)), R(delta));
}

KERNEL(huber_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const double delta = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = huber_vjp_of(y[x.at + i], t[x.at + i], delta);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = huber_vjp_of(y_rest[l], t_rest[l], delta);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT smooth_l1_forward_of(real y, real t, double width) {
    const real a = real_abs(y - t);
    const real m = real_minimum(a, R(width));
    return R(1.0 / width) * m * (a - R(0.5) * m);
}

KERNEL(smooth_l1_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const double width = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = smooth_l1_forward_of(y[x.at + i], t[x.at + i], width);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = smooth_l1_forward_of(y_rest[l], t_rest[l], width);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT smooth_l1_vjp_of(real y, real t, double width) {
    return real_minimum(real_maximum(R(1.0 / width) * (y - t), R(-1.0)), R(1.0));
}

KERNEL(smooth_l1_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const double width = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = smooth_l1_vjp_of(y[x.at + i], t[x.at + i], width);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = smooth_l1_vjp_of(y_rest[l], t_rest[l], width);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT log_cosh_forward_of(real y, real t) {
    const real a = real_abs(y - t);
    const real m = real_expm1(-real_minimum(a, R(1.0)));
    return where(a < R(1.0), real_log1p(R(0.5) * m * m / (R(1.0) + m)), a + real_log1p_exp(R(-2.0) * a) - R(0.6931471805599453));
}

KERNEL(log_cosh_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = log_cosh_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = log_cosh_forward_of(y_rest[l], t_rest[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT log_cosh_vjp_of(real y, real t) {
    return real_tanh(y - t);
}

KERNEL(log_cosh_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = log_cosh_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = log_cosh_vjp_of(y_rest[l], t_rest[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
