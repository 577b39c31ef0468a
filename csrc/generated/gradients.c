/* Written by csrc/generate.py from the formulas in fastnet/optim/gradients.py: change those. */
#include "lib/formula.h"

KERNEL(accumulate_gradient_update, INOUT(total), INOUT(g)) {
    const double keep_ = call->hyper[0];
    const double share_ = call->hyper[1];
    EACH_PARAMETER(i) {
        const real total_ = total[i];
        const real g_ = g[i];
        const real mean_ = where(keep_ > 0.0, madd(R(keep_), total_, R(share_) * g_), R(share_) * g_);
        const real new_total = mean_;
        const real new_g = mean_;
        total[i] = new_total;
        g[i] = new_g;
    }
}

KERNEL(clip_value_update, INOUT(g)) {
    const double limit_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real g_ = g[i];
        const real new_g = real_minimum(real_maximum(g_, R(-limit_)), R(limit_));
        g[i] = new_g;
    }
}
