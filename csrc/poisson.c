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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = poisson_forward_of(y[x.at + i], t[x.at + i], eps);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = poisson_forward_of(y_rest[l], t_rest[l], eps);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = poisson_vjp_of(y[x.at + i], t[x.at + i], eps);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = poisson_vjp_of(y_rest[l], t_rest[l], eps);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = log_poisson_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = log_poisson_forward_of(y_rest[l], t_rest[l]);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = log_poisson_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = log_poisson_vjp_of(y_rest[l], t_rest[l]);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = full_poisson_forward_of(y[x.at + i], t[x.at + i], eps);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = full_poisson_forward_of(y_rest[l], t_rest[l], eps);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = full_poisson_vjp_of(y[x.at + i], t[x.at + i], eps);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = full_poisson_vjp_of(y_rest[l], t_rest[l], eps);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = full_log_poisson_forward_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = full_log_poisson_forward_of(y_rest[l], t_rest[l]);
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
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = full_log_poisson_vjp_of(y[x.at + i], t[x.at + i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = full_log_poisson_vjp_of(y_rest[l], t_rest[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
