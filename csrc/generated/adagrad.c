/* Written by csrc/generate.py from the formulas in fastnet/optim/adagrad.py: change those. */
#include "lib/formula.h"

ELEMENT adagrad_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(adagrad_update, INOUT(w), INOUT(v), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double eps_ = call->hyper[3];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = madd(d_, d_, v_);
        const real new_w = madd(R(-step_size_), d_ / (real_sqrt(squares_) + R(eps_)), R(shrink_) * w_);
        const real new_v = squares_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(adadelta_update, INOUT(w), INOUT(v), INOUT(u), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double rho_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real u_ = u[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real squares_ = adagrad_settled(madd(R(1.0 - rho_) * d_, d_, R(rho_) * v_));
        const real delta_ = real_sqrt(u_ + R(eps_)) / real_sqrt(squares_ + R(eps_)) * d_;
        const real new_w = madd(R(-lr_), delta_, R(shrink_) * w_);
        const real new_v = squares_;
        const real new_u = adagrad_settled(madd(R(1.0 - rho_) * delta_, delta_, R(rho_) * u_));
        w[i] = new_w;
        v[i] = new_v;
        u[i] = new_u;
    }
}
