/* Written by csrc/generate.py from the formulas in fastnet/optim/hypergradient.py: change those. */
#include "lib/formula.h"

ELEMENT hypergradient_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

ELEMENT hypergradient_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

KERNEL(sgdhd_update, INOUT(past), IN(w), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real g_ = g[i];
        const real new_past = madd(R(weight_decay_), w_, g_);
        past[i] = new_past;
    }
}

KERNEL(sgdhd_momentum_update, INOUT(past), IN(w), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double momentum_ = call->hyper[1];
    EACH_PARAMETER(i) {
        const real past_ = past[i];
        const real w_ = w[i];
        const real g_ = g[i];
        const real new_past = hypergradient_settled(madd(R(momentum_), past_, madd(R(weight_decay_), w_, g_)));
        past[i] = new_past;
    }
}

KERNEL(sgdhd_nesterov_update, INOUT(past), INOUT(v), IN(w), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double momentum_ = call->hyper[1];
    EACH_PARAMETER(i) {
        const real v_ = v[i];
        const real w_ = w[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real velocity_ = hypergradient_settled(madd(R(momentum_), v_, d_));
        const real new_v = velocity_;
        const real new_past = madd(R(momentum_), velocity_, d_);
        v[i] = new_v;
        past[i] = new_past;
    }
}

KERNEL(adamhd_update, INOUT(past), INOUT(m), INOUT(v), IN(w), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double step_size_ = call->hyper[1];
    const double root_scale_ = call->hyper[2];
    const double beta1_ = call->hyper[3];
    const double beta2_ = call->hyper[4];
    const double eps_ = call->hyper[5];
    EACH_PARAMETER(i) {
        const real m_ = m[i];
        const real v_ = v[i];
        const real w_ = w[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real first_ = madd(R(1.0 - beta1_), d_, R(beta1_) * m_);
        const real second_ = madd(R(1.0 - beta2_) * d_, d_, R(beta2_) * v_);
        const real moved_ = hypergradient_settled(first_);
        const real direction_ = R(step_size_) * moved_ / madd(real_sqrt(second_), R(root_scale_), R(eps_));
        const real new_m = moved_;
        const real new_v = hypergradient_settled_with(second_, first_);
        const real new_past = direction_;
        m[i] = new_m;
        v[i] = new_v;
        past[i] = new_past;
    }
}
