/* Written by csrc/generate.py from the formulas in fastnet/optim/adam.py: change those. */
#include "lib/formula.h"

ELEMENT adam_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

ELEMENT adam_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

ELEMENT adam_larger(real a, real b) {
    return where((a > b) | (a != a), a, b);
}

KERNEL(adam_update, INOUT(w), INOUT(m), INOUT(v), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double root_scale_ = call->hyper[3];
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
        const real moved_ = adam_settled(first_);
        const real step_ = moved_ / madd(real_sqrt(second_), R(root_scale_), R(eps_));
        const real new_w = madd(R(-step_size_), step_, R(shrink_) * w_);
        const real new_m = moved_;
        const real new_v = adam_settled_with(second_, first_);
        w[i] = new_w;
        m[i] = new_m;
        v[i] = new_v;
    }
}

KERNEL(adam_amsgrad_update, INOUT(w), INOUT(m), INOUT(v), INOUT(top), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double root_scale_ = call->hyper[3];
    const double beta1_ = call->hyper[4];
    const double beta2_ = call->hyper[5];
    const double eps_ = call->hyper[6];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real v_ = v[i];
        const real top_ = top[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real first_ = madd(R(1.0 - beta1_), d_, R(beta1_) * m_);
        const real second_ = madd(R(1.0 - beta2_) * d_, d_, R(beta2_) * v_);
        const real moved_ = adam_settled(first_);
        const real highest_ = adam_larger(top_, second_);
        const real step_ = moved_ / madd(real_sqrt(highest_), R(root_scale_), R(eps_));
        const real new_w = madd(R(-step_size_), step_, R(shrink_) * w_);
        const real new_m = moved_;
        const real new_v = adam_settled_with(second_, first_);
        const real new_top = highest_;
        w[i] = new_w;
        m[i] = new_m;
        v[i] = new_v;
        top[i] = new_top;
    }
}

KERNEL(adamax_update, INOUT(w), INOUT(m), INOUT(u), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double step_size_ = call->hyper[2];
    const double beta1_ = call->hyper[3];
    const double beta2_ = call->hyper[4];
    const double eps_ = call->hyper[5];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real u_ = u[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real moved_ = adam_settled(madd(R(1.0 - beta1_), d_, R(beta1_) * m_));
        const real greatest_ = adam_larger(R(beta2_) * u_, real_abs(d_) + R(eps_));
        const real new_w = madd(R(-step_size_), moved_ / greatest_, R(shrink_) * w_);
        const real new_m = moved_;
        const real new_u = greatest_;
        w[i] = new_w;
        m[i] = new_m;
        u[i] = new_u;
    }
}
