/* Written by csrc/generate.py from the formulas in fastnet/losses/rbf.py: change those. */
#include "lib/pointwise.h"

ELEMENT rbf_forward_of(real y, real t, real u, real beta) {
    const real e = y - t;
    const real h = real_exp_below_0(R(-0.5) * beta * e * e);
    return u * h * h;
}

KERNEL(rbf_forward, OUT_AS(double, row_loss), IN(y), IN(t), IN(u), IN(beta)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        real beta_[BLOCK];
        repeat(u_, u, x);
        repeat(beta_, beta, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = rbf_forward_of(y_at[l], t_at[l], u_[i + l], beta_[i + l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT rbf_vjp_of(real y, real t, real u, real beta) {
    const real e = y - t;
    const real h = real_exp_below_0(R(-0.5) * beta * e * e);
    return where(h == R(0.0), R(0.0) * h, R(-2.0) * beta * (e * (u * h)) * h);
}

KERNEL(rbf_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t), IN(u), IN(beta)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        real beta_[BLOCK];
        repeat(u_, u, x);
        repeat(beta_, beta, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = rbf_vjp_of(y_at[l], t_at[l], u_[i + l], beta_[i + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
