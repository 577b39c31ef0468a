/* Written by csrc/generate.py from the formulas in fastnet/layers/ntk_linear.py: change those. */
#include "lib/formula.h"

ELEMENT times_forward_of(real x, double factor) {
    return R(factor) * x;
}

ELEMENTWISE(times_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double factor = call->scalar[0];
    ELEMENTS(i)
        y[i] = times_forward_of(x[i], factor);
}

ELEMENT times_vjp_of(real dy, double factor) {
    return R(factor) * dy;
}

ELEMENTWISE(times_vjp, OUT_OVER(dx), IN_UNDER(dy)) {
    const double factor = call->scalar[0];
    ELEMENTS(i)
        dx[i] = times_vjp_of(dy[i], factor);
}
