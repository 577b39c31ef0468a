/* Written by csrc/generate.py from the formulas in fastnet/optim/penalties.py: change those. */
#include "lib/formula.h"

KERNEL(l1_gradient_update, INOUT(penalized), IN(w), IN(g)) {
    const double l1_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real g_ = g[i];
        const real new_penalized = g_ + R(l1_) * real_sign(w_);
        penalized[i] = new_penalized;
    }
}

KERNEL(soft_threshold_update, INOUT(w)) {
    const double cut_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real new_w = real_sign(w_) * real_maximum(real_abs(w_) - R(cut_), R(0.0));
        w[i] = new_w;
    }
}
