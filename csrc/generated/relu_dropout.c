/* Written by csrc/generate.py from the formulas in fastnet/layers/relu_dropout.py: change those. */
#include "lib/formula.h"

ELEMENT relu_dropout_vjp_of(real dy, real y, double scale) {
    return where(y <= R(0.0), R(0.0), R(scale) * dy);
}

CHEAP_ELEMENTWISE(relu_dropout_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(y)) {
    const double scale = call->scalar[1];
    ELEMENTS(i)
        dx[i] = relu_dropout_vjp_of(dy[i], y[i], scale);
}
