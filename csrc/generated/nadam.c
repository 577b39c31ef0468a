/* Written by csrc/generate.py from the formulas in fastnet/optim/nadam.py: change those. */
#include "lib/formula.h"

ELEMENT nadam_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

ELEMENT nadam_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

KERNEL(nadam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double root_scale_ = call->hyper[3];
    const double beta1_ = call->hyper[4];
    const double beta2_ = call->hyper[5];
    const double eps_ = call->hyper[6];
    const double gradient_size_ = call->hyper[7];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real first_ = madd(R(1.0 - beta1_), d_, R(beta1_) * m_);
        const real second_ = madd(R(1.0 - beta2_) * d_, d_, R(beta2_) * v_);
        const real moved_ = nadam_settled(first_);
        const real root_ = madd(real_sqrt(second_), R(root_scale_), R(eps_));
        const real step_ = madd(R(gradient_size_), d_, R(step_size_) * moved_) / root_;
        const real new_w = R(shrink_) * w_ - step_;
        const real new_m = moved_;
        const real new_v = nadam_settled_with(second_, first_);
        w[i] = new_w;
        m[i] = new_m;
        v[i] = new_v;
    }
}

KERNEL(radam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double adaptive_ = call->hyper[3];
    const double beta1_ = call->hyper[4];
    const double beta2_ = call->hyper[5];
    const double eps_ = call->hyper[6];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real first_ = madd(R(1.0 - beta1_), d_, R(beta1_) * m_);
        const real second_ = madd(R(1.0 - beta2_) * d_, d_, R(beta2_) * v_);
        const real moved_ = nadam_settled(first_);
        const real root_ = where(adaptive_ > 0.0, real_sqrt(second_) + R(eps_), R(1.0));
        const real new_w = madd(R(-step_size_), moved_ / root_, R(shrink_) * w_);
        const real new_m = moved_;
        const real new_v = nadam_settled_with(second_, first_);
        w[i] = new_w;
        m[i] = new_m;
        v[i] = new_v;
    }
}
