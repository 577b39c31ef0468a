/* Written by csrc/generate.py from the formulas in fastnet/optim/rprop.py: change those. */
#include "lib/formula.h"

KERNEL(rprop_update, INOUT(w), INOUT(last), INOUT(size), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double shrink_ = call->hyper[2];
    const double eta_minus_ = call->hyper[3];
    const double eta_plus_ = call->hyper[4];
    const double least_ = call->hyper[5];
    const double most_ = call->hyper[6];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real last_ = last[i];
        const real size_ = size[i];
        const real g_ = g[i];
        const real d_ = madd(R(weight_decay_), w_, g_);
        const real turn_ = d_ * last_;
        const real grow_ = where(turn_ > R(0.0), R(eta_plus_), where(turn_ < R(0.0), R(eta_minus_), where(turn_ == R(0.0), R(1.0), turn_)));
        const real begun_ = where(size_ == R(0.0), R(lr_), size_);
        const real moved_ = real_minimum(real_maximum(grow_ * begun_, R(least_)), R(most_));
        const real kept_ = where(turn_ < R(0.0), R(0.0), d_);
        const real step_ = where(lr_ > 0.0, moved_, R(0.0));
        const real new_w = madd(-real_sign(kept_), step_, R(shrink_) * w_);
        const real new_last = kept_;
        const real new_size = where(lr_ > 0.0, moved_, size_);
        w[i] = new_w;
        last[i] = new_last;
        size[i] = new_size;
    }
}
