/* Written by csrc/generate.py from the formulas in fastnet/layers/noise.py: change those. */
#include "lib/drawn.h"

ELEMENT noise_middle_quantile(real root) {
    const real r = root - R(1.6);
    return madd(madd(madd(madd(madd(madd(madd(R(0.0007745450142783414), r, R(0.022723844989269184)), r, R(0.2417807251774506)), r, R(1.2704582524523684)), r, R(3.6478483247632045)), r, R(5.769497221460691)), r, R(4.630337846156546)), r, R(1.4234371107496835)) / madd(madd(madd(madd(madd(madd(madd(R(1.0507500716444169e-09), r, R(0.0005475938084995345)), r, R(0.015198666563616457)), r, R(0.14810397642748008)), r, R(0.6897673349851)), r, R(1.6763848301838038)), r, R(2.053191626637759)), r, R(1.0));
}

ELEMENT noise_central_quantile(real q) {
    const real r = R(0.180625) - q * q;
    return q * (madd(madd(madd(madd(madd(madd(madd(R(2509.0809287301227), r, R(33430.57558358813)), r, R(67265.7709270087)), r, R(45921.95393154987)), r, R(13731.69376550946)), r, R(1971.5909503065513)), r, R(133.14166789178438)), r, R(3.3871328727963665)) / madd(madd(madd(madd(madd(madd(madd(R(5226.495278852854), r, R(28729.085735721943)), r, R(39307.89580009271)), r, R(21213.794301586597)), r, R(5394.196021424751)), r, R(687.1870074920579)), r, R(42.31333070160091)), r, R(1.0)));
}

ELEMENT noise_normal_of_tail(real tail) {
    const real t = real_abs(tail);
    const real q = R(0.5) - t;
    const real root = real_sqrt(-real_log(t));
    const real z = where(q > R(0.425), noise_middle_quantile(root), noise_central_quantile(q));
    return real_sign(tail) * z;
}

ELEMENT noisy_relu_forward_of(real x, real tail) {
    const real noisy = x + real_sqrt(real_sigmoid(x)) * noise_normal_of_tail(tail);
    return where(noisy <= R(0.0), R(0.0), noisy);
}

DRAWN(noisy_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = noisy_relu_forward_of(x_at[l], tail[i - begin + l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT noisy_relu_vjp_of(real dy, real x, real y) {
    return where(y <= R(0.0), R(0.0), dy * (R(1.0) + R(0.5) * (y - x) * (R(1.0) - real_sigmoid(x))));
}

ELEMENTWISE(noisy_relu_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_UNDER(x), IN_UNDER(y)) {
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(dy, i, end);
        INPUT_LANES(x, i, end);
        INPUT_LANES(y, i, end);
        OUTPUT_LANES(dx, i, end);
        EACH_LANE(l)
            dx_at[l] = noisy_relu_vjp_of(dy_at[l], x_at[l], y_at[l]);
        STORE_REST(dx, i, end);
    }
}

ELEMENT gaussian_noise_forward_of(real x, double stddev, real tail) {
    return x + R(stddev) * noise_normal_of_tail(tail);
}

DRAWN(gaussian_noise_forward, OUT_OVER(y), IN_UNDER(x)) {
    const double stddev = call->scalar[0];
    for (int64_t i = begin; i < end; i += LANES) {
        INPUT_LANES(x, i, end);
        OUTPUT_LANES(y, i, end);
        EACH_LANE(l)
            y_at[l] = gaussian_noise_forward_of(x_at[l], stddev, tail[i - begin + l]);
        STORE_REST(y, i, end);
    }
}

ELEMENT gaussian_noise_vjp_of(real dy) {
    return dy;
}

ELEMENTWISE(gaussian_noise_vjp, OUT_OVER(dx), IN_UNDER(dy)) {
    ELEMENTS(i)
        dx[i] = gaussian_noise_vjp_of(dy[i]);
}
