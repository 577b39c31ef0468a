/* Written by csrc/generate.py from the formulas in fastnet/optim/muon.py: change those. */
#include "lib/formula.h"

ELEMENT muon_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

KERNEL(muon_update, INOUT(w), INOUT(m), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double shrink_ = call->hyper[1];
    const double momentum_ = call->hyper[2];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real new_w = R(shrink_) * w_;
        const real new_m = muon_settled(madd(R(1.0 - momentum_), d_, R(momentum_) * m_));
        w[i] = new_w;
        m[i] = new_m;
    }
}

KERNEL(muon_direction_update, INOUT(d), IN(w), IN(m), IN(g)) {
    const double weight_decay_ = call->hyper[0];
    const double ahead_ = call->hyper[1];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real m_ = m[i];
        const real g_ = g[i];
        const real new_d = madd(R(ahead_), m_, R(1.0 - ahead_) * madd(R(weight_decay_), w_, g_));
        d[i] = new_d;
    }
}
