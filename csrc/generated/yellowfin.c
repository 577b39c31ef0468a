/* Written by csrc/generate.py from the formulas in fastnet/optim/yellowfin.py: change those. */
#include "lib/formula.h"

KERNEL(yellowfin_measure_update, INOUT(ratio), INOUT(moved), INOUT(before), IN(w), IN(pushed)) {
    EACH_PARAMETER(i) {
        const real moved_ = moved[i];
        const real before_ = before[i];
        const real w_ = w[i];
        const real pushed_ = pushed[i];
        const real way_ = w_ - before_;
        const real ratio_ = where(moved_ == R(0.0), R(0.0), (way_ + pushed_) / where(moved_ == R(0.0), R(1.0), moved_));
        const real new_ratio = ratio_;
        const real new_moved = way_;
        const real new_before = w_;
        ratio[i] = new_ratio;
        moved[i] = new_moved;
        before[i] = new_before;
    }
}
