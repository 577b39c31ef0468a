/* Written by csrc/generate.py from the formulas in fastnet/optim/averaging.py: change those. */
#include "lib/formula.h"

KERNEL(average_update, INOUT(average), IN(w)) {
    const double rate_ = call->hyper[0];
    EACH_PARAMETER(i) {
        const real average_ = average[i];
        const real w_ = w[i];
        const real new_average = where(rate_ < 1.0, madd(R(rate_), w_ - average_, average_), w_);
        average[i] = new_average;
    }
}

KERNEL(show_average_update, INOUT(trained), INOUT(w), IN(average)) {
    EACH_PARAMETER(i) {
        const real trained_ = trained[i];
        const real w_ = w[i];
        const real average_ = average[i];
        const real new_trained = w_;
        const real new_w = average_;
        trained[i] = new_trained;
        w[i] = new_w;
    }
}

KERNEL(hide_average_update, INOUT(w), IN(trained), IN(average)) {
    EACH_PARAMETER(i) {
        const real w_ = w[i];
        const real trained_ = trained[i];
        const real average_ = average[i];
        const real new_w = where(w_ == average_, trained_, w_);
        w[i] = new_w;
    }
}
