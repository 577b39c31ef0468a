/* Written by csrc/generate.py from the formulas in fastnet/preprocess/scaling.py: change those. */
#include "lib/formula.h"

ELEMENT smooth_clip_forward_of(real x, double bound) {
    const real u = real_minimum(real_maximum(x * R(1.0 / bound), R(-1099511627776.0)), R(1099511627776.0));
    return R(bound) * (u / real_sqrt(R(1.0) + u * u));
}

ELEMENTWISE(smooth_clip_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double bound = call->scalar[0];
    ELEMENTS(i)
        y[i] = smooth_clip_forward_of(x[i], bound);
}

ELEMENT smooth_clip_vjp_of(real dy, real x, double bound) {
    const real u = real_minimum(real_maximum(x * R(1.0 / bound), R(-1099511627776.0)), R(1099511627776.0));
    const real s = R(1.0) / real_sqrt(R(1.0) + u * u);
    return dy * (s * s * s);
}

ELEMENTWISE(smooth_clip_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    const double bound = call->scalar[0];
    ELEMENTS(i)
        dx[i] = smooth_clip_vjp_of(dy[i], x[i], bound);
}
