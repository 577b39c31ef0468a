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
