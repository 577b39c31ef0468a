/* Written by csrc/generate.py from the formulas in fastnet/optim/schedule_free.py: change those. */
#include "lib/formula.h"

ELEMENT schedule_free_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

ELEMENT schedule_free_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

KERNEL(schedule_free_sgd_update, INOUT(w), INOUT(gap), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double pull_ = call->hyper[2];
    const double push_ = call->hyper[3];
    const double keep_ = call->hyper[4];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real gap_ = gap[i];
        const real g_ = g[i];
        const real h_ = madd(R(weight_decay_), w_, g_);
        const real moved_ = madd(R(-push_), h_, madd(R(pull_), gap_, w_));
        const real kept_ = schedule_free_settled(R(keep_) * madd(R(-lr_), h_, gap_));
        const real new_w = moved_;
        const real new_gap = kept_;
        w[i] = new_w;
        gap[i] = new_gap;
    }
}

KERNEL(schedule_free_adamw_update, INOUT(w), INOUT(gap), INOUT(v), IN(g)) {
    const double lr_ = call->hyper[0];
    const double weight_decay_ = call->hyper[1];
    const double pull_ = call->hyper[2];
    const double push_ = call->hyper[3];
    const double keep_ = call->hyper[4];
    const double root_scale_ = call->hyper[5];
    const double beta2_ = call->hyper[6];
    const double eps_ = call->hyper[7];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real gap_ = gap[i];
        const real v_ = v[i];
        const real g_ = g[i];
        const real second_ = madd(R(1.0 - beta2_) * g_, g_, R(beta2_) * v_);
        const real h_ = madd(R(weight_decay_), w_, g_ / madd(real_sqrt(second_), R(root_scale_), R(eps_)));
        const real moved_ = madd(R(-push_), h_, madd(R(pull_), gap_, w_));
        const real kept_ = schedule_free_settled(R(keep_) * madd(R(-lr_), h_, gap_));
        const real new_w = moved_;
        const real new_gap = kept_;
        const real new_v = schedule_free_settled_with(second_, g_);
        w[i] = new_w;
        gap[i] = new_gap;
        v[i] = new_v;
    }
}

KERNEL(to_average_update, INOUT(y), INOUT(w), IN(gap)) {
    const double lead_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real y_ = y[i];
        const real w_ = w[i];
        const real gap_ = gap[i];
        const real new_y = w_;
        const real new_w = madd(R(-lead_), gap_, w_);
        y[i] = new_y;
        w[i] = new_w;
    }
}

KERNEL(from_average_update, INOUT(w), IN(y), IN(gap)) {
    const double lead_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real y_ = y[i];
        const real gap_ = gap[i];
        const real new_w = where(w_ == madd(R(-lead_), gap_, y_), y_, madd(R(lead_), gap_, w_));
        w[i] = new_w;
    }
}
