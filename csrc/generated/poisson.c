/* Written by csrc/generate.py from the formulas in fastnet/losses/poisson.py: change those. */
#include "lib/pointwise.h"

ELEMENT poisson_rate_less(real y, real t, real c) {
    const real h = real_exp(R(0.5) * y);
    return where(y > R(0.0), h * (h - t / h * c), h * h - t * c);
}

ELEMENT poisson_half_log(real t) {
    return where(t > R(1.0), R(0.5) * real_log(real_maximum(t, R(1.0))) + R(0.9189385332046727), R(0.0) * t);
}

ELEMENT poisson_forward_of(real y, real t, double eps) {
    return y - t * real_log(y + R(eps));
}

KERNEL(poisson_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = poisson_forward_of(y_at[l], t_at[l], eps);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT poisson_vjp_of(real y, real t, double eps) {
    return R(1.0) - t / (y + R(eps));
}

KERNEL(poisson_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = poisson_vjp_of(y_at[l], t_at[l], eps);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT log_poisson_forward_of(real y, real t) {
    return poisson_rate_less(y, t, y);
}

KERNEL(log_poisson_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_poisson_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT log_poisson_vjp_of(real y, real t) {
    return poisson_rate_less(y, t, R(0.0) * t + R(1.0));
}

KERNEL(log_poisson_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = log_poisson_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT full_poisson_forward_of(real y, real t, double eps) {
    const real c = real_log(y + R(eps)) - real_log(real_maximum(t, R(1.0)));
    return y - where(t > R(1.0), t, R(0.0) * t) - t * c + poisson_half_log(t);
}

KERNEL(full_poisson_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_poisson_forward_of(y_at[l], t_at[l], eps);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT full_poisson_vjp_of(real y, real t, double eps) {
    return R(1.0) - t / (y + R(eps));
}

KERNEL(full_poisson_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    const double eps = call->scalar[1];
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_poisson_vjp_of(y_at[l], t_at[l], eps);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT full_log_poisson_forward_of(real y, real t) {
    const real c = where(t > R(1.0), y - real_log(real_maximum(t, R(1.0))) + R(1.0), y);
    return poisson_rate_less(y, t, c) + poisson_half_log(t);
}

KERNEL(full_log_poisson_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_log_poisson_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT full_log_poisson_vjp_of(real y, real t) {
    return poisson_rate_less(y, t, R(0.0) * t + R(1.0));
}

KERNEL(full_log_poisson_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = full_log_poisson_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
