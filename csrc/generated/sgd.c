/* Written by csrc/generate.py from the formulas in fastnet/optim/sgd.py: change those. */
#include "lib/formula.h"

ELEMENT sgd_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(sgd_update, INOUT(w), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real g_ = g[i];
        const real new_w = madd(R(-lr_), madd(R(weight_decay_), w_, g_), R(shrink_) * w_);
        w[i] = new_w;
    }
}

KERNEL(sgd_momentum_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double momentum_ = call->hyper[3];
    const double damping_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = sgd_settled(madd(R(damping_), d_, R(momentum_) * v_));
        const real new_w = madd(R(-lr_), velocity_, R(shrink_) * w_);
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(sgd_nesterov_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double momentum_ = call->hyper[3];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = sgd_settled(madd(R(momentum_), v_, d_));
        const real new_w = madd(R(-lr_), madd(R(momentum_), velocity_, d_), R(shrink_) * w_);
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(sgd_textbook_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double momentum_ = call->hyper[3];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real velocity_ = sgd_settled(madd(R(-lr_), madd(R(weight_decay_), w_, g_), R(momentum_) * v_));
        const real new_w = madd(R(shrink_), w_, velocity_);
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(sgd_textbook_nesterov_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double momentum_ = call->hyper[3];
    const double ahead_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = sgd_settled(madd(R(-lr_), d_, R(momentum_) * v_));
        const real new_w = madd(R(ahead_), velocity_, madd(R(-lr_), d_, R(shrink_) * w_));
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}
