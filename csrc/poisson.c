/* Written by csrc/generate.py from the formulas in fastnet/losses/poisson.py: change those. */
#include "pointwise.h"

ELEMENT stirling(real t) {
    return where(t > R(1.0), t * real_log(real_maximum(t, R(1.0))) - t + R(0.5) * real_log(R(6.283185307179586) * real_maximum(t, R(1.0))), R(0.0) * t);
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
    return real_exp(y) - t * y;
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
    return real_exp(y) - t;
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
    return y - t * real_log(y + R(eps)) + stirling(t);
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
    return real_exp(y) - t * y + stirling(t);
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
    return real_exp(y) - t;
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
