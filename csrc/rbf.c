/* Written by csrc/generate.py from the formulas in fastnet/losses/rbf.py: change those. */
#include "pointwise.h"

ELEMENT rbf_forward_of(real y, real t, real u, real beta) {
    const real e = y - t;
    return u * real_exp(-beta * e * e);
}

KERNEL(rbf_forward, OUT_AS(double, row_loss), IN(y), IN(t), IN(u), IN(beta)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        real beta_[BLOCK];
        repeat(u_, u, x);
        repeat(beta_, beta, x);
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = rbf_forward_of(y[x.at + i], t[x.at + i], u_[i], beta_[i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = rbf_forward_of(y_rest[l], t_rest[l], u_[whole + l], beta_[whole + l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT rbf_vjp_of(real y, real t, real u, real beta) {
    const real e = real_minimum(real_maximum(y - t, R(-3e+38)), R(3e+38));
    return R(-2.0) * beta * (e * (u * real_exp(-beta * e * e)));
}

KERNEL(rbf_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t), IN(u), IN(beta)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        real beta_[BLOCK];
        repeat(u_, u, x);
        repeat(beta_, beta, x);
        const int64_t whole = x.n - x.n % LANES;
        for (int64_t i = 0; i < whole; i++)
            value[i] = rbf_vjp_of(y[x.at + i], t[x.at + i], u_[i], beta_[i]);
        if (whole < x.n) {
            REST(y, x.at + whole, x.at + x.n);
            REST(t, x.at + whole, x.at + x.n);
            for (int l = 0; l < LANES; l++)
                value[whole + l] = rbf_vjp_of(y_rest[l], t_rest[l], u_[whole + l], beta_[whole + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
