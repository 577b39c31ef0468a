/* Written by csrc/generate.py from the formulas in fastnet/optim/rules.py: change those. */
#include "formula.h"

ELEMENT settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(sgd_update, INOUT(w), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real g_ = g[i];
        const real new_w = madd(R(-lr_), madd(R(weight_decay_), w_, g_), w_);
        w[i] = new_w;
    }
}

KERNEL(sgd_momentum_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double momentum_ = call->hyper[2];
    const double damping_ = call->hyper[3];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = settled(madd(R(damping_), d_, R(momentum_) * v_));
        const real new_w = madd(R(-lr_), velocity_, w_);
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(sgd_nesterov_update, INOUT(w), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double momentum_ = call->hyper[2];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = settled(madd(R(momentum_), v_, d_));
        const real new_w = madd(R(-lr_), madd(R(momentum_), velocity_, d_), w_);
        const real new_v = velocity_;
        w[i] = new_w;
        v[i] = new_v;
    }
}

KERNEL(adam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const double step_size_ = call->hyper[0];
    const double root_scale_ = call->hyper[1];
    const double beta1_ = call->hyper[2];
    const double beta2_ = call->hyper[3];
    const double eps_ = call->hyper[4];
    const double weight_decay_ = call->hyper[5];
    const double shrink_ = call->hyper[6];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real first_ = madd(R(1.0 - beta1_), d_, R(beta1_) * m_);
        const real second_ = madd(R(1.0 - beta2_) * d_, d_, R(beta2_) * v_);
        const real moved_ = settled(first_);
        const real kept_ = where(is_tiny(first_) & is_tiny(second_), R(0.0), second_);
        const real step_ = moved_ / madd(real_sqrt(second_), R(root_scale_), R(eps_));
        const real new_w = madd(R(-step_size_), step_, R(shrink_) * w_);
        const real new_m = moved_;
        const real new_v = kept_;
        w[i] = new_w;
        m[i] = new_m;
        v[i] = new_v;
    }
}
