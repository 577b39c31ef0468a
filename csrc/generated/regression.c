/* Written by csrc/generate.py from the formulas in fastnet/losses/regression.py: change those. */
#include "lib/pointwise.h"

ELEMENT squared_error_forward_of(real y, real t) {
    const real e = y - t;
    return e * e;
}

KERNEL(squared_error_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = squared_error_forward_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = squared_error_vjp_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = half_squared_error_forward_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = half_squared_error_vjp_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = absolute_error_forward_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = absolute_error_vjp_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = huber_forward_of(y_at[l], t_at[l], delta);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = huber_vjp_of(y_at[l], t_at[l], delta);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT smooth_l1_forward_of(real y, real t, double width) {
    const real a = real_abs(y - t);
    const real m = real_minimum(a, R(width));
    return m / R(width) * (a - R(0.5) * m);
}

KERNEL(smooth_l1_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const double width = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = smooth_l1_forward_of(y_at[l], t_at[l], width);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT smooth_l1_vjp_of(real y, real t, double width) {
    return real_minimum(real_maximum((y - t) / R(width), R(-1.0)), R(1.0));
}

KERNEL(smooth_l1_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const double width = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = smooth_l1_vjp_of(y_at[l], t_at[l], width);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_cosh_forward_of(y_at[l], t_at[l]);
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
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_cosh_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT pinball_forward_of(real y, real t, real q) {
    const real e = t - y;
    return real_maximum(q * e, (q - R(1.0)) * e);
}

KERNEL(pinball_forward, OUT_AS(double, row_loss), IN(y), IN(t), IN(q)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real q_[BLOCK];
        repeat(q_, q, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = pinball_forward_of(y_at[l], t_at[l], q_[i + l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT pinball_vjp_of(real y, real t, real q) {
    const real e = y - t;
    return where(e > R(0.0), R(1.0) - q, where(e < R(0.0), -q, R(0.0) * e));
}

KERNEL(pinball_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t), IN(q)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real q_[BLOCK];
        repeat(q_, q, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = pinball_vjp_of(y_at[l], t_at[l], q_[i + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
