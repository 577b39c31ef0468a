/* Written by csrc/generate.py from the formulas in fastnet/layers/periodic.py: change those. */
#include "lib/formula.h"

ELEMENT cosine_forward_of(real x) {
    return real_cos(x);
}

ELEMENTWISE(cosine_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = cosine_forward_of(x_at[l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT cosine_vjp_of(real dy, real x) {
    return -dy * real_sin(x);
}

ELEMENTWISE(cosine_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = cosine_vjp_of(dy_at[l], x_at[l]);
        STORE_REST(dx, i, end);
    }
}
