/* Written by csrc/generate.py from the formulas in fastnet/optim/rmsprop.py: change those. */
#include "lib/formula.h"

ELEMENT rmsprop_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

ELEMENT rmsprop_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(rmsprop_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double alpha_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = madd(R(1.0 - alpha_) * d_, d_, R(alpha_) * v_);
        const real step_ = d_ / (real_sqrt(squares_) + R(eps_));
        const real new_w = madd(R(-lr_), step_, R(shrink_) * w_);
        const real new_v = rmsprop_settled_with(squares_, d_);
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(rmsprop_momentum_update, INOUT(w), INOUT(v), INOUT(b), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double alpha_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    const double momentum_ = call->hyper[5];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real b_ = b[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = madd(R(1.0 - alpha_) * d_, d_, R(alpha_) * v_);
        const real step_ = d_ / (real_sqrt(squares_) + R(eps_));
        const real velocity_ = rmsprop_settled(madd(R(momentum_), b_, step_));
        const real new_w = madd(R(-lr_), velocity_, R(shrink_) * w_);
        const real new_v = rmsprop_settled_with(squares_, d_);
        const real new_b = velocity_;
        w[i] = new_w;
        v[i] = new_v;
        b[i] = new_b;
    }
}

KERNEL(rmsprop_centered_update, INOUT(w), INOUT(v), INOUT(a), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double alpha_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real a_ = a[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = madd(R(1.0 - alpha_) * d_, d_, R(alpha_) * v_);
        const real first_ = madd(R(1.0 - alpha_), d_, R(alpha_) * a_);
        const real centre_ = rmsprop_settled(first_);
        const real root_ = real_sqrt(real_maximum(madd(-centre_, centre_, squares_), R(0.0))) + R(eps_);
        const real step_ = d_ / root_;
        const real new_w = madd(R(-lr_), step_, R(shrink_) * w_);
        const real new_v = rmsprop_settled_with(squares_, first_);
        const real new_a = centre_;
        w[i] = new_w;
        v[i] = new_v;
        a[i] = new_a;
    }
}

KERNEL(rmsprop_centered_momentum_update, INOUT(w), INOUT(v), INOUT(a), INOUT(b), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double alpha_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    const double momentum_ = call->hyper[5];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real a_ = a[i];
        const real b_ = b[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = madd(R(1.0 - alpha_) * d_, d_, R(alpha_) * v_);
        const real first_ = madd(R(1.0 - alpha_), d_, R(alpha_) * a_);
        const real centre_ = rmsprop_settled(first_);
        const real root_ = real_sqrt(real_maximum(madd(-centre_, centre_, squares_), R(0.0))) + R(eps_);
        const real step_ = d_ / root_;
        const real velocity_ = rmsprop_settled(madd(R(momentum_), b_, step_));
        const real new_w = madd(R(-lr_), velocity_, R(shrink_) * w_);
        const real new_v = rmsprop_settled_with(squares_, first_);
        const real new_a = centre_;
        const real new_b = velocity_;
        w[i] = new_w;
        v[i] = new_v;
        a[i] = new_a;
        b[i] = new_b;
    }
}
