/* Written by csrc/generate.py from the formulas in fastnet/layers/joining.py: change those. */
#include "lib/formula.h"

ELEMENT add_forward_of(real a, real b) {
    return a + b;
}

CHEAP_ELEMENTWISE(add_forward, OUT_OVER(y), IN_UNDER(a), IN_UNDER(b)) {
    ELEMENTS(i)
        y[i] = add_forward_of(a[i], b[i]);
}

ELEMENT multiply_forward_of(real a, real b) {
    return a * b;
}

CHEAP_ELEMENTWISE(multiply_forward, OUT_OVER(y), IN_UNDER(a), IN_UNDER(b)) {
    ELEMENTS(i)
        y[i] = multiply_forward_of(a[i], b[i]);
}
