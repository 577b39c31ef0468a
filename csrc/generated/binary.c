/* Written by csrc/generate.py from the formulas in fastnet/losses/binary.py: change those. */
#include "lib/pointwise.h"

ELEMENT binary_nothing(real y) {
    return R(0.0) * real_maximum(real_minimum(y, R(1.0)), R(-1.0));
}

ELEMENT bce_with_logits_forward_of(real y, real t) {
    return (R(1.0) - t) * real_maximum(y, R(0.0)) + t * real_maximum(-y, R(0.0)) + real_log1p_exp(-real_abs(y));
}

KERNEL(bce_with_logits_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_with_logits_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT bce_with_logits_vjp_of(real y, real t) {
    const real q = real_sigmoid(-real_abs(y));
    return where(y < R(0.0), q - t, R(1.0) - t - q);
}

KERNEL(bce_with_logits_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_with_logits_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT weighted_bce_with_logits_forward_of(real y, real t, real u) {
    const real small = real_log1p_exp(-real_abs(y));
    return (R(1.0) - t) * (real_maximum(y, R(0.0)) + small) + u * t * (real_maximum(-y, R(0.0)) + small);
}

KERNEL(weighted_bce_with_logits_forward, OUT_AS(double, row_loss), IN(y), IN(t), IN(u)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        repeat(u_, u, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = weighted_bce_with_logits_forward_of(y_at[l], t_at[l], u_[i + l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT weighted_bce_with_logits_vjp_of(real y, real t, real u) {
    return (R(1.0) - t) * real_sigmoid(y) - u * t * real_sigmoid(-y);
}

KERNEL(weighted_bce_with_logits_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t), IN(u)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        real u_[BLOCK];
        repeat(u_, u, x);
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = weighted_bce_with_logits_vjp_of(y_at[l], t_at[l], u_[i + l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT bce_forward_of(real y, real t) {
    return -t * real_maximum(real_log(y), R(-100.0)) - (R(1.0) - t) * real_maximum(real_log1p(-y), R(-100.0));
}

KERNEL(bce_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT bce_vjp_of(real y, real t) {
    return (y - t) / real_maximum(y * (R(1.0) - y), R(9.999999960041972e-13));
}

KERNEL(bce_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = bce_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT kl_div_forward_of(real y, real t) {
    return where(t == R(0.0), binary_nothing(y), t * (real_log(t) - y));
}

KERNEL(kl_div_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = kl_div_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT kl_div_vjp_of(real y, real t) {
    return -t;
}

KERNEL(kl_div_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = kl_div_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}

ELEMENT kl_div_of_logs_forward_of(real y, real t) {
    const real half = real_exp(R(0.5) * t);
    const int infinite = (t > y) & (y == R(2.0) * y);
    return where(half == R(0.0), where(infinite, -y, binary_nothing(y)), half * (half * (t - y)));
}

KERNEL(kl_div_of_logs_forward, OUT_AS(double, row_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = kl_div_of_logs_forward_of(y_at[l], t_at[l]);
        }
        add_rows(row_loss, value, x, N, call->scalar[0]);
    }
}

ELEMENT kl_div_of_logs_vjp_of(real y, real t) {
    return -real_exp(t);
}

KERNEL(kl_div_of_logs_vjp, OUT(dy), IN_AS(double, drow_loss), IN(y), IN(t)) {
    BLOCKS(x, call) {
        real value[BLOCK];
        for (int64_t i = 0; i < x.n; i += LANES) {
            INPUT_LANES(y, x.at + i, x.at + x.n);
            INPUT_LANES(t, x.at + i, x.at + x.n);
            EACH_LANE(l)
                value[i + l] = kl_div_of_logs_vjp_of(y_at[l], t_at[l]);
        }
        scale_rows(dy, value, drow_loss, x, call->scalar[0]);
    }
}
