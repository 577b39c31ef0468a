/* Written by csrc/generate.py from the formulas in fastnet/optim/lion.py: change those. */
#include "lib/formula.h"

ELEMENT lion_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(lion_update, INOUT(w), INOUT(m), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double beta1_ = call->hyper[3];
    const double beta2_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real direction_ = real_sign(madd(R(1.0 - beta1_), d_, R(beta1_) * m_));
        const real new_w = madd(R(-lr_), direction_, R(shrink_) * w_);
        const real new_m = lion_settled(madd(R(1.0 - beta2_), d_, R(beta2_) * m_));
        w[i] = new_w;
        m[i] = new_m;
    }
}
